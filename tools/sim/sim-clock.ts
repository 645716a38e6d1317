import type { Clock, TimerHandle } from "../../brick/host.ts";

/**
 * Virtual time: a queue of events ordered by (time, sequence). Between two events every microtask
 * runs to its end, so that promises belong to the event that settled them. Nothing here looks at
 * the real clock; the real event loop only gets a turn now and then, and no order depends on it.
 */

/** Events between two turns of the real event loop (signals, unhandled rejections). */
const eventsPerRealTurn = 512;
/** Cancelled events that may stay in the queue before it is swept. */
const cancelledEventsMin = 1024;

/** What an event is, for the trace hash. */
export const eventKind = { control: 1, timer: 2, soon: 3, disk: 4, message: 5, crash: 6, boot: 7 };

/** Whom an event belongs to: the events of a dead owner never run, those of a frozen one wait. */
export interface EventOwner {
  readonly brick: number;
  readonly alive: boolean;
  readonly frozenUntilMs: number;
  /** Something escaped from the action: the owner's crash, as in a process. */
  failed(error: unknown): void;
}

export class SimEvent {
  atMs: number;
  sequence: number;
  readonly owner: EventOwner | null;
  readonly kind: number;
  readonly type: number;
  /** null once run or cancelled. */
  action: (() => void) | null;

  constructor(
    atMs: number,
    sequence: number,
    owner: EventOwner | null,
    kind: number,
    type: number,
    action: () => void,
  ) {
    this.atMs = atMs;
    this.sequence = sequence;
    this.owner = owner;
    this.kind = kind;
    this.type = type;
    this.action = action;
  }
}

/** A running 64-bit hash of all that happened: the same seed must give the same hash. */
export class TraceHash {
  #high = 0x243f6a88;
  #low = 0x85a308d3;
  readonly #double = new Float64Array(1);
  readonly #words = new Uint32Array(this.#double.buffer);

