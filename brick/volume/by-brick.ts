import type { BrickNumber } from "../units.ts";

/** What is to be sent to one brick, in the order in which it was asked for. */
export interface ForBrick<T> {
  readonly brick: BrickNumber;
  readonly items: T[];
}

/** What gathers until it is sent, by brick: a few bricks at a time, and a new list after each sending. */
export class ByBrick<T> {
  #all: ForBrick<T>[] = [];

  get isEmpty(): boolean {
    return this.#all.length === 0;
  }

  add(brick: BrickNumber, item: T): void {
    const known = this.#all.find((other) => other.brick === brick);
    if (known === undefined) this.#all.push({ brick, items: [item] });
    else known.items.push(item);
  }

  /** Takes all out. */
  take(): readonly ForBrick<T>[] {
    const all = this.#all;
    this.#all = [];
    return all;
  }
}
