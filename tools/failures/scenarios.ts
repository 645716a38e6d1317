import type { Promised, Round } from "./rounds.ts";
import type { Stage, StageOptions } from "./stage-io.ts";

/** What is done to a cluster, and what its initiators were promised for that case. */
export interface Scenario {
  name: string;
  /** What happens, for people. */
  about: string;
  /** How often, unless said otherwise; */
  rounds: number;
  /** and whether it may be: what it begins with, a cluster has but once. */
  once?: true;
  promised: Promised;
  /** Makes what the cluster is to lie on; throws when this machine lacks something for it. */
  begin(): Promise<Setting>;
}

export interface Setting {
  options: StageOptions;
  /** Before any brick starts. */
  prepare?(stage: Stage): Promise<void>;
  round: OneRound;
  /** Undoes what was made. */
  end(): Promise<void>;
}

export type OneRound = (stage: Stage, round: number) => Promise<Round>;

/** Of a brick that is killed, and of one that is silent. */
export const killPauseMsMax = 5_000;
const silentPauseMsMax = 10_000;

export const unharmed: Promised = {
  pauseMsMax: killPauseMsMax,
  refusals: "none",
  disconnects: false,
  repair: false,
};
/** What another portal had sent to the gateway that died, or to one not known to be dead, is sent again. */
export const portalHit: Promised = { ...unharmed, refusals: "retryable", disconnects: true };
export const forwarderHit: Promised = { ...unharmed, refusals: "retryable" };
export const silent: Promised = { ...unharmed, pauseMsMax: silentPauseMsMax };
/** What it had begun when it froze is sent again: another may have taken its place. */
export const silentGateway: Promised = { ...silent, refusals: "retryable" };
export const silentPortal: Promised = { ...silentGateway, disconnects: true };
export const nobodyLeft: Promised = {
  pauseMsMax: null,
  refusals: "retryable",
  disconnects: true,
  repair: false,
};

/** On loopback and the file system that is there. */
export function plainly(options: Partial<StageOptions>, round: OneRound): Scenario["begin"] {
  return async () => ({
    options: { bricks: 3, copies: 2, ...options },
    round,
    end: async () => {},
  });
}

/** The bricks other than these, from another one on in each round. */
export function inTurn(stage: Stage, round: number, without: readonly number[]): number[] {
  const others = stage.bricks.filter((number) => !without.includes(number));
  return others.map((_, at) => others[(at + round) % others.length]!);
}

/** Why this machine cannot do it, as one sentence; thrown. */
export class CannotRun extends Error {
  override readonly name = "CannotRun";
}
