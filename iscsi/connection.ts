import { assertNever } from "../brick/assert.ts";
import { stage } from "../brick/stage-times.ts";
import { rejectReason, sendPing, sendReject } from "./answers.ts";
import {
  commandWindow,
  discoveryIdleMs,
  loginTimeoutMs,
  pingAfterIdleMs,
  pingAnswerMs,
} from "./limits.ts";
import {
  endLogin,
  isProven,
  type LoginStep,
  loginParameters,
  startLogin,
  stepLogin,
} from "./login.ts";
import { type LoginIdentity, type LoginRequest, loginStage } from "./login-request.ts";
import { loginStatus } from "./login-status.ts";
import { endSession, joinNode, loginPolicy } from "./node.ts";
import { Outbox } from "./outbox.ts";
import { common, dataOut, loginRequest, loginResponse } from "./pdu.ts";
import { type Pdu, type PduFault, PduStream } from "./pdu-stream.ts";
import { receiveDamagedData } from "./scsi-task.ts";
import { serialAdd } from "./serial32.ts";
import { receivePdu } from "./session.ts";
import type { Connection, Session, TargetNode } from "./session-state.ts";

/** One TCP connection, from its first byte to its last (RFC 7143 §8.1). */

/** `remote`: where it comes from. `wake`: see Connection. */
export function openConnection(
  node: TargetNode,
  remote: { address: string; port: number },
  wake: () => void,
): Connection {
  const nowMs = node.clock.nowMs();
  return {
    node,
    remote: `${remote.address}:${remote.port}`,
    address: remote.address,
    stream: new PduStream(),
    outbox: new Outbox(),
    phase: "login",
    login: startLogin(loginPolicy(node)),
    session: null,
    statSn: 1,
    closing: null,
    unsentBytes: 0,
    answerStage: stage.readAnswer,
    answerSinceMs: 0,
    openedMs: nowMs,
    lastReceivedMs: nowMs,
    pingSentMs: null,
    wake,
  };
}

/** Bytes from the initiator that are somewhere else: put where a socket would have put them. */
export function receiveChunk(connection: Connection, chunk: Buffer): void {
  for (let at = 0; at < chunk.length && connection.closing === null; ) {
    const count = chunk.copy(connection.stream.room(), 0, at);
    at += count;
    receiveFilled(connection, count);
  }
}

/** Bytes from the initiator, in the room that the connection's stream gave last. */
export function receiveFilled(connection: Connection, count: number): void {
  const { stream } = connection;
  stream.filled(count);
  const nowMs = connection.node.clock.nowMs();
  while (connection.closing === null) {
    const event = stream.next();
    if (event === null) return;
    connection.lastReceivedMs = nowMs;
    connection.pingSentMs = null;
    if (event.ok) receiveOne(connection, event.pdu);
    else receiveFault(connection, event.fault);
  }
}

function receiveOne(connection: Connection, pdu: Pdu): void {
  switch (connection.phase) {
    case "login":
      receiveLogin(connection, pdu);
      return;
    case "full":
      receivePdu(connection.session!, pdu);
      return;
    case "examining":
    case "joining":
      // Nothing may be sent before the final Login Response.
      closeConnection(connection, "PDU during login");
      return;
    case "ended":
      return;
    default:
      assertNever(connection.phase);
      return;
  }
}

/** What cannot be parsed ends the connection: error recovery level 0 (RFC 7143 §7.7, §7.8). */
function receiveFault(connection: Connection, fault: PduFault): void {
  switch (fault.code) {
    case "header_digest":
      closeConnection(connection, "header digest");
      return;
    case "data_digest":
      receiveDamaged(connection, fault.pdu);
      return;
    case "data_too_long":
      sendReject(connection, fault.bhs, rejectReason.protocolError);
      closeConnection(connection, `data of ${fault.lengthBytes} B (${fault.limitBytes} B)`);
      return;
    case "ahs_too_long":
      sendReject(connection, fault.bhs, rejectReason.protocolError);
      closeConnection(connection, `header segments of ${fault.lengthBytes} B`);
      return;
    default:
      assertNever(fault);
      return;
  }
}

