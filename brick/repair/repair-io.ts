import type { ClusterState } from "../cluster-state.ts";
import type { Host } from "../host.ts";
import { chunksOf, type Entry } from "../map/entry.ts";
import type { MapService } from "../map/map-service-io.ts";
import type { TableEntry } from "../map/map-table.ts";
import { ownBranch } from "../map/owed.ts";
import type { Replica } from "../map/replica.ts";
import type { Calls } from "../rpc/calls.ts";
import { ServedWatch } from "../served-watch.ts";
import type { Store } from "../store/store.ts";
import type { BrickNumber } from "../units.ts";
import { writePlacement } from "../volume/placement.ts";
import { Balance } from "./balance-io.ts";
import { ChunkMover } from "./chunk-mover-io.ts";
import type { CopyRates } from "./copy-budget.ts";
import { CopyService } from "./copy-service-io.ts";
import { Pace } from "./pace.ts";
import { leaves, leavingBricks, planGrain, type RepairTask } from "./repair-plan.ts";
import { RepairWalk } from "./repair-walk.ts";

/** Map records looked at in one step of a walk, and the pause between steps. */
const pageRecords = 128;
const pauseMs = 4;
/** Whether there is anything to walk is looked at this often. */
const idleMs = 500;
/** Extents that one brick has put in order at a time. */
export const copiesUnderWayMax = 8;

export interface RepairCounters {
  /** Copies made because bricks failed or lacked one from the start. */
  repairBytes: number;
  /** Copies made because bricks are being emptied, or filled. */
  rebalanceBytes: number;
}

/** How far the repair of the shards led here is. */
export interface RepairProgress {
  /** Extents short of copies, as far as the walks have found. */
  readonly short: number;
  /** Of these, ones for which nothing can be done until more bricks are up, or less full. */
  readonly stuck: number;
  /** Bytes that are still to be copied. */
  readonly leftBytes: number;
  /** How many of them a second are put in order at present; 0: none, or it is not known yet. */
  readonly bytesPerSecond: number;
}

interface RepairParts {
  readonly host: Host;
  readonly calls: Calls;
  readonly self: BrickNumber;
  readonly map: MapService;
  readonly store: Store;
  readonly state: () => ClusterState;
  /** Bytes that this brick's gateway has read and written for initiators; it only grows. */
  servedBytes(): number;
  readonly rates?: Partial<CopyRates>;
}

/**
 * Sees to it that everything mapped by the shards led here has its copies on bricks that stay: walks
 * their records, has missing copies made by the bricks that shall keep them, and names those in the
 * map. Nothing of it is remembered but in the map: whoever leads a shard next walks it and finds what
 * is left. Reboots give it nothing to do.
 */
