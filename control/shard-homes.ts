import {
  brickOf,
  type ClusterState,
  shardsOfFamily,
  type VolumeRecord,
} from "../brick/cluster-state.ts";
import { spread } from "../brick/repair/spread.ts";
import type { BrickNumber } from "../brick/units.ts";
import { isLasting } from "../brick/volume/placement.ts";

/** A brick is crowded when its used share is above the cluster's by more than this. */
const crowdedShare = 1 / 8;
/** One that holds no replica yet must be this close to the cluster's share to be given one. */
const roomyShare = 1 / 16;

/** The brick that serves most of the attached volumes which keep their map in a shard. */
export interface Home {
  readonly brick: BrickNumber;
  /** It has served one of them for so long that replicas may be moved to it. */
  readonly standing: boolean;
}

interface Tally {
  volumes: number;
  standing: boolean;
}

/**
 * Where shards belong by the volumes that keep their map there. A small write costs least when its
 * volume's gateway leads the shard, and when all shards of the volume have the same backup: then
 * messages and commits are shared by many writes. Only clusters whose volumes have shards of their
 * own have homes (`shardSpan`); elsewhere every shard serves every volume.
 */
export class ShardHomes {
  readonly #state: ClusterState;
  /** Per shard, the gateways of its volumes. */
  readonly #gateways = new Map<number, Map<BrickNumber, Tally>>();
  readonly #usedShare: number;

  /** `standing`: uuids of volumes that have been served by the same brick for long. */
  constructor(state: ClusterState, standing: ReadonlySet<string>) {
    this.#state = state;
    if (state.shardSpan !== undefined) {
      for (const volume of Object.values(state.volumes)) this.#count(volume, standing);
    }
    let usedBytes = 0;
    let capacityBytes = 0;
    for (const brick of Object.values(state.bricks).filter(isLasting)) {
      usedBytes += brick.usedBytes;
      capacityBytes += brick.capacityBytes;
    }
    this.#usedShare = capacityBytes === 0 ? 0 : usedBytes / capacityBytes;
  }

  /** Of several that serve equally many, one that holds a replica already, then the oldest. */
  of(shard: number, holders: readonly BrickNumber[]): Home | null {
    let best: Home | null = null;
    let bestRank = 0;
    for (const [brick, { volumes, standing }] of this.#gateways.get(shard) ?? []) {
      const rank = volumes + (holders.includes(brick) ? 1 / 2 : 0);
      if (best !== null && (rank < bestRank || (rank === bestRank && brick > best.brick))) continue;
      best = { brick, standing };
      bestRank = rank;
    }
    return best;
  }

  /**
   * The bricks in `order` for a shard, best first: its home, then its `holders` in their order, so that
   * nothing moves without need, then the others as they were; one of each failure domain before a
   * second, and crowded ones last. A shard that nobody uses belongs where `order` says.
   */
  orderFor(
    shard: number,
    holders: readonly BrickNumber[],
    isEmpty: boolean,
    order: readonly BrickNumber[],
  ): readonly BrickNumber[] {
    const home = this.of(shard, holders);
    if (home === null) return order;
    const settled = home.standing || isEmpty || holders.includes(home.brick);
    const first = settled ? [home.brick] : [];
    const known = [...new Set([...first, ...holders, ...order])].filter((one) =>
      order.includes(one),
    );
    const isCrowded = (one: BrickNumber) => this.#isCrowded(one, holders.includes(one));
    const crowded = known.filter(isCrowded);
    return spread(this.#state, [], [...known.filter((one) => !crowded.includes(one)), ...crowded]);
  }

  #count({ uuid, family, status }: VolumeRecord, standing: ReadonlySet<string>): void {
    const held = this.#state.attachments[uuid];
    if (held === undefined || status !== "ready") return;
    for (const shard of shardsOfFamily(this.#state, family)) {
      const gateways = this.#gateways.get(shard) ?? new Map<BrickNumber, Tally>();
      const tally = gateways.get(held.brick) ?? { volumes: 0, standing: false };
      tally.volumes += 1;
      tally.standing ||= standing.has(uuid);
      this.#gateways.set(shard, gateways.set(held.brick, tally));
    }
  }

  /** Small writes stay on the bricks of their shard: those must not fill up before others. */
  #isCrowded(number: BrickNumber, isHolder: boolean): boolean {
    const brick = brickOf(this.#state, number)!;
    const usedShare = brick.usedBytes / Math.max(1, brick.capacityBytes);
    return brick.full || usedShare > this.#usedShare + (isHolder ? crowdedShare : roomyShare);
  }
}