/**
 * RFC 7143 §7.8: a PDU whose data are damaged is rejected and discarded. Of Data-Out, the task fails
 * with a CRC error. A numbered request leaves a gap in CmdSN that no initiator fills at error
 * recovery level 0: the connection, and its session, begin anew.
 */
function receiveDamaged(connection: Connection, pdu: Pdu): void {
  sendReject(connection, pdu.bhs, rejectReason.dataDigest);
  const { session } = connection;
  const opcode = common.opcode.get(pdu.bhs);
  if (session !== null && opcode === dataOut.opcode) receiveDamagedData(session, pdu);
  else if (session === null || !common.immediate.get(pdu.bhs)) {
    closeConnection(connection, "data digest");
  }
}

/** Ends the connection once what is owed has gone out. */
export function closeConnection(connection: Connection, why: string): void {
  const { node, remote } = connection;
  node.metrics?.protocolError(why);
  node.audit.line(`iscsi: connection of ${remote} closes: ${why}`, node.clock.nowMs());
  connection.closing ??= "afterFlush";
  connection.wake();
}

/** The socket is gone. */
export function connectionLost(connection: Connection): void {
  connection.closing = "now";
  connection.phase = "ended";
  if (connection.login !== null) endLogin(connection.login);
  if (connection.session !== null) endSession(connection.session, "connection closed");
}

function receiveLogin(connection: Connection, pdu: Pdu): void {
  const login = connection.login!;
  if (common.opcode.get(pdu.bhs) === loginRequest.opcode) {
    performLogin(connection, stepLogin(login, pdu));
    return;
  }
  // §6.3: before the first Login Request there is nobody to answer to, after it a refusal is due.
  if (login.first === null) {
    closeConnection(connection, "first PDU is no Login Request");
    return;
  }
  const status = loginStatus.invalidDuringLogin;
  const reason = "a PDU that is no Login Request";
  performLogin(connection, {
    type: "refuse",
    request: login.first,
    status,
    reason,
    text: Buffer.alloc(0),
  });
}

function performLogin(connection: Connection, step: LoginStep): void {
  const login = connection.login!;
  switch (step.type) {
    case "answer":
      answerLogin(connection, step.request, { ...step, status: loginStatus.success });
      return;
    case "refuse":
      refuseLogin(connection, step.request, step);
      return;
    case "examine":
      examineProof(connection, step.identity, step.examine);
      return;
    case "accept": {
      connection.phase = "joining";
      const { request, identity, text } = step;
      const { cmdSn: initCmdSn, tsih } = request;
      const parameters = loginParameters(login);
      const joining = { identity, proven: isProven(login), parameters, initCmdSn, tsih };
      joinNode(connection, joining, (session) => {
        if (session !== null) enterFullFeature(connection, session, request, text);
        else refuseLogin(connection, request, targetGone);
      });
      return;
    }
    default:
      assertNever(step);
      return;
  }
}

const targetGone = {
  status: loginStatus.targetError,
  reason: "the target has gone meanwhile",
  text: Buffer.alloc(0),
};

/** Lets a proof wait for its turn, when too many have failed before it. */
function examineProof(
  connection: Connection,
  { initiatorName }: LoginIdentity,
  examine: () => LoginStep,
): void {
  const { node, address } = connection;
  const { throttle, clock } = node;
  const delayMs = throttle.delayMs(address, initiatorName, clock.nowMs());
  if (delayMs === null) {
    const reason = `${initiatorName} has failed too often`;
    const status = loginStatus.serviceUnavailable;
    const { first } = connection.login!;
    refuseLogin(connection, first!, { status, reason, text: Buffer.alloc(0) });
    return;
  }
  const run = () => {
    if (connection.phase === "ended" || connection.closing !== null) return;
    connection.phase = "login";
    const step = examine();
    const failed = step.type === "refuse" && step.status === loginStatus.authenticationFailed;
    if (failed) throttle.failed(address, initiatorName, clock.nowMs());
    else throttle.succeeded(address, initiatorName);
    performLogin(connection, step);
  };
  connection.phase = "examining";
  if (delayMs === 0) run();
  else clock.after(delayMs, run);
}

