import { keyName } from "../chunk/chunk-index.ts";
import { brickOf, type ClusterState } from "../cluster-state.ts";
import { holdersMax } from "../map/grain.ts";
import { spread } from "../repair/spread.ts";
import type { BrickNumber } from "../units.ts";
import { mayHoldChunks, type Placement, readPlacement } from "../volume/placement.ts";
import { isSteady } from "./epochs.ts";

interface Marked {
  readonly key: Buffer;
  readonly holders: Set<BrickNumber>;
  copies: number;
  /** Bricks that have it, and keep it from now on. */
  readonly having: BrickNumber[];
  /** Named bricks that do not have it. */
  readonly lacking: BrickNumber[];
}

/** A chunk that is not where the map says, or in more copies than anybody wants. */
export interface Correction {
  readonly key: Buffer;
  readonly holders: readonly BrickNumber[];
  /** Copies that the map names no more although they are there: a sweep takes them. */
  readonly surplus: number;
}

/**
 * Some of what a shard refers to, and which bricks have said that they keep it. A mark counts when
 * as many bricks have the chunk as the volume has copies; for the others every brick is asked:
 * holders are only hints, and where they are wrong the chunk is elsewhere. A brick that is away
 * sweeps nothing, but says nothing of what it has either.
 */
export class MarkPage {
  readonly #marked = new Map<string, Marked>();
  #placement: Placement | null = null;

  get size(): number {
    return this.#marked.size;
  }

  add(key: Buffer, holders: readonly BrickNumber[], copies: number): void {
    const name = keyName(key);
    let marked = this.#marked.get(name);
    if (marked === undefined) {
      marked = { key, holders: new Set(), copies, having: [], lacking: [] };
      this.#marked.set(name, marked);
    }
    marked.copies = Math.max(marked.copies, copies);
    for (const brick of holders) marked.holders.add(brick);
  }

  /** The keys that each holder must keep; holders that sweep nothing keep theirs unasked. */
  byHolder(state: ClusterState): Map<BrickNumber, Buffer[]> {
    const questions = new Map<BrickNumber, Buffer[]>();
    for (const { key, holders } of this.#marked.values()) {
      for (const brick of holders) if (isSteady(state, brick)) ask(questions, brick, key);
    }
    return questions;
  }

  /** The keys that too few have, for each brick that sweeps and was not asked yet. */
  byStranger(state: ClusterState): Map<BrickNumber, Buffer[]> {
    const questions = new Map<BrickNumber, Buffer[]>();
    const bricks = Object.values(state.bricks).map(({ number }) => number);
    const steady = bricks.filter((brick) => isSteady(state, brick));
    for (const { key, holders, copies, having } of this.#marked.values()) {
      if (having.length >= copies) continue;
      for (const brick of steady) if (!holders.has(brick)) ask(questions, brick, key);
    }
    return questions;
  }

  /** What of the keys asked for is there. */
  answered(brick: BrickNumber, keys: readonly Buffer[], has: readonly boolean[]): void {
    for (const [at, key] of keys.entries()) {
      const { holders, having, lacking } = this.#marked.get(keyName(key))!;
      if (has[at]) having.push(brick);
      else if (holders.has(brick)) lacking.push(brick);
    }
  }

  /**
   * Once everybody has answered: the chunks that the map should say are elsewhere. Only where enough
   * copies were found: others may be on bricks that were not asked, and nothing need be copied. Where
   * more were found than are wanted, on bricks that stay, the best placed of them are named alone.
   */
  corrections(state: ClusterState): Correction[] {
    const found: Correction[] = [];
    for (const { key, holders, copies, having, lacking } of this.#marked.values()) {
      if (having.length < copies) continue;
      const staying = having.filter((brick) => brickOf(state, brick)?.status === "up");
      if (staying.length > copies) {
        this.#placement ??= readPlacement(state);
        const order = this.#placement.order(key).filter((brick) => staying.includes(brick));
        const named = spread(state, [], order).slice(0, copies);
        found.push({ key, holders: named, surplus: staying.length - copies });
        continue;
      }
      if (lacking.length === 0 && having.every((brick) => holders.has(brick))) continue;
      const away = [...holders].filter((one) => !having.includes(one) && !lacking.includes(one));
      found.push({ key, holders: [...having, ...away].slice(0, holdersMax), surplus: 0 });
    }
    return found;
  }

  /**
   * Once everybody has answered: chunks of which there are too few, by the named bricks that lack
   * them. Only when every brick that may have one was asked: nothing need be copied for a reboot.
   */
  shortfalls(state: ClusterState): Map<BrickNumber, Buffer[]> {
    const short = new Map<BrickNumber, Buffer[]>();
    const isAnyoneAway = Object.values(state.bricks).some(
      (brick) => mayHoldChunks(brick) && !isSteady(state, brick.number),
    );
    if (isAnyoneAway) return short;
    for (const { key, copies, having, lacking } of this.#marked.values()) {
      if (having.length === 0) continue;
      for (const brick of lacking.slice(0, Math.max(0, copies - having.length))) {
        ask(short, brick, key);
      }
    }
    return short;
  }
}

function ask(questions: Map<BrickNumber, Buffer[]>, brick: BrickNumber, key: Buffer): void {
  const keys = questions.get(brick);
  if (keys === undefined) questions.set(brick, [key]);
  else keys.push(key);
}
