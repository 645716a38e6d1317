import { assertNever } from "../brick/assert.ts";
import {
  commandWindow,
  discoveryIdleMs,
  loginTimeoutMs,
  pingAfterIdleMs,
  pingAnswerMs,
  receiveDataBytesMax,
} from "./limits.ts";
import {
  type LoginRequest,
  loginParameters,
  loginStage,
  loginStatus,
  startLogin,
  stepLogin,
} from "./login.ts";
import { endSession, joinNode, loginPolicy } from "./node.ts";
import { Outbox } from "./outbox.ts";
import { common, loginRequest, loginResponse } from "./pdu.ts";
import { type Pdu, type PduFault, PduStream } from "./pdu-stream.ts";
import { serialAdd } from "./serial32.ts";
import { receivePdu, rejectReason, sendPing, sendReject } from "./session.ts";
import type { Connection, Session, TargetNode } from "./session-state.ts";

/** One TCP connection, from its first byte to its last (RFC 7143 §8.1). */

export function openConnection(node: TargetNode, remote: string, wake: () => void): Connection {
  const nowMs = node.clock.nowMs();
  return {
    node,
    remote,
    stream: new PduStream(),
    outbox: new Outbox(),
    phase: "login",
    login: startLogin(loginPolicy(node)),
    session: null,
    statSn: 1,
    closing: null,
    unsentBytes: 0,
    openedMs: nowMs,
    lastReceivedMs: nowMs,
    pingSentMs: null,
    wake,
  };
}

/** Bytes from the initiator. The chunk belongs to the connection from now on. */
export function receiveChunk(connection: Connection, chunk: Buffer): void {
  const { stream } = connection;
  connection.lastReceivedMs = connection.node.clock.nowMs();
  connection.pingSentMs = null;
  stream.push(chunk);
  while (connection.closing === null) {
    const event = stream.next();
    if (event === null) return;
    if (!event.ok) {
      receiveFault(connection, event.fault);
      return;
    }
    receiveOne(connection, event.pdu);
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
      sendReject(connection, fault.bhs, rejectReason.dataDigest);
      closeConnection(connection, "data digest");
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

/** Ends the connection once what is owed has gone out. */
export function closeConnection(connection: Connection, why: string): void {
  connection.node.metrics?.protocolError(why);
  connection.node.log(`iscsi: connection of ${connection.remote} closes: ${why}`);
  connection.closing ??= "afterFlush";
  connection.wake();
}

/** The socket is gone. */
export function connectionLost(connection: Connection): void {
  connection.closing = "now";
  connection.phase = "ended";
  if (connection.session !== null) endSession(connection.session, "connection closed");
}

function receiveLogin(connection: Connection, pdu: Pdu): void {
  const { login, node } = connection;
  if (login === null || common.opcode.get(pdu.bhs) !== loginRequest.opcode) {
    closeConnection(connection, "first PDU is no Login Request");
    return;
  }
  const step = stepLogin(login, pdu);
  switch (step.type) {
    case "answer":
      answerLogin(connection, step.request, {
        status: loginStatus.success,
        transit: step.transit,
        nextStage: step.nextStage,
        text: step.text,
      });
      return;
    case "refuse":
      node.log(`iscsi: login of ${connection.remote} refused: ${step.reason}`);
      refuseLogin(connection, step.request, step.status);
      return;
    case "accept": {
      connection.phase = "joining";
      const parameters = loginParameters(login);
      const { request, identity, text } = step;
      joinNode(connection, identity, parameters, request.cmdSn, (session) => {
        if (session === null) return refuseLogin(connection, request, loginStatus.targetError);
        enterFullFeature(connection, session, request, text);
      });
      return;
    }
    default:
      assertNever(step);
      return;
  }
}

function enterFullFeature(
  connection: Connection,
  session: Session,
  request: LoginRequest,
  text: Buffer,
): void {
  const { identity, parameters } = session;
  connection.session = session;
  connection.login = null;
  connection.phase = "full";
  const nextStage = loginStage.fullFeature;
  const { success } = loginStatus;
  answerLogin(connection, request, { status: success, transit: true, nextStage, text });
  // §13.1: digests are in use from the first PDU after the final Login Response.
  connection.stream.headerDigest = parameters.headerDigest;
  connection.stream.dataDigest = parameters.dataDigest;
  connection.stream.dataBytesMax = receiveDataBytesMax;
  connection.outbox.headerDigest = parameters.headerDigest;
  connection.outbox.dataDigest = parameters.dataDigest;
  if (!identity.discovery) {
    const { node, remote } = connection;
    node.log(`iscsi: ${identity.initiatorName} (${remote}) enters ${identity.targetName}`);
  }
}

function refuseLogin(connection: Connection, request: LoginRequest, status: number): void {
  connection.node.metrics?.loginRefused(status);
  answerLogin(connection, request, {
    status,
    transit: false,
    nextStage: 0,
    text: Buffer.alloc(0),
  });
  connection.closing = "afterFlush";
}

function answerLogin(
  connection: Connection,
  request: LoginRequest,
  answer: { status: number; transit: boolean; nextStage: number; text: Buffer },
): void {
  const { session, outbox } = connection;
  outbox.pdu(
    loginResponse,
    {
      initiatorTaskTag: request.initiatorTaskTag,
      transit: answer.transit,
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

function closeNow(connection: Connection, why: string): void {
  closeConnection(connection, why);
  connection.closing = "now";
}
