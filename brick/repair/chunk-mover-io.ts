import { decodeChunkHasReply } from "../chunk/chunk-messages.ts";
import { brickOf, type ClusterState, isReachable } from "../cluster-state.ts";
import { encodeChunkMark } from "../gc/mark-messages.ts";
import { holdersMax } from "../map/grain.ts";
import { decodeMapReply, encodeMapRehint, type MapStatus } from "../map/map-messages.ts";
import type { TableEntry } from "../map/map-table.ts";
import type { Replica } from "../map/replica.ts";
import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { BrickNumber } from "../units.ts";
import type { CopyUrgency } from "./copy-budget.ts";
import { decodeChunkCopyReply, encodeChunkCopy } from "./copy-messages.ts";

const copyTimeoutMs = 10_000;
const askTimeoutMs = 3000;
const rehintTimeoutMs = 2000;

/** One chunk that the map shall name on other bricks than it does. */
export interface Relocation {
  readonly key: Buffer;
  /** Bricks that shall get it; none: there are enough copies, but the map does not name them all. */
  readonly targets: readonly BrickNumber[];
  /** Bricks that can be asked for it, the best first. */
  readonly sources: readonly BrickNumber[];
  /** Holders that go on being named. */
  readonly kept: readonly BrickNumber[];
  /** With the targets there are copies enough: the other holders need not be named any more. */
  readonly full: boolean;
  readonly urgency: CopyUrgency;
}

export interface Relocated {
  /** Bytes copied, whether or not all was done. */
  readonly bytes: number;
  readonly done: boolean;
}

interface MoverParts {
  readonly calls: Calls;
  readonly self: BrickNumber;
  readonly state: () => ClusterState;
}

/** Has chunks copied by the bricks that shall hold them, and names those in the map. */
export class ChunkMover {
  readonly #parts: MoverParts;

  constructor(parts: MoverParts) {
    this.#parts = parts;
  }

  async relocate(replica: Replica, entry: TableEntry, to: Relocation): Promise<Relocated> {
    // Before anything is asked of anybody: what is named below is kept from this epoch on.
    const { gcEpoch } = this.#parts.state();
    const copied = await Promise.all(to.targets.map((one) => this.#copy(one, to, gcEpoch)));
    const made = to.targets.filter((_, at) => copied[at] !== null);
    const bytes = copied.reduce<number>((sum, one) => sum + (one ?? 0), 0);
    const failed = { bytes, done: false };
    if (made.length === 0 && to.targets.length > 0) return failed;
    const kept = await this.#protect(to.kept, to.key, gcEpoch);
    if (kept === null) return failed;
    const complete = kept.length === to.kept.length && made.length === to.targets.length;
    const enough = to.full && complete;
    const holders = new Set([...kept, ...made]);
    // Until there are enough that stay, those that leave are still worth asking.
    const others = enough ? [] : await this.#protect(to.sources, to.key, gcEpoch);
    for (const source of others ?? []) holders.add(source);
    const named = [...holders].slice(0, holdersMax);
    const status = await this.#rehint(replica, entry, { key: to.key, holders: named, gcEpoch });
    return { bytes, done: status === "ok" && enough };
  }

  /**
   * Those of the bricks that have the chunk, and keep it from now on like one stored in that epoch;
   * who is away is believed. null: somebody did not answer.
   */
  async #protect(
    bricks: readonly BrickNumber[],
    key: Buffer,
    gcEpoch: number,
  ): Promise<BrickNumber[] | null> {
    const isHere = (brick: BrickNumber) => isReachable(brickOf(this.#parts.state(), brick));
    const answers = await Promise.all(
      bricks.map((brick) => (isHere(brick) ? this.#ask(brick, key, gcEpoch) : true)),
    );
    if (answers.includes(null)) return null;
    return bricks.filter((_, at) => answers[at]);
  }

  #ask(brick: BrickNumber, key: Buffer, gcEpoch: number): Promise<boolean | null> {
    const body = encodeChunkMark(gcEpoch, [key]);
    return new Promise((resolve) => {
      this.#parts.calls.call(brick, messageType.chunkMark, body, askTimeoutMs, (reply) => {
        resolve(reply.ok ? (decodeChunkHasReply(reply.body)?.[0] ?? null) : null);
      });
    });
  }

  /** Bytes that travelled; null: it did not come about. */
  #copy(
    target: BrickNumber,
    { key, sources, urgency }: Relocation,
    gcEpoch: number,
  ): Promise<number | null> {
    const body = encodeChunkCopy({ key, sources, gcEpoch, urgency });
    return new Promise((resolve) => {
      this.#parts.calls.call(target, messageType.chunkCopy, body, copyTimeoutMs, (reply) => {
        resolve(reply.ok ? decodeChunkCopyReply(reply.body) : null);
      });
    });
  }

  #rehint(
    replica: Replica,
    { branch, grain, generation }: TableEntry,
    hints: { key: Buffer; holders: readonly BrickNumber[]; gcEpoch: number },
  ): Promise<MapStatus | null> {
    const view = replica.view?.view ?? 0;
    const { shard } = replica;
    const { calls, self } = this.#parts;
    const body = encodeMapRehint({ shard, view, branch, generation, grain, ...hints });
    return new Promise((resolve) => {
      calls.call(self, messageType.mapRehint, body, rehintTimeoutMs, (reply) => {
        resolve(reply.ok ? (decodeMapReply(reply.body)?.status ?? null) : null);
      });
    });
  }
}