  add(word: number): void {
    const high = Math.imul(this.#high ^ word, 0x9e3779b1);
    const low = Math.imul(this.#low ^ word ^ (high >>> 15), 0x85ebca6b);
    this.#high = high ^ (low >>> 13);
    this.#low = low ^ (high << 7);
  }

  addTime(timeMs: number): void {
    this.#double[0] = timeMs;
    this.add(this.#words[0]!);
    this.add(this.#words[1]!);
  }

  toString(): string {
    const hex = (word: number) => (word >>> 0).toString(16).padStart(8, "0");
    return hex(this.#high) + hex(this.#low);
  }
}

export type RunEnd = "until" | "time" | "events" | "idle";

export class SimClock {
  nowMs = 0;
  eventCount = 0;
  readonly trace = new TraceHash();
  /** Set by whoever finds that the run must not go on; the run rejects with it. */
  failure: { error: unknown } | null = null;
  #heap: SimEvent[] = [];
  #sequence = 0;
  #cancelledCount = 0;
  #running = false;

  schedule(
    delayMs: number,
    owner: EventOwner | null,
    kind: number,
    type: number,
    action: () => void,
  ): SimEvent {
    const atMs = this.nowMs + Math.max(delayMs, 0);
    const event = new SimEvent(atMs, (this.#sequence += 1), owner, kind, type, action);
    this.#push(event);
    return event;
  }

  cancel(event: SimEvent): void {
    if (event.action === null) return;
    event.action = null;
    this.#cancelledCount += 1;
    if (this.#cancelledCount > cancelledEventsMin && this.#cancelledCount * 2 > this.#heap.length) {
      this.#sweep();
    }
  }

  /**
   * Runs events until `until` holds (looked at before every event), until `untilMs`, or until
   * `eventsMax` events have run; "idle" when nothing is left to happen. Reaching `untilMs` sets
   * the time to it.
   */
  async run(limits: {
    until?: () => boolean;
    untilMs?: number;
    eventsMax?: number;
  }): Promise<RunEnd> {
    if (this.#running) throw new Error("the simulated clock is running already");
    this.#running = true;
    const restore = this.#takeRejections();
    try {
      const end = await this.#loop(limits);
      await realTurn();
      if (this.failure) throw this.failure.error;
      return end;
    } finally {
      restore();
      this.#running = false;
    }
  }

  #loop(limits: { until?: () => boolean; untilMs?: number; eventsMax?: number }): Promise<RunEnd> {
    const { until, untilMs = Number.POSITIVE_INFINITY } = limits;
    const eventsLast = this.eventCount + (limits.eventsMax ?? Number.POSITIVE_INFINITY);
    return new Promise((resolve, reject) => {
      // A tick runs only after the microtask queue is empty; asking for it from a microtask keeps
      // it from running in the same pass as the tick before it.
      const askForTurn = () => process.nextTick(turn);
      const turn = () => {
        try {
          const end = this.#next(until, untilMs, eventsLast);
          if (end !== null) {
            resolve(end);
            return;
          }
        } catch (error) {
          reject(error);
          return;
        }
        if (this.eventCount % eventsPerRealTurn === 0) setImmediate(turn);
        else queueMicrotask(askForTurn);
      };
      setImmediate(turn);
    });
  }

  /** Runs one event, or says why not. */
  #next(until: (() => boolean) | undefined, untilMs: number, eventsLast: number): RunEnd | null {
    if (this.failure) throw this.failure.error;
    if (until?.()) return "until";
    for (;;) {
      const event = this.#heap[0];
      if (event === undefined || event.atMs > untilMs) {
        if (untilMs !== Number.POSITIVE_INFINITY) {
          this.nowMs = Math.max(this.nowMs, untilMs);
          return "time";
        }
        return "idle";
      }
      if (this.eventCount >= eventsLast) return "events";
      this.#pop();
      const { action, owner } = event;
      if (action === null) {
        this.#cancelledCount -= 1;
        continue;
      }
      if (owner !== null && !owner.alive) continue;
      if (owner !== null && owner.frozenUntilMs > event.atMs) {
        event.atMs = owner.frozenUntilMs;
        event.sequence = this.#sequence += 1;
        this.#push(event);
        continue;
      }
      this.#perform(event, action, owner);
      return null;
    }
  }

  #perform(event: SimEvent, action: () => void, owner: EventOwner | null): void {
    this.nowMs = event.atMs;
    this.eventCount += 1;
    event.action = null;
    this.trace.addTime(event.atMs);
    this.trace.add((event.kind << 24) | ((owner?.brick ?? 0) & 0xffff));
    this.trace.add(event.type);
    if (owner === null) {
      action();
      return;
    }
    try {
      action();
    } catch (error) {
      owner.failed(error);
    }
  }

  /**
   * While a run lasts, unhandled rejections are ours: the unwinding of a crashed brick is no news,
   * anything else ends the run.
   */
  #takeRejections(): () => void {
    const others = process.listeners("unhandledRejection");
    const mine = (error: unknown) => {
      if (!(error instanceof BrickStopped)) this.failure ??= { error };
    };
    process.removeAllListeners("unhandledRejection");
    process.on("unhandledRejection", mine);
    return () => {
      process.removeListener("unhandledRejection", mine);
      for (const other of others) process.on("unhandledRejection", other);
    };
  }

  #push(event: SimEvent): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parentAt = (at - 1) >> 1;
      const parent = heap[parentAt]!;
      if (!isBefore(event, parent)) break;
      heap[at] = parent;
      at = parentAt;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length > 0) this.#sink(0, last);
  }

  #sink(from: number, event: SimEvent): void {
    const heap = this.#heap;
    const length = heap.length;
    let at = from;
    for (;;) {
      let childAt = 2 * at + 1;
      if (childAt >= length) break;
      if (childAt + 1 < length && isBefore(heap[childAt + 1]!, heap[childAt]!)) childAt += 1;
      const child = heap[childAt]!;
      if (!isBefore(child, event)) break;
      heap[at] = child;
      at = childAt;
    }
    heap[at] = event;
  }

  #sweep(): void {
    this.#heap = this.#heap.filter((event) => event.action !== null);
    for (let at = (this.#heap.length >> 1) - 1; at >= 0; at -= 1) this.#sink(at, this.#heap[at]!);
    this.#cancelledCount = 0;
  }
}

/**
 * Asked at every call of a brick's disk: throws once the boot has ended. It is told what the call is
 * about to change there, if anything.
 */
export type Guard = (change?: string) => void;

/** Thrown through the code of a brick that has crashed, to end it; never to be handled. */
export class BrickStopped extends Error {
  override readonly name = "BrickStopped";
}

/** One machine's clocks: they may run fast or slow, and the wall clock may be wrong. */
export class SimMachineClock {
  /** Added to the wall clock; free to jump. */
  wallSkewMs = 0;
  readonly #clock: SimClock;
  #rate = 1;
  #sinceWorldMs = 0;
  #sinceLocalMs: number;

  constructor(clock: SimClock, startMs: number) {
    this.#clock = clock;
    this.#sinceLocalMs = startMs;
  }

  nowMs(): number {
    return this.#sinceLocalMs + (this.#clock.nowMs - this.#sinceWorldMs) * this.#rate;
  }

  wallMs(): number {
    return Math.floor(wallStartMs + this.#clock.nowMs + this.wallSkewMs);
  }

  get rate(): number {
    return this.#rate;
  }

  /** 1.001 gains a millisecond a second. Timers already set keep their moment. */
  setRate(rate: number): void {
    this.#sinceLocalMs = this.nowMs();
    this.#sinceWorldMs = this.#clock.nowMs;
    this.#rate = rate;
  }

  /** What one boot of the machine sees. */
  of(owner: EventOwner): Clock {
    const clock = this.#clock;
    return {
      nowMs: () => this.nowMs(),
      wallMs: () => this.wallMs(),
      after: (delayMs, action): TimerHandle => {
        const event = clock.schedule(delayMs / this.#rate, owner, eventKind.timer, 0, action);
        return { cancel: () => clock.cancel(event) };
      },
      soon: (action) => {
        clock.schedule(0, owner, eventKind.soon, 0, action);
      },
    };
  }
}

/** The wall clock at virtual time 0. */
const wallStartMs = 1_700_000_000_000;

function isBefore(a: SimEvent, b: SimEvent): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.sequence < b.sequence);
}

function realTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
