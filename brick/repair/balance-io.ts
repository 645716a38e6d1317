import type { ClusterState } from "../cluster-state.ts";
import type { Host } from "../host.ts";
import { isZeros } from "../map/grain.ts";
import type { TableEntry } from "../map/map-table.ts";
import type { GrainKey } from "../map/map-table-keys.ts";
import type { Replica } from "../map/replica.ts";
import { sectorBytes } from "../units.ts";
import { lastingPlacement } from "../volume/placement.ts";
import { growingBricks, planMove } from "./balance-plan.ts";
import type { ChunkMover, Relocation } from "./chunk-mover-io.ts";

/** Map records looked at in one step, and the pause between steps. */
const pageRecords = 128;
const pauseMs = 20;
/** Whether there is anything to move is looked at this often. */
const lookEveryMs = 1000;
/** Chunks that one brick has moved at a time. */
export const movesUnderWayMax = 2;
/** Initiators are quiet when this brick has seen nothing of them for so long. */
export const quietAfterMs = 10_000;
/** A walk begins anew after this, when it could not move something. */
const retryMs = 30_000;

interface Walk {
  /** What it is for: the view, and who grows. */
  purpose: string;
  after: GrainKey | null;
  failed: boolean;
  resumeAtMs: number;
}

interface BalanceParts {
  readonly host: Host;
  readonly mover: ChunkMover;
  readonly state: () => ClusterState;
  /** The replicas led here. */
  readonly led: () => readonly Replica[];
  copiesOf(state: ClusterState, branch: number): number;
  /** Whether every shard led here has its copies: repair goes first. */
  isInOrder(): boolean;
  /** When something of an initiator was last seen here. */
  busyMs(): number;
  moved(bytes: number): void;
}

/** Moves a growing brick's share to it from the shards led here, gently, and then rests. */
export class Balance {
  readonly #parts: BalanceParts;
  readonly #walks = new Map<number, Walk>();
  #closed = false;

  constructor(parts: BalanceParts) {
    this.#parts = parts;
    this.#later(lookEveryMs);
  }

  close(): void {
    this.#closed = true;
  }

  #later(delayMs: number): void {
    this.#parts.host.clock.after(delayMs, () => {
      if (this.#closed) return;
      this.#step().then((worked) => this.#later(worked ? pauseMs : lookEveryMs));
    });
  }

  #mayMove(): boolean {
    const { state, host, busyMs, isInOrder } = this.#parts;
    const mode = state().rebalance ?? "idle";
    if (this.#closed || mode === "off" || growingBricks(state()) === "" || !isInOrder())
      return false;
    return mode === "on" || host.clock.nowMs() - busyMs() >= quietAfterMs;
  }

  async #step(): Promise<boolean> {
    if (!this.#mayMove()) return false;
    const nowMs = this.#parts.host.clock.nowMs();
    for (const replica of this.#parts.led()) {
      const walk = this.#walk(replica);
      if (walk.resumeAtMs > nowMs) continue;
      await this.#page(replica, walk);
      return true;
    }
    return false;
  }

  #purpose(replica: Replica): string {
    return `${replica.view?.view}:${growingBricks(this.#parts.state())}`;
  }

  #walk(replica: Replica): Walk {
    const purpose = this.#purpose(replica);
    const known = this.#walks.get(replica.shard);
    if (known?.purpose === purpose) return known;
    const walk = { purpose, after: null, failed: false, resumeAtMs: 0 };
    this.#walks.set(replica.shard, walk);
    return walk;
  }

  async #page(replica: Replica, walk: Walk): Promise<void> {
    const { table, shard, facts } = replica;
    const page = table.scan("base", shard, facts.incarnation, walk.after, pageRecords);
    const moves = this.#movesIn(page.entries).reverse();
    let isCut = false;
    const carryOut = async () => {
      for (let next = moves.pop(); next !== undefined; next = moves.pop()) {
        // Initiators are back, or who grows is another: this page is looked at again.
        isCut ||= !this.#mayMove() || this.#purpose(replica) !== walk.purpose;
        if (isCut) return;
        await this.#move(replica, walk, next);
      }
    };
    await Promise.all(Array.from({ length: movesUnderWayMax }, carryOut));
    if (isCut) return;
    const last = page.entries.at(-1);
    if (!page.done) {
      walk.after = { branch: last!.branch, grain: last!.grain, generation: last!.generation };
      return;
    }
    walk.after = null;
    const nowMs = this.#parts.host.clock.nowMs();
    walk.resumeAtMs = walk.failed ? nowMs + retryMs : Number.POSITIVE_INFINITY;
    walk.failed = false;
  }

  #movesIn(entries: readonly TableEntry[]): Move[] {
    const state = this.#parts.state();
    const lasting = lastingPlacement(state);
    const moves: Move[] = [];
    for (const entry of entries) {
      const copies = this.#parts.copiesOf(state, entry.branch);
      const seen = new Set<string>();
      for (const extent of entry.value.extents) {
        const name = extent.key.toString("latin1");
        if (copies === 0 || isZeros(extent) || seen.has(name)) continue;
        seen.add(name);
        const to = planMove(state, lasting, copies, extent);
        if (to !== null) moves.push({ entry, to, bytes: extent.chunkSectors * sectorBytes });
      }
    }
    return moves;
  }

  async #move(replica: Replica, walk: Walk, { entry, to, bytes }: Move): Promise<void> {
    const relocation = { ...to, urgency: "balance" } as const;
    const moved = await this.#parts.mover.relocate(replica, entry, relocation);
    this.#parts.moved(moved.bytes);
    if (!moved.done) walk.failed = true;
    // The copy that is named no more is garbage as if it had been overwritten.
    else replica.effects.counters.releasedBytes += bytes;
  }
}

interface Move {
  readonly entry: TableEntry;
  readonly to: Omit<Relocation, "urgency">;
  readonly bytes: number;
}
