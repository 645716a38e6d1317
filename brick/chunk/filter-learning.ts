import type { Clock } from "../host.ts";
import type { ChunkIndex } from "./chunk-index.ts";

/** Keys that the index's filter learns while the store is opened, and in each step afterwards. */
const atOpenKeys = 32_768;
const stepKeys = 1000;
const everyMs = 10;

/** The index's filter learns the keys of a large store beside other work. */
export class FilterLearning {
  readonly #clock: Clock;
  readonly #index: ChunkIndex;
  #underWay = false;
  #ended = false;

  constructor(clock: Clock, index: ChunkIndex) {
    this.#clock = clock;
    this.#index = index;
    if (index.learn(atOpenKeys)) this.#later();
  }

  /** Something was added: there may be more to learn. */
  wake(): void {
    if (this.#index.wantsToLearn) this.#later();
  }

  end(): void {
    this.#ended = true;
  }

  #later(): void {
    if (this.#underWay || this.#ended) return;
    this.#underWay = true;
    this.#clock.after(everyMs, () => {
      this.#underWay = false;
      if (!this.#ended && this.#index.learn(stepKeys)) this.#later();
    });
  }
}
