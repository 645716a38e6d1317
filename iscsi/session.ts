import { findTargets } from "./discovery.ts";
import { immediateTasksMax, textBytesMax } from "./limits.ts";
import { loginKeys } from "./login-keys.ts";
import { coldReset, endSession } from "./node.ts";
import {
  asyncMessage,
  commandCdb,
  common,
  dataOut,
  type Layout,
  loginRequest,
  logoutRequest,
  logoutResponse,
  nopIn,
  nopOut,
  noTag,
  reject,
  scsiCommand,
  snackRequest,
  taskManagementRequest,
  textRequest,
  textResponse,
} from "./pdu.ts";
import type { Pdu } from "./pdu-stream.ts";
import { abortTasks, makeTask, queueTask, receiveDataOut } from "./scsi-task.ts";
import { serialAdd, serialWithin } from "./serial32.ts";
import type { Connection, Session } from "./session-state.ts";
import { manageTasks } from "./task-management.ts";
import { decodeText, encodeText, parseNumber, type TextPair } from "./text-keys.ts";
import { nextTransferTag, takeStatSn } from "./transfer.ts";

/** The full feature phase: what each PDU of the initiator brings about (RFC 7143 §4.2.2, §11). */

export const rejectReason = {
  dataDigest: 0x02,
  snack: 0x03,
  protocolError: 0x04,
  unsupported: 0x05,
  tooManyImmediate: 0x06,
  taskInProgress: 0x07,
  invalidField: 0x09,
} as const;

type Receiver = (session: Session, pdu: Pdu) => void;

/** By opcode. Those in `numbered` carry a CmdSN. */
const receivers: ReadonlyMap<number, Receiver> = new Map<number, Receiver>([
  [nopOut.opcode, receiveNopOut],
  [scsiCommand.opcode, receiveScsiCommand],
  [taskManagementRequest.opcode, receiveTaskManagement],
  [loginRequest.opcode, receiveLogin],
  [textRequest.opcode, receiveText],
  [dataOut.opcode, receiveData],
  [logoutRequest.opcode, receiveLogout],
  [snackRequest.opcode, receiveSnack],
]);
const unnumbered: ReadonlySet<number> = new Set([
  loginRequest.opcode,
  dataOut.opcode,
  snackRequest.opcode,
]);

/** One PDU of the full feature phase. */
export function receivePdu(session: Session, pdu: Pdu): void {
  const { bhs } = pdu;
  const opcode = common.opcode.get(bhs);
  const receiver = receivers.get(opcode) ?? receiveUnknown;
  if (unnumbered.has(opcode) || common.immediate.get(bhs)) {
    receiver(session, pdu);
    return;
  }
  const cmdSn = nopOut.fields.cmdSn.get(bhs);
  // §4.2.2.1: outside the window is ignored; inside, but too early, waits for its turn.
  if (!serialWithin(cmdSn, session.expCmdSn, session.maxCmdSn)) return;
  if (cmdSn === session.expCmdSn) {
    session.expCmdSn = serialAdd(cmdSn, 1);
    receiver(session, pdu);
    if (session.held.size > 0) releaseHeld(session);
    return;
  }
  if (session.held.has(cmdSn)) return;
  // A command takes its data at once, so that Data-Out behind it finds the task.
  if (opcode === scsiCommand.opcode) {
    session.held.set(cmdSn, acceptCommand(session, pdu));
  } else {
    session.held.set(cmdSn, () => receiver(session, pdu));
  }
}

function releaseHeld(session: Session): void {
  for (;;) {
    const action = session.held.get(session.expCmdSn);
    if (action === undefined) return;
    session.held.delete(session.expCmdSn);
    session.expCmdSn = serialAdd(session.expCmdSn, 1);
    action();
  }
}

function receiveScsiCommand(session: Session, pdu: Pdu): void {
  acceptCommand(session, pdu)();
}

