import type { Prng } from "../../brick/prng.ts";

/** A dial that is at this does nothing. */
export const never = Number.POSITIVE_INFINITY;

/** How unlucky a run is: each dial is drawn once per seed, so that runs differ in kind (swarm). */
export interface FaultDials extends CrashDials, MoreDials {}

/** What runs draw first, since the first of them. */
export interface CrashDials {
  readonly crashEveryMs: number;
  readonly restartMsMax: number;
  readonly powerCutEveryMs: number;
  readonly partitionEveryMs: number;
  readonly partitionMsMax: number;
  readonly freezeEveryMs: number;
  readonly freezeMsMax: number;
  readonly lossChance: number;
  readonly duplicateChance: number;
  readonly reorderChance: number;
  /** Bricks away at the same time at most, besides whole-cluster power cuts. */
  readonly awayMax: number;
}

export interface MoreDials {
  /** Of the crashes, how many kill the process only, so that the kernel writes what it was given. */
  readonly killShare: number;
  /** Two halves of the cluster meet in one brick only. */
  readonly bridgeEveryMs: number;
  /** What a brick sends to another waits, and arrives late. */
  readonly clogEveryMs: number;
  readonly clogMsMax: number;
  /** Of a brick that loses power, the chance that a peer goes on sending into a dead connection. */
  readonly halfOpenChance: number;
  /** Clocks run too fast or too slow by up to this share. */
  readonly driftShare: number;
  readonly wallJumpEveryMs: number;
  /** A flush, a write or the index fails: the brick has to stop itself. Or the disk is full: it need not. */
  readonly diskStopEveryMs: number;
  readonly slowDiskEveryMs: number;
  readonly slowness: number;
  /**
   * Bits flip, sectors become unreadable, writes are lost or go astray, the index rots: on one brick
   * at a time (see fault-atlas.ts).
   */
  readonly damageEveryMs: number;
  /** Bricks are lost for good, emptied and removed, and new ones join. */
  readonly turnoverEveryMs: number;
  readonly growEveryMs: number;
  /** Chance that after a partition nothing else goes wrong until the cluster is whole again. */
  readonly calmChance: number;
}

export const dialGroups = ["network", "clock", "disk", "damage", "turnover"] as const;
export type DialGroup = (typeof dialGroups)[number];

export function drawCrashDials(prng: Prng, bricks: number): CrashDials {
  const maybe = (chance: number, value: () => number) => (prng.chance(chance) ? value() : never);
  return {
    crashEveryMs: maybe(0.9, () => prng.between(5_000, 120_000)),
    restartMsMax: prng.pick([500, 5_000, 60_000]),
    powerCutEveryMs: maybe(0.5, () => prng.between(30_000, 600_000)),
    partitionEveryMs: maybe(0.6, () => prng.between(10_000, 120_000)),
    partitionMsMax: prng.pick([500, 5_000, 30_000]),
    freezeEveryMs: maybe(0.4, () => prng.between(20_000, 120_000)),
    freezeMsMax: prng.pick([100, 1_500, 10_000]),
    lossChance: prng.pick([0, 0, 0.001, 0.02]),
    duplicateChance: prng.pick([0, 0, 0.001, 0.02]),
    reorderChance: prng.pick([0, 0, 0.01, 0.1]),
    awayMax: prng.chance(0.7) ? 1 : Math.max(1, Math.floor((bricks - 1) / 2)),
  };
}

/** Each group has its own chance, so that a run has some of them and rarely all. */
export function drawMoreDials(prng: Prng, groups: ReadonlySet<DialGroup>): MoreDials {
  const draw = (group: DialGroup, chance: number, from: number, to: number): number => {
    const value = prng.between(from, to);
    return prng.chance(chance) && groups.has(group) ? value : never;
  };
  const killShare = prng.pick([0, 0.5, 1]);
  const driftShare = prng.pick([0, 0.001, 0.02]);
  return {
    killShare: groups.has("disk") ? killShare : 0,
    bridgeEveryMs: draw("network", 0.4, 15_000, 120_000),
    clogEveryMs: draw("network", 0.4, 10_000, 90_000),
    clogMsMax: prng.pick([500, 5_000, 20_000]),
    driftShare: groups.has("clock") ? driftShare : 0,
    wallJumpEveryMs: draw("clock", 0.5, 5_000, 60_000),
    diskStopEveryMs: draw("disk", 0.5, 15_000, 120_000),
    slowDiskEveryMs: draw("disk", 0.4, 20_000, 120_000),
    slowness: prng.pick([10, 100]),
    damageEveryMs: draw("damage", 0.5, 10_000, 60_000),
    turnoverEveryMs: draw("turnover", 0.5, 20_000, 120_000),
    growEveryMs: draw("turnover", 0.4, 20_000, 120_000),
    calmChance: prng.pick([0, 0.5, 1]),
    halfOpenChance: groups.has("network") ? prng.pick([0, 0.3, 1]) : 0,
  };
}

/** In a short run each dial that was drawn has its turn: what happens at all does so about twice. */
export function quickened(dials: FaultDials, runMs: number): FaultDials {
  const quick = Object.entries(dials).map(([name, value]) => {
    const isPeriod = name.endsWith("EveryMs") && value !== never;
    return [name, isPeriod ? Math.min(value, runMs / 2) : value];
  });
  return Object.fromEntries(quick);
}