function enterFullFeature(
  connection: Connection,
  session: Session,
  request: LoginRequest,
  text: Buffer,
): void {
  const { identity, parameters } = session;
  if (connection.login !== null) endLogin(connection.login);
  connection.session = session;
  connection.login = null;
  connection.phase = "full";
  const nextStage = loginStage.fullFeature;
  const { success } = loginStatus;
  const transit = true;
  answerLogin(connection, request, { status: success, transit, continues: false, nextStage, text });
  // §13.1: digests are in use from the first PDU after the final Login Response.
  connection.stream.headerDigest = parameters.headerDigest;
  connection.stream.dataDigest = parameters.dataDigest;
  connection.stream.dataBytesMax = parameters.targetDataBytesMax;
  connection.outbox.headerDigest = parameters.headerDigest;
  connection.outbox.dataDigest = parameters.dataDigest;
  if (!identity.discovery) {
    const { node, remote } = connection;
    node.log(`iscsi: ${identity.initiatorName} (${remote}) enters ${identity.targetName}`);
  }
}

function refuseLogin(
  connection: Connection,
  request: LoginRequest,
  refusal: { status: number; reason: string; text: Buffer },
): void {
  const { node, remote, login } = connection;
  const { status, reason, text } = refusal;
  const who = login?.identity?.initiatorName ?? "an initiator";
  const code = status.toString(16).padStart(4, "0");
  node.metrics?.loginRefused(status);
  node.audit.line(
    `iscsi: login of ${who} (${remote}) refused: ${code}, ${reason}`,
    node.clock.nowMs(),
  );
  answerLogin(connection, request, {
    status,
    transit: false,
    continues: false,
    nextStage: 0,
    text,
  });
  if (login !== null) endLogin(login);
  connection.closing = "afterFlush";
}

function answerLogin(
  connection: Connection,
  request: LoginRequest,
  answer: {
    status: number;
    transit: boolean;
    continues: boolean;
    nextStage: number;
    text: Buffer;
  },
): void {
  const { session, outbox } = connection;
  outbox.pdu(
    loginResponse,
    {
      initiatorTaskTag: request.initiatorTaskTag,
      transit: answer.transit,
      continue: answer.continues,
      currentStage: request.currentStage,
      nextStage: answer.nextStage,
      isid: request.isid,
      tsih: session?.tsih ?? request.tsih,
      statSn: connection.statSn,
      expCmdSn: request.cmdSn,
      maxCmdSn: serialAdd(request.cmdSn, commandWindow - 1),
      statusClass: answer.status >>> 8,
      statusDetail: answer.status & 0xff,
    },
    [answer.text],
    answer.text.length,
  );
  connection.statSn = serialAdd(connection.statSn, 1);
  connection.wake();
}

/** Called now and then: slow logins and dead peers are let go. */
export function checkIdle(connection: Connection, nowMs: number): void {
  if (connection.closing !== null) return;
  const { session } = connection;
  if (session === null) {
    if (nowMs - connection.openedMs > loginTimeoutMs) closeNow(connection, "login took too long");
    return;
  }
  const idleMs = nowMs - connection.lastReceivedMs;
  if (session.identity.discovery) {
    if (idleMs > discoveryIdleMs) closeNow(connection, "discovery session is idle");
  } else if (connection.pingSentMs !== null) {
    if (nowMs - connection.pingSentMs > pingAnswerMs) closeNow(connection, "no answer to a ping");
  } else if (idleMs > pingAfterIdleMs) {
    sendPing(session);
    connection.pingSentMs = nowMs;
    connection.wake();
  }
}

/** Ends the connection at once. */
export function closeNow(connection: Connection, why: string): void {
  closeConnection(connection, why);
  connection.closing = "now";
}
