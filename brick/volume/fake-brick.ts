import {
  type ChunkPut,
  decodeChunkGet,
  decodeChunkPut,
  encodeChunkGetReply,
  encodeChunkHasReply,
  encodeChunkPutReply,
  getStatus,
  type PutStatus,
  putStatus,
} from "../chunk/chunk-messages.ts";
import { chunkKey } from "../chunk/key.ts";
import { isSliced, outlineOf, sliceBytes } from "../chunk/outline.ts";
import { decodeChunkPuts, encodeChunkPutsReply } from "../chunk/puts-messages.ts";
import { decodeSliceRequest, encodeSliceReply } from "../chunk/slice-messages.ts";
import { ownLevels } from "../feature-level.ts";
import { decodeChunkMark } from "../gc/mark-messages.ts";
import type { Host, Message } from "../host.ts";
import { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { SliceRead } from "../store/slice-reads.ts";
import type { BrickNumber } from "../units.ts";

/** For the tests of this folder: a brick that keeps chunks in memory. */
export class FakeBrick {
  readonly number: BrickNumber;
  alive = true;
  frozen = false;
  full = false;
  readonly chunks = new Map<string, Buffer>();
  readonly host: Host;
  readonly calls: Calls;
  puts = 0;
  gets = 0;
  sliceGets = 0;
  /** Slices are to be had on the spot; of an outline that is true, whatever became of the bytes. */
  atHand = false;
  ownReads = 0;
  /** Outlines as they were when the chunk was put. */
  readonly outlines = new Map<string, Buffer>();
  receive: (from: BrickNumber, message: Message) => void = () => {};

  constructor(number: BrickNumber, hostOf: (brick: FakeBrick) => Host) {
    this.number = number;
    this.host = hostOf(this);
    this.calls = new Calls(this.host);
    this.calls.level = ownLevels.newest;
    this.#serve();
  }

  readNow(key: Buffer, first: number, count: number): SliceRead | null {
    const name = key.toString("hex");
    const bytes = this.chunks.get(name);
    if (!this.atHand || bytes === undefined || !isSliced(bytes.length)) return null;
    this.ownReads += 1;
    const outline = this.outlines.get(name) ?? outlineOf(bytes);
    this.outlines.set(name, outline);
    const part = bytes.subarray(first * sliceBytes, (first + count) * sliceBytes);
    return { ok: true, outline, bytes: part };
  }

  #serve(): void {
    const { calls } = this;
    calls.serveData(messageType.chunkPut, (_from, { parts }, reply) => {
      this.puts += 1;
      reply(encodeChunkPutReply(this.#put(decodeChunkPut(parts)!)));
    });
    calls.serveData(messageType.chunkPuts, (_from, { parts }, reply) => {
      this.puts += 1;
      reply(encodeChunkPutsReply(decodeChunkPuts(parts)!.map((put) => this.#put(put))));
    });
    calls.serve(messageType.chunkGet, (_from, body, reply) => {
      this.gets += 1;
      const results = decodeChunkGet(body)!.map((key) => {
        const bytes = this.chunks.get(key.toString("hex"));
        if (bytes === undefined) return { status: getStatus.absent };
        return { status: getStatus.found, bytes };
      });
      reply(encodeChunkGetReply(results));
    });
    calls.serve(messageType.chunkSlices, (_from, body, reply) => {
      this.sliceGets += 1;
      const results = decodeSliceRequest(body)!.map(({ key, first, count, withOutline }) => {
        const bytes = this.chunks.get(key.toString("hex"));
        if (bytes === undefined || !isSliced(bytes.length)) return { status: getStatus.absent };
        const part = bytes.subarray(first * sliceBytes, (first + count) * sliceBytes);
        const outline = withOutline ? outlineOf(bytes) : null;
        return { status: getStatus.found, outline, bytes: part };
      });
      reply(encodeSliceReply(results));
    });
    calls.serve(messageType.chunkMark, (_from, body, reply) => {
      const { keys } = decodeChunkMark(body)!;
      reply(encodeChunkHasReply(keys.map((key) => this.chunks.has(key.toString("hex")))));
    });
  }

  #put({ key, data }: ChunkPut): PutStatus {
    const bytes = Buffer.concat(data);
    if (!chunkKey(bytes).equals(key)) return putStatus.bad;
    const name = key.toString("hex");
    if (this.chunks.has(name)) return putStatus.deduplicated;
    if (this.full) return putStatus.noSpace;
    this.chunks.set(name, bytes);
    return putStatus.stored;
  }
}
