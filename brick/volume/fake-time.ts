/** For the tests of this folder: time that passes only when something is to happen. */

interface Timed {
  atMs: number;
  order: number;
  run: (() => void) | null;
}

export class FakeTime {
  nowMs = 1000;
  #events: Timed[] = [];
  #order = 0;

  after(delayMs: number, run: () => void): Timed {
    const event: Timed = { atMs: this.nowMs + Math.max(0, delayMs), order: this.#order, run };
    this.#order += 1;
    let at = this.#events.length;
    while (at > 0 && this.#events[at - 1]!.atMs > event.atMs) at -= 1;
    this.#events.splice(at, 0, event);
    return event;
  }

  /** Runs until the promise has settled; throws when that takes longer than `limitMs`. */
  async until<T>(promise: Promise<T>, limitMs = 600_000): Promise<T> {
    let settled = false;
    const mark = () => {
      settled = true;
    };
    promise.then(mark, mark);
    const endMs = this.nowMs + limitMs;
    for (;;) {
      await new Promise(setImmediate);
      if (settled) return promise;
      const event = this.#events.shift();
      if (event === undefined) throw new Error("nothing is left to happen");
      if (event.atMs > endMs) throw new Error("it takes too long");
      this.nowMs = event.atMs;
      event.run?.();
    }
  }

  async run(forMs: number): Promise<void> {
    await this.until(new Promise<void>((resolve) => this.after(forMs, resolve)));
  }
}
