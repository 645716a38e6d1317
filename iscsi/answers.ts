import { asyncMessage, type Layout, nopIn, noTag, reject } from "./pdu.ts";
import { serialAdd } from "./serial32.ts";
import type { Connection, Session } from "./session-state.ts";

/** What the target says of its own accord, and the numbers that all its PDUs carry. */

export function takeStatSn(session: Session): number {
  const { connection } = session;
  const { statSn } = connection;
  connection.statSn = serialAdd(statSn, 1);
  return statSn;
}

/** The numbers of a PDU that uses up a StatSN. */
export function numbers(session: Session): { statSn: number; expCmdSn: number; maxCmdSn: number } {
  const { expCmdSn, maxCmdSn } = session;
  return { statSn: takeStatSn(session), expCmdSn, maxCmdSn };
}

export function nextTransferTag(session: Session): number {
  session.lastTransferTag = serialAdd(session.lastTransferTag, 1);
  if (session.lastTransferTag === noTag) session.lastTransferTag = 0;
  return session.lastTransferTag;
}

/** Asks a silent initiator for a sign of life; the StatSN is not used up (§11.19.2). */
export function sendPing(session: Session): void {
  const { connection, expCmdSn, maxCmdSn } = session;
  connection.outbox.pdu(nopIn, {
    initiatorTaskTag: noTag,
    targetTransferTag: nextTransferTag(session),
    statSn: connection.statSn,
    expCmdSn,
    maxCmdSn,
  });
}

/** RFC 7143 §11.9.1. */
export const asyncEvent = { logoutRequest: 1, dropConnection: 2, dropAll: 3 } as const;

/** §11.9.1: the parameters mean what the event says. */
export function sendAsyncMessage(
  session: Session,
  event: number,
  parameters: { parameter1?: number; parameter2?: number; parameter3?: number } = {},
): void {
  session.connection.outbox.pdu(asyncMessage, {
    initiatorTaskTag: noTag,
    event,
    ...parameters,
    ...numbers(session),
  });
  session.connection.wake();
}

/** RFC 7143 §11.17.1. */
export const rejectReason = {
  dataDigest: 0x02,
  snack: 0x03,
  protocolError: 0x04,
  unsupported: 0x05,
  tooManyImmediate: 0x06,
  taskInProgress: 0x07,
  invalidField: 0x09,
} as const;

/** §11.17: the bad PDU's header goes back with the reason. */
export function sendReject(connection: Connection, bhs: Buffer, reason: number): void {
  const { session } = connection;
  connection.node.metrics?.protocolError(`reject ${reason}`);
  if (session === null) return;
  const copy = Buffer.from(bhs);
  const values = { initiatorTaskTag: noTag, reason, ...numbers(session) };
  connection.outbox.pdu(reject as Layout<typeof reject.fields>, values, [copy], copy.length);
}