/** Makes the task, or rejects the command; what is returned is for when its CmdSN is due. */
function acceptCommand(session: Session, pdu: Pdu): () => void {
  const fields = scsiCommand.fields;
  const tag = fields.initiatorTaskTag.get(pdu.bhs);
  const cdb = commandCdb(pdu.bhs, pdu.ahs);
  const numbered = !fields.immediate.get(pdu.bhs);
  const refusal =
    session.identity.discovery || tag === noTag
      ? rejectReason.protocolError
      : cdb === undefined
        ? rejectReason.invalidField
        : session.tasks.has(tag)
          ? rejectReason.taskInProgress
          : !numbered && session.immediateTasks >= immediateTasksMax
            ? rejectReason.tooManyImmediate
            : null;
  if (refusal !== null) {
    sendReject(session.connection, pdu.bhs, refusal);
    return () => numbered && widenWindow(session);
  }
  const task = makeTask(session, pdu, cdb!);
  session.tasks.set(tag, task);
  if (task.immediate) session.immediateTasks += 1;
  return () => {
    if (task.state === "held") queueTask(task);
    // Aborted before its turn.
    else widenWindow(session);
  };
}

function receiveData(session: Session, pdu: Pdu): void {
  receiveDataOut(session, dataOut.fields.initiatorTaskTag.get(pdu.bhs), pdu);
}

function receiveTaskManagement(session: Session, pdu: Pdu): void {
  freePlace(session, pdu.bhs);
  // §4.3: a discovery session has no tasks.
  if (session.identity.discovery) {
    sendReject(session.connection, pdu.bhs, rejectReason.protocolError);
    return;
  }
  if (session.managing >= immediateTasksMax) {
    sendReject(session.connection, pdu.bhs, rejectReason.tooManyImmediate);
    return;
  }
  manageTasks(session, pdu.bhs, () => coldReset(session));
}

/** All that is not a SCSI command is done when its turn has come: its place is free again. */
function freePlace(session: Session, bhs: Buffer): void {
  if (!common.immediate.get(bhs)) widenWindow(session);
}

/** Only for a CmdSN that ExpCmdSN has passed: else the window, and `held`, would grow. */
function widenWindow(session: Session): void {
  session.maxCmdSn = serialAdd(session.maxCmdSn, 1);
}

function receiveNopOut(session: Session, pdu: Pdu): void {
  freePlace(session, pdu.bhs);
  const fields = nopOut.fields;
  const tag = fields.initiatorTaskTag.get(pdu.bhs);
  // §11.18: without a task tag it is the answer to our ping, or nothing; both were heard.
  if (tag === noTag) return;
  const dataLength = Math.min(pdu.dataLength, session.parameters.initiatorDataBytesMax);
  const values = {
    initiatorTaskTag: tag,
    lunHigh: fields.lunHigh.get(pdu.bhs),
    lunLow: fields.lunLow.get(pdu.bhs),
    targetTransferTag: noTag,
    ...numbers(session),
  };
  const echo = dataLength === pdu.dataLength ? pdu.data : [cut(pdu.data, dataLength)];
  session.connection.outbox.pdu(nopIn, values, echo, dataLength);
}

function cut(data: readonly Buffer[], length: number): Buffer {
  return Buffer.concat(data, length);
}

