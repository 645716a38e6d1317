import { serialAdd } from "./serial32.ts";
import type { Session } from "./session-state.ts";

/** Requests in the order of their CmdSN (RFC 7143 §4.2.2.1). */

/** Carries out what was held back for want of a CmdSN that has come now. */
export function releaseHeld(session: Session): void {
  for (;;) {
    const action = session.held.get(session.expCmdSn);
    if (action === undefined) return;
    session.held.delete(session.expCmdSn);
    session.expCmdSn = serialAdd(session.expCmdSn, 1);
    action();
  }
}

/** A request that has not come counts as received: when it comes it is out of the window. */
export function countAsReceived(session: Session, cmdSn: number): void {
  if (session.held.has(cmdSn)) return;
  // It takes no place in the window any more.
  session.held.set(cmdSn, () => {
    session.maxCmdSn = serialAdd(session.maxCmdSn, 1);
  });
  releaseHeld(session);
}
