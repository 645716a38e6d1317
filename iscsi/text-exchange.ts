import { nextTransferTag, numbers, rejectReason, sendReject } from "./answers.ts";
import { findTargets } from "./discovery.ts";
import { textBytesMax, textRequestsMax } from "./limits.ts";
import { loginKeys } from "./login-keys.ts";
import { noTag, textRequest, textResponse } from "./pdu.ts";
import type { Pdu } from "./pdu-stream.ts";
import type { Session } from "./session-state.ts";
import { decodeText, encodeText, parseNumber, type TextPair } from "./text-keys.ts";

/**
 * Text requests of the full feature phase (RFC 7143 §11.10, §11.11). One exchange at a time: a
 * request without a transfer tag begins one and drops the one before.
 *
 *     request, C ──▶ gathering ──request──▶ answer, C ──▶ answering ──empty request──▶ answer
 *     request ─────────────────────────────▶ answer
 */
export interface TextExchange {
  /** The transfer tag that the initiator's next request must bear. */
  tag: number;
  /** Text of requests with the C bit. */
  parts: Buffer[];
  bytes: number;
  requests: number;
  /** What is left of an answer that did not fit in one PDU; null while requests are gathered. */
  rest: Buffer | null;
}

export function receiveText(session: Session, pdu: Pdu): void {
  const reason = takeRequest(session, pdu);
  if (reason === null) return;
  session.text = null;
  sendReject(session.connection, pdu.bhs, reason);
}

/** The reason to reject the request; null when it was answered. */
function takeRequest(session: Session, pdu: Pdu): number | null {
  const fields = textRequest.fields;
  const tag = fields.initiatorTaskTag.get(pdu.bhs);
  const transferTag = fields.targetTransferTag.get(pdu.bhs);
  const continues = fields.continue.get(pdu.bhs);
  const final = fields.final.get(pdu.bhs);
  // §11.10.1, §11.10.2: more of the same text cannot be the last.
  if (tag === noTag || (continues && final)) return rejectReason.protocolError;
  if (transferTag === noTag) {
    session.text = { tag: noTag, parts: [], bytes: 0, requests: 0, rest: null };
  }
  const exchange = session.text;
  if (exchange === null || exchange.tag !== transferTag) return rejectReason.invalidField;
  if (exchange.rest !== null) {
    // §11.10.4: until our answer is whole there is nothing to say.
    if (pdu.dataLength > 0) return rejectReason.protocolError;
    sendText(session, exchange, tag, final, exchange.rest);
    return null;
  }
  exchange.bytes += pdu.dataLength;
  exchange.requests += 1;
  if (exchange.bytes > textBytesMax || exchange.requests > textRequestsMax) {
    return rejectReason.protocolError;
  }
  // Copies: a part must not keep the chunk that it came in.
  for (const part of pdu.data) exchange.parts.push(Buffer.from(part));
  if (continues) {
    exchange.tag = nextTransferTag(session);
    sendTextPdu(session, tag, Buffer.alloc(0), { transferTag: exchange.tag, continues: false });
    return null;
  }
  const offers = decodeText(Buffer.concat(exchange.parts));
  exchange.parts = [];
  exchange.bytes = 0;
  if (offers === undefined || hasDoubles(offers)) return rejectReason.protocolError;
  const text = encodeText(offers.flatMap((offer) => answerText(session, offer)));
  sendText(session, exchange, tag, final, text);
  return null;
}

/** §6.2: a key is negotiated once. */
function hasDoubles(offers: readonly TextPair[]): boolean {
  return new Set(offers.map(([key]) => key)).size < offers.length;
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

/**
 * As much as one PDU takes; the initiator asks for the rest with the transfer tag (C bit). An
 * answer to a request that was not the last is not the last either (§11.11.1).
 */
function sendText(
  session: Session,
  exchange: TextExchange,
  tag: number,
  final: boolean,
  text: Buffer,
): void {
  const { initiatorDataBytesMax } = session.parameters;
  const continues = text.length > initiatorDataBytesMax;
  exchange.rest = continues ? text.subarray(initiatorDataBytesMax) : null;
  if (continues || !final) exchange.tag = nextTransferTag(session);
  else session.text = null;
  const transferTag = continues || !final ? exchange.tag : noTag;
  sendTextPdu(session, tag, text.subarray(0, initiatorDataBytesMax), { transferTag, continues });
}

function sendTextPdu(
  session: Session,
  tag: number,
  text: Buffer,
  { transferTag, continues }: { transferTag: number; continues: boolean },
): void {
  const values = {
    initiatorTaskTag: tag,
    targetTransferTag: transferTag,
    final: transferTag === noTag,
    continue: continues,
    ...numbers(session),
  };
  session.connection.outbox.pdu(textResponse, values, [text], text.length);
}
