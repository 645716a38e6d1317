import { beginDrain, endDrain } from "./drain.ts";
import { endSession, mustProve } from "./node.ts";
import { refreshLuns } from "./session-luns.ts";
import type { TargetNode } from "./session-state.ts";

/**
 * Keeps live sessions to what the authority says, after each of its changes: sessions of initiators
 * that may use nothing of their target any more end, and those that got in unproven where a proof
 * is asked now; units come and go in the others; and all are asked to leave while another portal
 * serves instead.
 */
export function followAuthority(node: TargetNode): { stop(): void } {
  let isDue = false;
  return node.authority.onChange(() => {
    if (isDue) return;
    isDue = true;
    // Once for all that changes in one tick.
    node.clock.soon(() => {
      isDue = false;
      if (node.authority.redirect() !== null) beginDrain(node);
      else if (!node.draining) endDrain(node);
      for (const session of [...node.sessions.values()]) {
        if (session.ended || session.identity.discovery) continue;
        if (!refreshLuns(session)) endSession(session, "access was taken away");
        else if (mustProve(node, session)) endSession(session, "it must prove itself now");
      }
    });
  });
}
