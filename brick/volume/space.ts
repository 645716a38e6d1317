import { type ClusterState, isReachable, type VolumeRecord } from "../cluster-state.ts";
import type { Host } from "../host.ts";
import type { BrickNumber } from "../units.ts";
import type { VolumeSpace } from "./volume.ts";

/** Space behind a volume, by what the cluster state says of its bricks. Pure. */
export function spaceOf(
  state: ClusterState,
  { copies }: VolumeRecord,
  usedBytes: number,
): VolumeSpace {
  let poolBytes = 0;
  let poolUsedBytes = 0;
  const free: number[] = [];
  for (const brick of Object.values(state.bricks)) {
    const { status, spare } = brick;
    if (status === "removed" || status === "failed" || spare === true) continue;
    poolBytes += brick.capacityBytes;
    poolUsedBytes += brick.usedBytes;
    if (brick.status !== "up" || !isReachable(brick) || brick.full) continue;
    free.push(Math.max(0, brick.capacityBytes - brick.usedBytes));
  }
  return { usedBytes, freeBytes: writableBytes(free, copies), poolUsedBytes, poolBytes };
}

/**
 * The most that can be written when each byte takes room on `copies` different bricks: the largest
 * x for which the bricks' free space, counted at most x each, makes copies * x. The largest brick
 * beyond that has room that nobody can pair.
 */
export function writableBytes(freeBytes: readonly number[], copies: number): number {
  const free = [...freeBytes].sort((a, b) => b - a);
  let rest = free.reduce((sum, one) => sum + one, 0);
  // With the `taken` largest ones counted x each, the others wholly: x = rest / (copies - taken).
  for (let taken = 0; taken < copies && taken < free.length; taken += 1) {
    const bytes = Math.floor(rest / (copies - taken));
    if (free[taken]! <= bytes) return bytes;
    rest -= free[taken]!;
  }
  return 0;
}

/** How often the sums are made anew while they are asked for. */
const refreshEveryMs = 1000;
const askedForMs = 10_000;

/** Mapped bytes by branch, as the shards' primaries told a moment ago. */
export class MappedBytes {
  readonly #host: Host;
  readonly #state: () => ClusterState;
  readonly #ask: (brick: BrickNumber) => Promise<ReadonlyMap<number, number> | null>;
  /** What each brick said last of the shards that it leads. */
  readonly #told = new Map<BrickNumber, ReadonlyMap<number, number>>();
  #askedMs = Number.NEGATIVE_INFINITY;
  #refreshing = false;
  #closed = false;

  constructor(parts: {
    host: Host;
    state: () => ClusterState;
    /** null: it does not answer. */
    ask: (brick: BrickNumber) => Promise<ReadonlyMap<number, number> | null>;
  }) {
    this.#host = parts.host;
    this.#state = parts.state;
    this.#ask = parts.ask;
  }

  of(branch: number): number {
    this.#askedMs = this.#host.clock.nowMs();
    if (!this.#refreshing && !this.#closed) this.#refresh();
    let bytes = 0;
    for (const mapped of this.#told.values()) bytes += mapped.get(branch) ?? 0;
    return bytes;
  }

  close(): void {
    this.#closed = true;
  }

  async #refresh(): Promise<void> {
    this.#refreshing = true;
    const { clock } = this.#host;
    while (!this.#closed && clock.nowMs() - this.#askedMs < askedForMs) {
      const leaders = new Set(this.#state().shards.map((shard) => shard.primary));
      for (const brick of this.#told.keys()) if (!leaders.has(brick)) this.#told.delete(brick);
      await Promise.all(
        [...leaders].map(async (brick) => {
          const mapped = await this.#ask(brick);
          if (mapped !== null) this.#told.set(brick, mapped);
        }),
      );
      await new Promise<void>((resolve) => void clock.after(refreshEveryMs, resolve));
    }
    this.#refreshing = false;
  }
}