function numbers(session: Session): { statSn: number; expCmdSn: number; maxCmdSn: number } {
  const { expCmdSn, maxCmdSn } = session;
  return { statSn: takeStatSn(session), expCmdSn, maxCmdSn };
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

export function sendAsyncMessage(session: Session, event: number, seconds: number): void {
  session.connection.outbox.pdu(asyncMessage, {
    initiatorTaskTag: noTag,
    event,
    parameter3: seconds,
    ...numbers(session),
  });
  session.connection.wake();
}

function receiveText(session: Session, pdu: Pdu): void {
  freePlace(session, pdu.bhs);
  const fields = textRequest.fields;
  const tag = fields.initiatorTaskTag.get(pdu.bhs);
  const transferTag = fields.targetTransferTag.get(pdu.bhs);
  const reply = session.textReply;
  if (transferTag !== noTag && reply !== null && reply.tag === transferTag) {
    sendText(session, tag, reply.rest);
    return;
  }
  // §11.10.4: a request without a transfer tag resets the exchange before it.
  session.textReply = null;
  if (transferTag === noTag) {
    session.text = [];
    session.textBytes = 0;
  }
  session.textBytes += pdu.dataLength;
  if (session.textBytes > textBytesMax) {
    sendReject(session.connection, pdu.bhs, rejectReason.protocolError);
    return;
  }
  session.text.push(...pdu.data);
  if (fields.continue.get(pdu.bhs)) {
    sendTextPdu(session, tag, Buffer.alloc(0), false, true);
    return;
  }
  const offers = decodeText(Buffer.concat(session.text));
  session.text = [];
  session.textBytes = 0;
  if (offers === undefined) {
    sendReject(session.connection, pdu.bhs, rejectReason.protocolError);
    return;
  }
  sendText(session, tag, encodeText(offers.flatMap((offer) => answerText(session, offer))));
}

function answerText(session: Session, [key, value]: TextPair): TextPair[] {
  if (key === "SendTargets") {
    // Appendix C: in a normal session only the session's own target may be asked for. All "MUST
    // NOT be supported" there; libiscsi's examiner sends it and takes Reject for a failure, so it
    // is told what it may be told.
    const { discovery, initiatorName, targetName } = session.identity;
    if (discovery && value !== "") return findTargets(session.node, initiatorName, value);
    const asksForOwn = value === "" || value === "All" || value.toLowerCase() === targetName;
    if (!discovery && asksForOwn) {
      return findTargets(session.node, initiatorName, targetName);
    }
    return [[key, "Reject"]];
  }
  if (key === "MaxRecvDataSegmentLength") {
    const { range } = loginKeys.MaxRecvDataSegmentLength;
    const bytes = parseNumber(value);
    if (bytes === undefined || bytes < range[0] || bytes > range[1]) return [[key, "Reject"]];
    session.parameters.initiatorDataBytesMax = bytes;
    return [];
  }
  return [[key, key in loginKeys ? "Reject" : "NotUnderstood"]];
}

/** As much as one PDU takes; the initiator asks for the rest with the transfer tag (C bit). */
function sendText(session: Session, tag: number, text: Buffer): void {
  const { initiatorDataBytesMax } = session.parameters;
  const more = text.length > initiatorDataBytesMax;
  sendTextPdu(session, tag, text.subarray(0, initiatorDataBytesMax), more, more);
  session.textReply = more
    ? { tag: session.lastTransferTag, rest: text.subarray(initiatorDataBytesMax) }
    : null;
}

function sendTextPdu(
  session: Session,
  tag: number,
  text: Buffer,
  continues: boolean,
  expectsMore: boolean,
): void {
  const values = {
    initiatorTaskTag: tag,
    targetTransferTag: expectsMore ? nextTransferTag(session) : noTag,
    final: !expectsMore,
    continue: continues,
    ...numbers(session),
  };
  session.connection.outbox.pdu(textResponse, values, [text], text.length);
}

function receiveLogout(session: Session, pdu: Pdu): void {
  freePlace(session, pdu.bhs);
  const fields = logoutRequest.fields;
  const reason = fields.reason.get(pdu.bhs);
  const tag = fields.initiatorTaskTag.get(pdu.bhs);
  const ours = fields.connectionId.get(pdu.bhs) === session.identity.connectionId;
  // §11.15.1: 1 = no such connection, 2 = recovery is not supported.
  const response = reason === 2 ? 2 : reason === 1 && !ours ? 1 : 0;
  const answer = () => {
    if (session.ended) return;
    session.connection.outbox.pdu(logoutResponse, {
      initiatorTaskTag: tag,
      response,
      ...numbers(session),
    });
    if (response === 0) {
      session.connection.closing = "afterFlush";
      endSession(session, "logout");
    }
    session.connection.wake();
  };
  if (response === 0) abortTasks([...session.tasks.values()], answer);
  else answer();
}

/** A Login Request after login breaks the connection's state machine (§8.1). */
function receiveLogin(session: Session, pdu: Pdu): void {
  sendReject(session.connection, pdu.bhs, rejectReason.protocolError);
  session.connection.closing = "afterFlush";
}

function receiveSnack(session: Session, pdu: Pdu): void {
  sendReject(session.connection, pdu.bhs, rejectReason.snack);
}

function receiveUnknown(session: Session, pdu: Pdu): void {
  freePlace(session, pdu.bhs);
  sendReject(session.connection, pdu.bhs, rejectReason.unsupported);
}

/** §11.17: the bad PDU's header goes back with the reason. */
export function sendReject(connection: Connection, bhs: Buffer, reason: number): void {
  const { session } = connection;
  connection.node.metrics?.protocolError(`reject ${reason}`);
  if (session === null) return;
  const copy = Buffer.from(bhs);
  const values = { initiatorTaskTag: noTag, reason, ...numbers(session) };
  connection.outbox.pdu(reject as Layout<typeof reject.fields>, values, [copy], copy.length);
}
