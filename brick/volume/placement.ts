import { assert } from "../assert.ts";
import type { BrickRecord, ClusterState } from "../cluster-state.ts";
import type { BrickNumber } from "../units.ts";
import { acrossDomains, failureDomain } from "./failure-domain.ts";

/** Below this free share of its capacity a brick's weight falls in proportion. */
const freeShareWanted = 1 / 4;
/** No weight falls below this share of the capacity, so that no division goes astray. */
const weightShareMin = 1 / 64;

interface Candidate {
  readonly number: BrickNumber;
  readonly weight: number;
  /** Equal for bricks that fail together. */
  readonly domain: string;
  /** Only when no other is left. */
  readonly last: boolean;
  readonly seed: number;
  score: number;
}

/**
 * Weighted rendezvous hashing: every brick scores each key by itself, so that a brick that comes
 * or goes moves only its own share. The score -weight / ln(u), u uniform in (0, 1) from key and
 * brick, makes a brick first in proportion to its weight.
 */
export class Placement {
  readonly #candidates: Candidate[];
  readonly #domainCount: number;
  readonly #someLast: boolean;

  constructor(
    bricks: readonly { number: BrickNumber; weight: number; domain: string; last?: boolean }[],
  ) {
    this.#candidates = bricks.map(({ number, weight, domain, last = false }) => {
      assert(weight > 0);
      const seed = Math.imul(number, 0x9e3779b1) >>> 0;
      return { number, weight, domain: failureDomain(number, domain), last, seed, score: 0 };
    });
    this.#domainCount = new Set(this.#candidates.map(domainOf)).size;
    this.#someLast = this.#candidates.some(({ last }) => last);
  }

  get size(): number {
    return this.#candidates.length;
  }

  /**
   * All bricks, best first for this key: the best of each failure domain, then the others; in the same
   * order behind them those that come last. The same bricks give the same order on every machine.
   */
  order(key: Buffer): BrickNumber[] {
    const first = key.readUInt32BE(0);
    const second = key.readUInt32BE(4);
    const candidates = this.#candidates;
    for (const one of candidates) one.score = scoreOf(first, second, one);
    candidates.sort(this.#someLast ? compareLast : compareScores);
    if (this.#domainCount === candidates.length) return candidates.map(numberOf);
    const apart = acrossDomains(candidates, domainOf);
    return (this.#someLast ? apart.sort(compareLastOnly) : apart).map(numberOf);
  }
}

/** Where new chunks belong now: bricks that are up and neither full, draining nor spare. */
export function writePlacement(state: ClusterState): Placement {
  const mayTake = ({ status, reachable, full, spare }: BrickRecord) =>
    status === "up" && reachable && !full && spare !== true;
  return placementOf(state, mayTake, weightOf);
}

/**
 * Where a write may go now: as there, and when these are too few for its copies, bricks that drain. It
 * has all its copies then, and repair takes it away from them once there is room elsewhere.
 */
export function storePlacement(state: ClusterState): Placement {
  const mayTake = ({ status, reachable, full, spare }: BrickRecord) =>
    (status === "up" || status === "draining") && reachable && !full && spare !== true;
  return placementOf(state, mayTake, weightOf, ({ status }) => status === "draining");
}

/** Where chunks belong when every brick is up, by capacity alone: who is full does not change it. */
export function lastingPlacement(state: ClusterState): Placement {
  return placementOf(state, isLasting, ({ capacityBytes }) => Math.max(capacityBytes, 1));
}

/** Takes data, and is expected to go on doing so. */
export function isLasting({ status, spare }: BrickRecord): boolean {
  return (status === "up" || status === "down") && spare !== true;
}

/** Where a chunk may be found: every brick that is not given up. */
export function readPlacement(state: ClusterState): Placement {
  return placementOf(state, mayHoldChunks, weightOf);
}

/** A brick whose answer is needed before a chunk may be called lost. */
export function mayHoldChunks(brick: BrickRecord): boolean {
  return brick.status !== "failed" && brick.status !== "removed";
}

/** Offered capacity, less when little of it is free. */
export function weightOf(brick: BrickRecord): number {
  const capacityBytes = Math.max(brick.capacityBytes, 1);
  const freeShare = Math.max(0, capacityBytes - brick.usedBytes) / capacityBytes;
  return capacityBytes * Math.max(weightShareMin, Math.min(1, freeShare / freeShareWanted));
}

function placementOf(
  state: ClusterState,
  eligible: (brick: BrickRecord) => boolean,
  weigh: (brick: BrickRecord) => number,
  comesLast: (brick: BrickRecord) => boolean = () => false,
): Placement {
  const bricks = Object.values(state.bricks)
    .filter(eligible)
    .map((brick) => {
      const { number, domain } = brick;
      return { number, weight: weigh(brick), domain, last: comesLast(brick) };
    });
  return new Placement(bricks);
}

function scoreOf(first: number, second: number, one: Candidate): number {
  // Two rounds of the murmur3 finaliser over key and brick: 32 well-mixed bits.
  const mixed = mix32(mix32(first ^ one.seed) ^ second);
  const unit = (mixed + 0.5) / 2 ** 32;
  return -one.weight / Math.log(unit);
}

function mix32(word: number): number {
  let mixed = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

function compareScores(a: Candidate, b: Candidate): number {
  return b.score - a.score || a.number - b.number;
}

function compareLast(a: Candidate, b: Candidate): number {
  return compareLastOnly(a, b) || compareScores(a, b);
}

/** The sort is stable: whoever comes last does so in the order that there is. */
function compareLastOnly(a: Candidate, b: Candidate): number {
  return Number(a.last) - Number(b.last);
}

function domainOf(one: Candidate): string {
  return one.domain;
}

function numberOf(one: Candidate): BrickNumber {
  return one.number;
}
