import type { Coverage } from "./coverage.ts";
import { type FuzzLoop, Round } from "./round.ts";

/** Runs rounds on the real event loop, with an eye on its turns and on memory. */

export interface FuzzReport {
  readonly seed: number;
  readonly coverage: Coverage;
  /** The longest that one turn of the event loop kept everybody else waiting. */
  readonly turnMsMax: number;
  readonly elapsedMs: number;
  /** null: every check held. */
  readonly violation: { readonly message: string; readonly transcript: string } | null;
}

/**
 * Watches what is thrown where nobody waits for it, and how long turns are: in processor time of
 * this thread, which does not depend on what else the machine does.
 */
class RealLoop implements FuzzLoop {
  turnMsMax = 0;
  #failure: unknown = null;
  #turnMs = 0;
  readonly #unhandled = (reason: unknown): void => {
    this.#failure ??= reason;
  };

  constructor() {
    process.on("unhandledRejection", this.#unhandled);
  }

  close(): void {
    process.off("unhandledRejection", this.#unhandled);
  }

  timed(act: () => void): void {
    const startedMs = threadMs();
    act();
    // A chunk is a turn of its own; what its promises do is added by `turn`.
    this.#turnMs = Math.max(this.#turnMs, threadMs() - startedMs);
  }

  async turn(): Promise<void> {
    const startedMs = threadMs();
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.turnMsMax = Math.max(this.turnMsMax, this.#turnMs + threadMs() - startedMs);
    this.#turnMs = 0;
    if (this.#failure !== null) throw this.#failure;
  }
}

function threadMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

/** One round; the same seed and goal make the same round. */
export async function runRound(seed: number, mutatedGoal: number): Promise<FuzzReport> {
  const loop = new RealLoop();
  const timed = (act: () => void) => loop.timed(act);
  const round = new Round(seed, { timed, turn: () => loop.turn() });
  const startedMs = performance.now();
  let violation: FuzzReport["violation"] = null;
  try {
    await round.run(mutatedGoal);
  } catch (error) {
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
    violation = { message, transcript: round.transcript };
  } finally {
    loop.close();
  }
  const elapsedMs = performance.now() - startedMs;
  return { seed, coverage: round.coverage, turnMsMax: loop.turnMsMax, elapsedMs, violation };
}
