import type { Calls } from "../rpc/calls.ts";
import { giveBack, lentBytesMin } from "../rpc/lent-memory.ts";
import { messageType } from "../rpc/message-types.ts";
import type { ChunkRead } from "../store/chunk-reads.ts";
import type { SliceRead } from "../store/slice-reads.ts";
import type { PutResult, Store } from "../store/store.ts";
import type { BrickNumber } from "../units.ts";
import {
  type ChunkPut,
  decodeChunkGet,
  decodeChunkHas,
  decodeChunkPut,
  encodeChunkGetReply,
  encodeChunkHasReply,
  encodeChunkPutReply,
  type GetResult,
  getReplyBytesMax,
  getStatus,
  type PutStatus,
  putStatus,
} from "./chunk-messages.ts";
import { chunkKey, keyEquals } from "./key.ts";
import { decodeChunkPuts, encodeChunkPutsReply } from "./puts-messages.ts";
import {
  decodeSliceRequest,
  encodeSliceReply,
  type SliceResult,
  type SliceWish,
} from "./slice-messages.ts";

/**
 * Answers the bricks' puts, gets and questions from the store; `self` is this brick, whose gateways ask
 * it too. A message that cannot be decoded is not answered: its sender is another version or broken,
 * and its deadline tells it. What came with a put is needed no more when it is answered.
 */
export function serveChunks(calls: Calls, store: Store, self: BrickNumber): void {
  calls.serveData(messageType.chunkPut, (from, received, reply) => {
    const put = decodeChunkPut(received.parts);
    const answer = (status: PutStatus) => {
      received.release?.();
      reply(encodeChunkPutReply(status));
    };
    if (put === null) answer(putStatus.bad);
    else putChecked(store, put, from === self, answer);
  });
  calls.serveData(messageType.chunkPuts, (from, received, reply) => {
    const puts = decodeChunkPuts(received.parts);
    if (puts === null) return;
    // Answered together, when the last of them is durable or refused; each with what became of it.
    const statuses: PutStatus[] = [];
    let waiting = puts.length;
    for (const [at, put] of puts.entries()) {
      putChecked(store, put, from === self, (status) => {
        statuses[at] = status;
        waiting -= 1;
        if (waiting > 0) return;
        received.release?.();
        reply(encodeChunkPutsReply(statuses));
      });
    }
  });
  calls.serve(messageType.chunkGet, (_from, body, reply) => {
    const keys = decodeChunkGet(body);
    if (keys === null) return;
    Promise.all(keys.map((key) => store.readChunk(key))).then((reads) => {
      reply(encodeChunkGetReply(getResults(reads)), () => giveBackReads(reads));
    });
  });
  calls.serve(messageType.chunkSlices, (_from, body, reply) => {
    const wishes = decodeSliceRequest(body);
    if (wishes === null) return;
    const reads = wishes.map(({ key, first, count }) => store.slices.read(key, first, count));
    whenAll(reads, (read) => {
      reply(encodeSliceReply(read.map((one, at) => sliceResult(one, wishes[at]!))));
    });
  });
  calls.serve(messageType.chunkHas, (_from, body, reply) => {
    const keys = decodeChunkHas(body);
    if (keys === null) return;
    reply(encodeChunkHasReply(keys.map((key) => store.has(key))));
  });
}

/**
 * Whoever receives a chunk checks it: bytes that came damaged must not be kept under this key. Those of
 * this brick's own gateway have not moved since it made the key of them.
 */
function putChecked(
  store: Store,
  put: ChunkPut,
  isOwn: boolean,
  done: (status: PutStatus) => void,
): void {
  if (!isOwn && !keyEquals(chunkKey(put.data), put.key)) {
    done(putStatus.bad);
    return;
  }
  store.stamps.reach(put.gcEpoch);
  store.put(put.key, put.data, put.origin, (result) => done(statusOfPut(result)));
}

/** A read's bytes are nobody else's; but one that was not durable yet may lie among others. */
function giveBackReads(reads: readonly ChunkRead[]): void {
  for (const read of reads) {
    if (!read.ok || read.bytes.length < lentBytesMin) continue;
    if (read.bytes.length === read.bytes.buffer.byteLength) giveBack(read.bytes);
  }
}

/** In this turn when nothing is waited for. */
function whenAll<T extends object>(
  values: readonly (T | Promise<T>)[],
  action: (all: readonly T[]) => void,
): void {
  const isHere = (value: T | Promise<T>): value is T => !(value instanceof Promise);
  if (values.every(isHere)) action(values);
  else Promise.all(values).then(action);
}

function sliceResult(read: SliceRead, { withOutline }: SliceWish): SliceResult {
  if (!read.ok) return { status: getStatus[read.fault.code] };
  const { outline, bytes } = read;
  return { status: getStatus.found, outline: withOutline ? outline : null, bytes };
}

function statusOfPut(result: PutResult): PutStatus {
  if (result.ok) return result.deduplicated ? putStatus.deduplicated : putStatus.stored;
  const statuses = {
    no_space: putStatus.noSpace,
    bad_size: putStatus.bad,
    busy: putStatus.busy,
  } as const;
  return statuses[result.fault.code];
}

/** As many chunks as a reply may hold; the others are to be asked for again. */
export function getResults(reads: readonly ChunkRead[]): GetResult[] {
  let bytesLeft = getReplyBytesMax;
  return reads.map((read) => {
    if (!read.ok) return { status: getStatus[read.fault.code] };
    bytesLeft -= read.bytes.length;
    if (bytesLeft < 0) return { status: getStatus.omitted };
    return { status: getStatus.found, bytes: read.bytes };
  });
}
