import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { ClusterStatus } from "../control/api.ts";
import { writePrivateFile } from "../control/api-secret-io.ts";
import { readPid } from "./pid-file-io.ts";
import { runTool } from "./run-tool-io.ts";

/** A real cluster of real processes on free loopback ports, for the tests and the bench of the whole product. */

const endiskPath = fileURLToPath(new URL("bin/endisk", import.meta.url));
const readyMsMax = 90_000;
const linesMax = 2_000;

/** Ports from `base` on that follow each other: three ranges of `range` ports for the bricks. */
interface PortPlan {
  portal: number;
  api: number;
  listen: number;
}

const portRange = 10;

export interface RealClusterOptions {
  bricks?: number;
  restart?: boolean;
  capacity?: string;
  volumes?: readonly string[];
  /** For its processes, besides this one's own. */
  environment?: Readonly<Record<string, string>>;
  /** Where portals listen, when not on loopback alone: initiators are then denied by default. */
  portalHost?: string;
}

export class RealCluster {
  readonly lines: string[] = [];
  readonly #options: RealClusterOptions;
  #folder: string | null = null;
  #ports: PortPlan | null = null;
  #up: ChildProcess | null = null;
  readonly #extra: ChildProcess[] = [];
  #killed = false;

  constructor(options: RealClusterOptions = {}) {
    this.#options = options;
  }

  /** Made when first asked for, gone after dispose(). */
  get folder(): string {
    this.#folder ??= mkdtempSync(join(tmpdir(), "endisk-real-"));
    return this.#folder;
  }

  get data(): string {
    return join(this.folder, "data");
  }

  portal(number: number): string {
    return `127.0.0.1:${this.#ports!.portal + number - 1}`;
  }

  api(number: number): string {
    return `127.0.0.1:${this.#ports!.api + number - 1}`;
  }

  url(number: number, volume = "disk0"): string {
    return `iscsi://${this.portal(number)}/${targetOf(volume)}/0`;
  }

  /** Starts `endisk up` and waits for its ready line. */
  async start(): Promise<void> {
    this.#ports ??= await freePorts();
    this.#killed = false;
    const { bricks, restart, capacity, volumes } = this.#options;
    const args = ["up", "--data", this.data, "--bricks", String(bricks ?? 3)];
    const portalHost = this.#options.portalHost ?? "127.0.0.1";
    args.push("--portal", `${portalHost}:${this.#ports.portal}`, "--api", this.api(1));
    args.push("--listen", `127.0.0.1:${this.#ports.listen}`);
    args.push("--capacity", capacity ?? "4GiB");
    for (const volume of volumes ?? ["disk0:1TiB"]) args.push("--volume", volume);
    if (restart === false) args.push("--no-restart");
    const up = spawn(endiskPath, args, { stdio: ["ignore", "pipe", "pipe"], env: this.#env() });
    this.#up = up;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(this.#failure("not ready in time")), readyMsMax);
      this.#keepLines(up, (line) => {
        if (!line.startsWith("endisk ready")) return;
        clearTimeout(timer);
        resolve();
      });
      up.on("close", (code) => {
        clearTimeout(timer);
        if (this.#up === up) this.#up = null;
        reject(this.#failure(`endisk up ended with exit code ${code}`));
      });
    });
  }

