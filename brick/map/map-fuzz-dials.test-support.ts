import type { Prng } from "../prng.ts";

/** How unlucky a run is; drawn once per seed, so that runs differ in kind. */
export interface Dials {
  bricks: number;
  shards: number;
  copies: number;
  lossChance: number;
  duplicateChance: number;
  reorderChance: number;
  crashEveryMs: number;
  restartMsMax: number;
  powerCutEveryMs: number;
  freezeEveryMs: number;
  cutEveryMs: number;
  deafEveryMs: number;
  membersLostEveryMs: number;
  strandEveryMs: number;
  checkpointEveryMs: number;
  takeoverEveryMs: number;
  stateDelayMsMax: number;
  transferAfterMs: number;
}

export function drawDials(prng: Prng): Dials {
  const maybe = (chance: number, min: number, max: number) =>
    prng.chance(chance) ? prng.between(min, max) : Number.POSITIVE_INFINITY;
  return {
    bricks: prng.pick([3, 4]),
    shards: prng.pick([1, 1, 2]),
    copies: prng.pick([2, 2, 3]),
    lossChance: prng.pick([0, 0.01, 0.1]),
    duplicateChance: prng.pick([0, 0.01, 0.1]),
    reorderChance: prng.pick([0, 0.05, 0.3]),
    crashEveryMs: maybe(0.95, 100, 1200),
    restartMsMax: prng.pick([30, 300, 1500]),
    powerCutEveryMs: maybe(0.6, 500, 4000),
    freezeEveryMs: maybe(0.4, 300, 2000),
    cutEveryMs: maybe(0.4, 300, 2000),
    deafEveryMs: maybe(0.3, 300, 2000),
    membersLostEveryMs: maybe(0.4, 300, 2000),
    strandEveryMs: maybe(0.4, 300, 2000),
    checkpointEveryMs: maybe(0.7, 10, 400),
    takeoverEveryMs: maybe(0.7, 300, 2500),
    stateDelayMsMax: prng.pick([1, 20, 150]),
    transferAfterMs: prng.pick([0, 300, 3000]),
  };
}