export class Repair {
  readonly counters: RepairCounters = { repairBytes: 0, rebalanceBytes: 0 };
  readonly #mover: ChunkMover;
  readonly #balance: Balance;
  readonly #parts: RepairParts;
  readonly #service: CopyService;
  readonly #walks = new Map<number, RepairWalk>();
  readonly #pace = new Pace();
  /** Copies wanted by branch, as of `state`. */
  #copies: { state: ClusterState | null; byBranch: Map<number, number> } = {
    state: null,
    byBranch: new Map(),
  };
  /** When a gateway's entry last committed on a replica of this brick. */
  #committedMs = Number.NEGATIVE_INFINITY;
  readonly #served: ServedWatch;
  #closed = false;

  constructor(parts: RepairParts) {
    this.#parts = parts;
    this.#served = new ServedWatch(parts.host.clock, () => parts.servedBytes());
    this.#mover = new ChunkMover(parts);
    this.#balance = new Balance({
      host: parts.host,
      mover: this.#mover,
      state: parts.state,
      led: () => this.#led(),
      copiesOf: (state, branch) => this.#copiesOf(state, branch),
      isInOrder: () => this.pendingShards().length === 0,
      busyMs: () => this.#busyMs(),
      moved: (bytes) => {
        this.counters.rebalanceBytes += bytes;
      },
    });
    this.#service = new CopyService(parts);
    parts.map.onCommit.push((replica, entry) => this.#committed(replica, entry));
    this.#later(pauseMs);
  }

  close(): void {
    this.#closed = true;
    this.#service.close();
    this.#balance.close();
  }

  /**
   * Shards led here that were not found in order since the last brick left or was lost, in whatever
   * view: what `endisk status` calls the rest of a repair.
   */
  restoringShards(): number {
    const state = this.#parts.state();
    const leaving = leavingBricks(state);
    if (leaving === "") return 0;
    let restoring = 0;
    for (const [shard, { primary }] of state.shards.entries()) {
      if (primary !== this.#parts.self) continue;
      const clean = this.#walks.get(shard)?.clean ?? "";
      if (clean.slice(clean.indexOf(":") + 1) !== leaving) restoring += 1;
    }
    return restoring;
  }

  /**
   * Shards that this brick is to lead in which something on bricks that leave may still be needed:
   * all that were not found in order since.
   */
  pendingShards(): number[] {
    const state = this.#parts.state();
    const pending: number[] = [];
    for (const [shard, { primary, view }] of state.shards.entries()) {
      if (primary !== this.#parts.self) continue;
      if (this.#walks.get(shard)?.clean !== purposeOf(state, view)) pending.push(shard);
    }
    return pending;
  }

  progress(): RepairProgress {
    let short = 0;
    let stuck = 0;
    let leftBytes = 0;
    for (const { shard } of this.#led()) {
      const walk = this.#walks.get(shard);
      short += walk?.left ?? 0;
      stuck += walk?.stuck ?? 0;
      leftBytes += walk?.leftBytes ?? 0;
    }
    const bytesPerSecond = this.#pace.bytesPerSecond(this.#parts.host.clock.nowMs());
    return { short, stuck, leftBytes, bytesPerSecond };
  }

  /**
   * A write placed before its gateway knew what leaves may land after the walk has passed its grain:
   * then the shard is not in order, whatever the walk finds.
   */
  #committed(replica: Replica, entry: Entry): void {
    if (entry.epoch > 0) this.#committedMs = this.#parts.host.clock.nowMs();
    if (replica.role.is !== "primary") return;
    const state = this.#parts.state();
    const copies = this.#copiesOf(state, entry.branch);
    const isShort = ({ holders }: { holders: readonly BrickNumber[] }) =>
      holders.filter((brick) => !leaves(state, brick)).length < copies;
    if (chunksOf(entry).some(isShort)) this.#walk(replica.shard).committedShort();
  }

  /** When something of an initiator was last seen here. */
  #busyMs(): number {
    return Math.max(this.#served.look(), this.#committedMs);
  }

  /** Copies that the branch's volume wants. 0: nobody reads that branch any more. */
  #copiesOf(state: ClusterState, branch: number): number {
    if (this.#copies.state !== state) {
      const volumes = Object.values(state.volumes);
      const byBranch = new Map(volumes.map((volume) => [volume.branch, volume.copies]));
      this.#copies = { state, byBranch };
    }
    return this.#copies.byBranch.get(ownBranch(branch)) ?? 0;
  }

  #led(): Replica[] {
    const { map } = this.#parts;
    return [...map.replicas()].filter(({ role }) => role.is === "primary" && !role.released);
  }

  #later(delayMs: number): void {
    this.#parts.host.clock.after(delayMs, () => {
      if (this.#closed) return;
      this.#step().then((worked) => this.#later(worked ? pauseMs : idleMs));
    });
  }

  /** One page of one shard's walk; false when none is due. */
  async #step(): Promise<boolean> {
    const state = this.#parts.state();
    const nowMs = this.#parts.host.clock.nowMs();
    let next: { replica: Replica; walk: RepairWalk } | null = null;
    for (const replica of this.#led()) {
      const walk = this.#walk(replica.shard);
      walk.aim(purposeOf(state, replica.view?.view));
      if (!walk.isDue(nowMs)) continue;
      if (next === null || walk.urgency < next.walk.urgency) next = { replica, walk };
    }
    if (next === null) return false;
    await this.#page(next.replica, next.walk);
    return true;
  }

  #walk(shard: number): RepairWalk {
    let walk = this.#walks.get(shard);
    if (walk === undefined) {
      walk = new RepairWalk();
      this.#walks.set(shard, walk);
    }
    return walk;
  }

  async #page(replica: Replica, walk: RepairWalk): Promise<void> {
    const { table, shard, facts } = replica;
    const { purpose, livingMax } = walk;
    if (walk.after === null) walk.begins();
    const page = table.scan("base", shard, facts.incarnation, walk.after, pageRecords);
    const last = page.entries.at(-1);
    if (last !== undefined) {
      walk.after = { branch: last.branch, grain: last.grain, generation: last.generation };
    }
    const tasks: { entry: TableEntry; task: RepairTask }[] = [];
    for (const { entry, task } of this.#shortIn(page.entries)) {
      if (livingMax === null) walk.found(task);
      else if (task !== "stuck" && task.living <= livingMax) tasks.push({ entry, task });
    }
    const isCurrent = () => purposeOf(this.#parts.state(), replica.view?.view) === purpose;
    const carryOut = async () => {
      // Bricks leave or return: the walk begins anew.
      for (let next = tasks.pop(); next !== undefined && isCurrent(); next = tasks.pop()) {
        await this.#mend(replica, walk, next.entry, next.task);
      }
    };
    tasks.reverse();
    await Promise.all(Array.from({ length: copiesUnderWayMax }, carryOut));
    if (page.done && isCurrent()) walk.ended(this.#parts.host.clock.nowMs());
  }

  *#shortIn(
    entries: readonly TableEntry[],
  ): Generator<{ entry: TableEntry; task: RepairTask | "stuck" }> {
    const state = this.#parts.state();
    const placement = writePlacement(state);
    for (const entry of entries) {
      const copies = this.#copiesOf(state, entry.branch);
      if (copies === 0) continue;
      for (const task of planGrain(state, placement, copies, entry.grain, entry.value.extents)) {
        yield { entry, task };
      }
    }
  }

  async #mend(
    replica: Replica,
    walk: RepairWalk,
    entry: TableEntry,
    task: RepairTask,
  ): Promise<void> {
    const { bytes, done } = await this.#mover.relocate(replica, entry, {
      ...task,
      urgency: "repair",
    });
    if (task.lost) this.counters.repairBytes += bytes;
    else this.counters.rebalanceBytes += bytes;
    walk.mended(task, done);
    if (!done) return;
    this.#pace.add(this.#parts.host.clock.nowMs(), task.targets.length * task.chunkBytes);
  }
}

function purposeOf(state: ClusterState, view: number | undefined): string {
  return `${view}:${leavingBricks(state)}`;
}
