import { asyncEvent, sendAsyncMessage } from "./answers.ts";
import { drainLogoutSeconds } from "./limits.ts";
import { endSession } from "./node.ts";
import type { Session, TargetNode } from "./session-state.ts";

/**
 * A portal that is to be left (RFC 7143 §11.9.1): initiators are asked to log out, and those that
 * stay are told and let go. New logins are sent elsewhere, or refused, by the login policy.
 */

function normalSessions(node: TargetNode): Session[] {
  const all = [...node.sessions.values()];
  return all.filter((session) => !session.ended && !session.identity.discovery);
}

export function beginDrain(node: TargetNode): void {
  if (node.drainDueMs !== null) return;
  node.drainDueMs = node.clock.nowMs() + drainLogoutSeconds * 1000;
  for (const session of normalSessions(node)) {
    sendAsyncMessage(session, asyncEvent.logoutRequest, { parameter3: drainLogoutSeconds });
  }
}

/** The portal serves again. Sessions that were asked to leave may do so or stay. */
export function endDrain(node: TargetNode): void {
  node.drainDueMs = null;
}

/** Called now and then: the time of those that were asked is up. */
export function checkDrain(node: TargetNode, nowMs: number): void {
  if (node.drainDueMs === null || nowMs < node.drainDueMs) return;
  for (const session of normalSessions(node)) {
    // Time2Wait and Time2Retain are 0: the next login need not wait, and nothing is retained.
    const parameter1 = session.identity.connectionId;
    sendAsyncMessage(session, asyncEvent.dropConnection, { parameter1 });
    session.connection.closing ??= "afterFlush";
    endSession(session, "it stayed on a portal that drains");
  }
}
