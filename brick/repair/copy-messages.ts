import { assert } from "../assert.ts";
import { chunkKeyBytes } from "../chunk/key.ts";
import { holdersMax } from "../map/grain.ts";
import type { BrickNumber } from "../units.ts";
import type { CopyUrgency } from "./copy-budget.ts";

export interface CopyRequest {
  readonly key: Buffer;
  /** In the order to try. */
  readonly sources: readonly BrickNumber[];
  readonly gcEpoch: number;
  readonly urgency: CopyUrgency;
}

const headBytes = 8 + chunkKeyBytes;
/** By their numbers. */
const urgencies: readonly CopyUrgency[] = ["repair", "balance"];

/**
 * A request to fetch a chunk: sourceCount[1] urgency[1] (0 repair, 1 balance) zero[2]
 * garbage-collection epoch[4] key[32], sources[2 each].
 */
export function encodeChunkCopy({ key, sources, gcEpoch, urgency }: CopyRequest): Buffer[] {
  assert(sources.length <= holdersMax);
  const body = Buffer.alloc(headBytes + 2 * sources.length);
  body[0] = sources.length;
  body[1] = urgencies.indexOf(urgency);
  body.writeUInt32BE(gcEpoch, 4);
  key.copy(body, 8);
  for (const [at, source] of sources.entries()) body.writeUInt16BE(source, headBytes + 2 * at);
  return [body];
}

/** null: not of this form. */
export function decodeChunkCopy(body: Buffer): CopyRequest | null {
  if (body.length < headBytes || body.length !== headBytes + 2 * body[0]!) return null;
  const urgency = urgencies[body[1]!];
  if (urgency === undefined) return null;
  const sources = Array.from({ length: body[0]! }, (_, at) =>
    body.readUInt16BE(headBytes + 2 * at),
  );
  const key = Buffer.from(body.subarray(8, headBytes));
  return { key, sources, gcEpoch: body.readUInt32BE(4), urgency };
}

/** The answer: done[1] zero[3] bytesCopied[4]. `bytes` null: it could not be done. */
export function encodeChunkCopyReply(bytes: number | null): Buffer[] {
  const answer = Buffer.alloc(8);
  answer[0] = bytes === null ? 0 : 1;
  answer.writeUInt32BE(bytes ?? 0, 4);
  return [answer];
}

export function decodeChunkCopyReply(body: Buffer): number | null {
  return body.length === 8 && body[0] === 1 ? body.readUInt32BE(4) : null;
}
