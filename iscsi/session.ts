import { numbers, rejectReason, sendReject } from "./answers.ts";
import { releaseHeld } from "./command-order.ts";
import { heldDataBytesMax, immediateTasksMax } from "./limits.ts";
import { coldReset, endSession } from "./node.ts";
import {
  commandCdb,
  common,
  dataOut,
  loginRequest,
  logoutRequest,
  logoutResponse,
  nopIn,
  nopOut,
  noTag,
  scsiCommand,
  snackRequest,
  taskManagementRequest,
  textRequest,
} from "./pdu.ts";
import type { Pdu } from "./pdu-stream.ts";
import { abortTasks, makeTask, queueTask, receiveDataOut } from "./scsi-task.ts";
import { serialAdd, serialWithin } from "./serial32.ts";
import { type Session, taskAttribute } from "./session-state.ts";
import { manageTasks } from "./task-management.ts";
import { receiveText } from "./text-exchange.ts";

/** The full feature phase: what each PDU of the initiator brings about (RFC 7143 §4.2.2, §11). */

type Receiver = (session: Session, pdu: Pdu) => void;

/** By opcode. Those in `numbered` carry a CmdSN. */
const receivers: ReadonlyMap<number, Receiver> = new Map<number, Receiver>([
  [nopOut.opcode, receiveNopOut],
  [scsiCommand.opcode, receiveScsiCommand],
  [taskManagementRequest.opcode, receiveTaskManagement],
  [loginRequest.opcode, receiveLogin],
  [textRequest.opcode, receiveTextRequest],
  [dataOut.opcode, receiveData],
  [logoutRequest.opcode, receiveLogout],
  [snackRequest.opcode, receiveSnack],
]);
const unnumbered: ReadonlySet<number> = new Set([
  loginRequest.opcode,
  dataOut.opcode,
  snackRequest.opcode,
]);

/** §11.1: from here on only the target may send them; nothing in them can be believed. */
const targetOpcodes = 0x20;

/** One PDU of the full feature phase. */
export function receivePdu(session: Session, pdu: Pdu): void {
  // §11.14: after a Logout Request nothing more may come.
  if (session.loggingOut) return;
  const { bhs } = pdu;
  const opcode = common.opcode.get(bhs);
  const receiver = receivers.get(opcode) ?? receiveUnknown;
  if (unnumbered.has(opcode) || opcode >= targetOpcodes || common.immediate.get(bhs)) {
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
  // What waits must not weigh much: a gap that is never filled keeps it for good.
  if (opcode !== scsiCommand.opcode && pdu.dataLength > heldDataBytesMax) {
    sendReject(session.connection, bhs, rejectReason.protocolError);
    session.held.set(cmdSn, () => freePlace(session, bhs));
    return;
  }
  // A command takes its data at once, so that Data-Out behind it finds the task.
  if (opcode === scsiCommand.opcode) {
    session.held.set(cmdSn, acceptCommand(session, pdu));
  } else {
    session.held.set(cmdSn, () => receiver(session, pdu));
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
    // §4.3: a discovery session has no tasks.
    session.identity.discovery || tag === noTag
      ? rejectReason.protocolError
      : cdb === undefined || fields.attribute.get(pdu.bhs) > taskAttribute.headOfQueue
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
  // §11.18.1: what asks for no answer is immediate.
  if (tag === noTag && !common.immediate.get(pdu.bhs)) {
    sendReject(session.connection, pdu.bhs, rejectReason.protocolError);
    return;
  }
  // Without a task tag it is the answer to our ping, or nothing; both were heard.
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

/** §11.14.1. */
const logoutReason = { closeSession: 0, closeConnection: 1, recovery: 2 } as const;

function receiveTextRequest(session: Session, pdu: Pdu): void {
  freePlace(session, pdu.bhs);
  receiveText(session, pdu);
}

function receiveLogout(session: Session, pdu: Pdu): void {
  freePlace(session, pdu.bhs);
  const fields = logoutRequest.fields;
  const reason = fields.reason.get(pdu.bhs);
  const tag = fields.initiatorTaskTag.get(pdu.bhs);
  const isOther =
    reason === logoutReason.closeConnection &&
    fields.connectionId.get(pdu.bhs) !== session.identity.connectionId;
  // §11.15.1: 1 = no such connection, 2 = recovery is not supported.
  if (reason > logoutReason.recovery) {
    sendReject(session.connection, pdu.bhs, rejectReason.invalidField);
    return;
  }
  const response = reason === logoutReason.recovery ? 2 : isOther ? 1 : 0;
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
  if (response !== 0) {
    answer();
    return;
  }
  session.loggingOut = true;
  abortTasks([...session.tasks.values()], answer);
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
  if (common.opcode.get(pdu.bhs) < targetOpcodes) freePlace(session, pdu.bhs);
  sendReject(session.connection, pdu.bhs, rejectReason.unsupported);
}