  #env(): NodeJS.ProcessEnv {
    const { environment } = this.#options;
    return { ...process.env, ...environment, XDG_STATE_HOME: join(this.folder, "state") };
  }

  #keepLines(child: ChildProcess, seen: (line: string) => void): void {
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream! }).on("line", (line) => {
        this.lines.push(line);
        if (this.lines.length > linesMax) this.lines.shift();
        seen(line);
      });
    }
  }

  #failure(what: string): Error {
    return new Error(`${what}; the last lines were:\n${this.lines.slice(-40).join("\n")}`);
  }

  /** Starts a further brick as on a machine of its own; resolves when the process is started. */
  async startBrick(number: number): Promise<void> {
    const folder = join(this.data, `brick-${number}`);
    const args = ["brick", "--data", folder, "--capacity", this.#options.capacity ?? "4GiB"];
    args.push("--portal", this.portal(number), "--api", this.api(number));
    args.push("--listen", `127.0.0.1:${this.#ports!.listen + number - 1}`);
    const token = await this.endisk("token");
    const tokenFile = join(this.folder, `token-${number}`);
    writePrivateFile(tokenFile, token);
    args.push("--join", this.api(1), "--token-file", tokenFile);
    const brick = spawn(endiskPath, args, { stdio: ["ignore", "pipe", "pipe"], env: this.#env() });
    this.#keepLines(brick, () => {});
    this.#extra.push(brick);
  }

  /** Runs an `endisk` command against this cluster; fails when it does. */
  async endisk(...args: readonly string[]): Promise<string> {
    const result = await runTool(endiskPath, [...args, "--data", this.data], { env: this.#env() });
    if (result.code !== 0) {
      throw this.#failure(`endisk ${args.join(" ")}: exit ${result.code}: ${result.output}`);
    }
    return result.output;
  }

  async status(): Promise<ClusterStatus> {
    return JSON.parse(await this.endisk("status", "--json"));
  }

  /** A brick that died, by hand, as on a machine of its own. */
  startAgain(number: number): void {
    const args = ["brick", "--data", join(this.data, `brick-${number}`)];
    const brick = spawn(endiskPath, args, { stdio: ["ignore", "pipe", "pipe"], env: this.#env() });
    this.#keepLines(brick, () => {});
    this.#extra.push(brick);
  }

  /** null while it has none. */
  pidNow(number: number): number | null {
    return readPid(join(this.data, `brick-${number}`, "brick.pid"));
  }

  pid(number: number): number {
    const pid = this.pidNow(number);
    if (pid === null) throw this.#failure(`brick ${number} has no process id`);
    return pid;
  }

  /** kill -9. */
  kill(number: number): void {
    process.kill(this.pid(number), "SIGKILL");
  }

  /** All bricks at once, and their supervisor with them, so that nothing is tidied up. */
  async killAll(numbers: readonly number[]): Promise<void> {
    const up = this.#up;
    const gone = new Promise<void>((resolve) => {
      if (up === null) resolve();
      else up.on("close", () => resolve());
    });
    const pids = numbers.map((number) => this.pid(number));
    this.#killed = true;
    if (up?.pid !== undefined) process.kill(up.pid, "SIGKILL");
    for (const pid of pids) process.kill(pid, "SIGKILL");
    await gone;
  }

  /** A metric of one brick, summed over its labels. */
  async metric(number: number, name: string): Promise<number> {
    const reply = await fetch(`http://${this.api(number)}/metrics`);
    let sum = Number.NaN;
    for (const line of (await reply.text()).split("\n")) {
      const match = /^([a-z_]+)(?:\{[^}]*\})? ([0-9.e+-]+)$/.exec(line);
      if (match?.[1] === name) sum = (Number.isNaN(sum) ? 0 : sum) + Number(match[2]);
    }
    return sum;
  }

  async isHealthy(number: number): Promise<boolean> {
    try {
      return (await fetch(`http://${this.api(number)}/health`)).ok;
    } catch {
      return false;
    }
  }

  async waitHealthy(number: number, waitMsMax = 60_000): Promise<void> {
    await this.waitFor(`brick ${number} healthy`, waitMsMax, () => this.isHealthy(number));
  }

  async waitFor(what: string, waitMsMax: number, holds: () => Promise<boolean>): Promise<void> {
    const until = performance.now() + waitMsMax;
    while (!(await holds())) {
      if (performance.now() > until) throw this.#failure(`${what}: not within ${waitMsMax} ms`);
      await sleep(100);
    }
  }

  /** Clean stop; returns the exit code of `endisk up`. */
  async stop(): Promise<number | null> {
    const up = this.#up;
    this.#up = null;
    for (const brick of this.#extra) await ended(brick, "SIGTERM");
    if (up === null || this.#killed) return null;
    return ended(up, "SIGTERM");
  }

  async dispose(): Promise<void> {
    await this.stop();
    if (this.#folder !== null) rmSync(this.#folder, { recursive: true, force: true });
    this.#folder = null;
  }
}

function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) {
      resolve(child.exitCode);
      return;
    }
    const patience = setTimeout(() => child.kill("SIGKILL"), 40_000);
    child.on("close", (code) => {
      clearTimeout(patience);
      resolve(code);
    });
    child.kill(signal);
  });
}

export function targetOf(volume: string): string {
  return `iqn.2026-11.endisk:${volume}`;
}

/** Ranges of ports on which nobody listens now. */
async function freePorts(): Promise<PortPlan> {
  for (let attempt = 0; attempt < 50; attempt += 1) {
    const base = 10_000 + Math.floor(Math.random() * 700) * 3 * portRange;
    const ports = Array.from({ length: 3 * portRange }, (_, index) => base + index);
    const free = await Promise.all(ports.map(isFree));
    if (free.every(Boolean)) {
      return { portal: base, api: base + portRange, listen: base + 2 * portRange };
    }
  }
  throw new Error("no free ports found");
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.on("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
