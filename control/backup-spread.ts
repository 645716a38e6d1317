import { brickOf, type ClusterState, type ShardRecord } from "../brick/cluster-state.ts";
import type { BrickNumber } from "../brick/units.ts";
import { isLasting } from "../brick/volume/placement.ts";
import type { Home, ShardHomes } from "./shard-homes.ts";

/** A brick has far fewer replicas than another when it has at most this of the other's, by capacity. */
const farShare = 3 / 4;

/** The replicas of one volume that go from one brick to another. */
export interface BackupMove {
  readonly from: BrickNumber;
  readonly to: BrickNumber;
  readonly shards: readonly number[];
}

/** Whether the shard's replica may go from one brick to the other, as far as others have a say. */
export type MayMove = (shard: number, from: BrickNumber, to: BrickNumber) => boolean;

/** The shards that a volume keeps its map in; volumes beyond the number of such groups share them. */
interface Family {
  readonly shards: number[];
  /** Replicas that each brick has of them. */
  readonly held: Map<BrickNumber, number>;
  /** The brick that leads them all as their gateway, and has been it for long; null: none does. */
  gateway: BrickNumber | null;
}

/**
 * Evens out backups among bricks. What counts is how many replicas of used shards a brick has for its
 * capacity, whoever leads: when a backup takes over from its primary, nobody has more or fewer, and
 * a reboot moves nothing. What may go is a backup, never the gateway's own replica; and the backups of a
 * volume go together, because company of one backup is what makes small writes cheap.
 *
 * Every move lowers a measure, so that without other changes there is a last one. A volume whose
 * backups were divided is brought together first: bricks that hold its backups are one fewer. Any
 * other move leaves those as many, and lowers the sum of replicas² / capacity over the bricks.
 */
export class BackupSpread {
  readonly #state: ClusterState;
  readonly #families = new Map<number, Family>();
  /** Replicas of used shards that each brick has. */
  readonly #held = new Map<BrickNumber, number>();

  constructor(state: ClusterState, homes: ShardHomes) {
    this.#state = state;
    for (const [number, shard] of state.shards.entries()) {
      const home = homes.of(number, shard.members);
      if (home !== null) this.#count(number, shard, home);
    }
  }

  /** The bricks by what each has if it has all of the shard's family: the one that fits best first. */
  ranked(shard: number, bricks: readonly BrickNumber[]): BrickNumber[] {
    const family = this.#families.get(this.#familyOf(shard));
    if (family === undefined) return [...bricks];
    const share = (one: BrickNumber) => this.#shareWith(family, one);
    return [...bricks].sort((a, b) => share(a) - share(b) || a - b);
  }

  /** What should move next; null when backups are even enough. */
  next(mayMove: MayMove): BackupMove | null {
    const settled = [...this.#families.values()].filter(({ gateway }) => gateway !== null);
    for (const family of settled) {
      const move = this.#uniting(family, mayMove);
      if (move !== null) return move;
    }
    return this.#evening(settled, mayMove);
  }

  /** Of bricks that share the backups of one family the fullest gives its part to the emptiest. */
  #uniting(family: Family, mayMove: MayMove): BackupMove | null {
    const [first] = family.shards;
    const backups = this.ranked(
      first!,
      [...family.held.keys()].filter((one) => one !== family.gateway),
    );
    if (backups.length < this.#state.shards[first!]!.members.length) return null;
    for (const from of backups.toReversed()) {
      for (const to of backups.slice(0, backups.indexOf(from))) {
        const shards = this.#movable(family, from, to, mayMove);
        if (shards !== null) return { from, to, shards };
      }
    }
    return null;
  }

  /** From the brick that has the most to the one that has the least, if that is far less. */
  #evening(families: readonly Family[], mayMove: MayMove): BackupMove | null {
    const bricks = Object.values(this.#state.bricks)
      .filter(isLasting)
      .map(({ number }) => ({ number, share: this.#heldBy(number) / this.#weightOf(number) }))
      .sort((a, b) => a.share - b.share || a.number - b.number);
    for (const from of bricks.toReversed()) {
      for (const to of bricks) {
        if (to.share > from.share * farShare || from.share === 0) break;
        for (const family of families) {
          if (!this.#isWorthwhile(family, from.number, to.number)) continue;
          const shards = this.#movable(family, from.number, to.number, mayMove);
          if (shards !== null) return { from: from.number, to: to.number, shards };
        }
      }
    }
    return null;
  }

  /** With the family the one brick would still have no more than the other without it. */
  #isWorthwhile(family: Family, from: BrickNumber, to: BrickNumber): boolean {
    const { gateway, held } = family;
    if (from === gateway || !held.has(from) || held.has(to)) return false;
    const without = (this.#heldBy(from) - held.get(from)!) / this.#weightOf(from);
    return this.#shareWith(family, to) <= without;
  }

  /** The shards of the family that the one brick backs up, if all may go to the other. */
  #movable(
    { shards }: Family,
    from: BrickNumber,
    to: BrickNumber,
    mayMove: MayMove,
  ): number[] | null {
    const held = shards.filter((shard) => this.#state.shards[shard]!.members.includes(from));
    const isFree = (shard: number) => !this.#state.shards[shard]!.members.includes(to);
    const all = held.every((shard) => isFree(shard) && mayMove(shard, from, to));
    return all ? held : null;
  }

  #count(number: number, { primary, members }: ShardRecord, home: Home): void {
    const key = this.#familyOf(number);
    const isLed = home.standing && primary === home.brick;
    const gateway = isLed ? home.brick : null;
    const family: Family = this.#families.get(key) ?? { shards: [], held: new Map(), gateway };
    this.#families.set(key, family);
    family.shards.push(number);
    if (family.gateway !== gateway) family.gateway = null;
    for (const one of members) {
      family.held.set(one, (family.held.get(one) ?? 0) + 1);
      this.#held.set(one, this.#heldBy(one) + 1);
    }
  }

  #familyOf(shard: number): number {
    return Math.floor(shard / (this.#state.shardSpan ?? this.#state.shards.length));
  }

  #shareWith({ shards, held }: Family, brick: BrickNumber): number {
    const others = this.#heldBy(brick) - (held.get(brick) ?? 0);
    return (others + shards.length) / this.#weightOf(brick);
  }

  #heldBy(brick: BrickNumber): number {
    return this.#held.get(brick) ?? 0;
  }

  #weightOf(brick: BrickNumber): number {
    return Math.max(1, brickOf(this.#state, brick)!.capacityBytes);
  }
}
