import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { exitCode } from "./exit-codes.ts";

/** Keeps the bricks of `endisk up` running: one process each, started again when it dies. */

const endiskPath = fileURLToPath(new URL("endisk.ts", import.meta.url));
/** The pause before a restart grows while a brick keeps dying young. */
const restartPauseMsMin = 2_000;
const restartPauseMsMax = 30_000;
/** A brick that ran this long had started well. */
const startedWellMs = 30_000;
/** Told to stop, a brick has this long before it is killed. */
const stopMsMax = 20_000;

export interface SupervisedBrick {
  number: number;
  /** Arguments after `endisk`; asked again for each start. */
  args: () => string[];
}

/**
 * glibc keeps what received data has freed, instead of giving it back to the system and faulting it
 * in again page by page: twice the throughput of large reads. Other C libraries ignore it.
 */
const memoryEnvironment = {
  MALLOC_MMAP_THRESHOLD_: "268435456",
  MALLOC_TRIM_THRESHOLD_: "268435456",
  MALLOC_ARENA_MAX: "2",
};

export class Supervisor {
  readonly #bricks = new Map<number, BrickChild>();
  readonly #restart: boolean;
  readonly #log: (line: string) => void;
  #stopping = false;

  constructor(options: { restart: boolean; log: (line: string) => void }) {
    this.#restart = options.restart;
    this.#log = options.log;
  }

  start(brick: SupervisedBrick): void {
    const child: BrickChild = {
      brick,
      process: null,
      startedMs: 0,
      pauseMs: 0,
      timer: null,
      gone: false,
    };
    this.#bricks.set(brick.number, child);
    this.#spawn(child);
  }

  /** Whether the brick runs now or will be started again. */
  isKept(number: number): boolean {
    return this.#bricks.get(number)?.gone === false;
  }

  #spawn(child: BrickChild): void {
    const { number } = child.brick;
    child.startedMs = performance.now();
    // The pipe to standard input ends with us, however we end: the brick then stops by itself.
    const process_ = spawn(process.execPath, [endiskPath, ...child.brick.args()], {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...memoryEnvironment, ...process.env },
    });
    child.process = process_;
    process_.stdin?.on("error", () => {});
    for (const stream of [process_.stdout, process_.stderr]) {
      if (stream === null) continue;
      createInterface({ input: stream }).on("line", (line) =>
        this.#log(`brick ${number}: ${line}`),
      );
    }
    process_.on("error", (error) => this.#log(`brick ${number} cannot start: ${error.message}`));
    process_.on("close", (code, signal) => this.#ended(child, code, signal ?? `exit code ${code}`));
  }

  #ended(child: BrickChild, code: number | null, how: string): void {
    const { number } = child.brick;
    child.process = null;
    if (this.#stopping) return;
    const hopeless = code === exitCode.usage || code === exitCode.refused;
    if (hopeless || !this.#restart) {
      child.gone = true;
      const why = hopeless ? "" : " (--no-restart)";
      this.#log(`brick ${number} died (${how}); it is not started again${why}`);
      return;
    }
    const ranMs = performance.now() - child.startedMs;
    const longer = Math.max(restartPauseMsMin, Math.min(child.pauseMs * 2, restartPauseMsMax));
    child.pauseMs = ranMs >= startedWellMs ? restartPauseMsMin : longer;
    this.#log(`brick ${number} died (${how}); starting it again in ${child.pauseMs / 1000} s`);
    child.timer = setTimeout(() => {
      child.timer = null;
      this.#spawn(child);
    }, child.pauseMs);
  }

  /** Asks every brick to stop and waits; what does not stop in time is killed and reported. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all([...this.#bricks.values()].map((child) => this.#stopOne(child)));
  }

  /** No patience left. */
  kill(): void {
    for (const child of this.#bricks.values()) child.process?.kill("SIGKILL");
  }

  #stopOne(child: BrickChild): Promise<void> {
    if (child.timer !== null) clearTimeout(child.timer);
    child.timer = null;
    const running = child.process;
    if (running === null) return Promise.resolve();
    return new Promise((resolve) => {
      const patience = setTimeout(() => {
        this.#log(`brick ${child.brick.number} does not stop: killed after ${stopMsMax / 1000} s`);
        running.kill("SIGKILL");
      }, stopMsMax);
      running.on("close", () => {
        clearTimeout(patience);
        resolve();
      });
      running.kill("SIGTERM");
    });
  }
}

interface BrickChild {
  readonly brick: SupervisedBrick;
  process: ChildProcess | null;
  startedMs: number;
  pauseMs: number;
  timer: NodeJS.Timeout | null;
  gone: boolean;
}
