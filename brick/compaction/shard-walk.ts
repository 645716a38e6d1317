import type { GrainKey } from "../map/map-table-keys.ts";
import type { CompactionOptions } from "./compaction-options.ts";

/**
 * When a shard that is led here is walked for grains to rewrite: once gateways have changed it, and have
 * left it alone for a while. A walk that is cut short goes on where it was.
 */
export class ShardWalk {
  /** In which it was led when it was seen first; another view begins anew. */
  readonly view: number;
  readonly #options: CompactionOptions;
  #changedMs: number;
  /** A gateway has changed it since the last walk began. */
  #isChanged = true;
  #begunMs = Number.NEGATIVE_INFINITY;
  #isUnderWay = false;
  #isLeft = false;
  /** Where it goes on. */
  after: GrainKey | null = null;

  constructor(view: number, nowMs: number, options: CompactionOptions) {
    this.view = view;
    this.#changedMs = nowMs;
    this.#options = options;
  }

  /** A gateway has changed the shard. */
  changed(nowMs: number): void {
    this.#changedMs = nowMs;
    this.#isChanged = true;
  }

  isIdle(nowMs: number): boolean {
    return nowMs - this.#changedMs >= this.#options.idleMs;
  }

  isDue(nowMs: number): boolean {
    if (!this.isIdle(nowMs)) return false;
    const isNext = this.#isChanged && nowMs - this.#begunMs >= this.#options.walkEveryMs;
    return this.#isUnderWay || isNext;
  }

  /** A page is looked at now. */
  goesOn(nowMs: number): void {
    if (this.#isUnderWay) return;
    this.#isUnderWay = true;
    this.#begunMs = nowMs;
    this.#isChanged = false;
  }

  /** Something could not be rewritten: the next walk tries again. */
  failed(): void {
    this.#isLeft = true;
  }

  ended(): void {
    this.#isUnderWay = false;
    this.#isChanged ||= this.#isLeft;
    this.#isLeft = false;
    this.after = null;
  }
}
