import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { AdminReply, ClusterStatus } from "../control/api.ts";
import { ApiClient } from "../control/api-client-io.ts";
import { writePrivateFile } from "../control/api-secret-io.ts";
import { findCluster } from "./find-cluster-io.ts";
import { pidFileHolder, readPid } from "./pid-file-io.ts";
import { runTool, type ToolResult } from "./run-tool-io.ts";

/** A real cluster of real processes on free loopback ports, for the tests and the bench of the whole product. */

const endiskPath = fileURLToPath(new URL("bin/endisk", import.meta.url));
const readyMsMax = 90_000;
const linesMax = 2_000;
const answerMsMax = 5_000;

/** Ports from `base` on that follow each other: three ranges of `range` ports for the bricks. */
interface PortPlan {
  portal: number;
  api: number;
  listen: number;
}

const portRange = 10;

/** Where bricks run that have an address each. */
export interface Machines {
  host(number: number): string;
  /** Runs a program there: what goes before its own command line. */
  command(number: number): readonly string[];
}

const thisMachine: Machines = { host: () => "127.0.0.1", command: () => [] };

export interface RealClusterOptions {
  bricks?: number;
  restart?: boolean;
  capacity?: string;
  /** Of each brick, when not the default. */
  memory?: string;
  volumes?: readonly string[];
  /** For its processes, besides this one's own. */
  environment?: Readonly<Record<string, string>>;
  /** Where portals listen, when not on loopback alone: initiators are then denied by default. */
  portalHost?: string;
  /** Of bricks that are started apart; absent: all here, on loopback. */
  machines?: Machines;
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
    return `${this.#machines.host(number)}:${this.#ports!.portal + number - 1}`;
  }

  api(number: number): string {
    return `${this.#machines.host(number)}:${this.#ports!.api + number - 1}`;
  }

  get #machines(): Machines {
    return this.#options.machines ?? thisMachine;
  }

  brickFolder(number: number): string {
    return join(this.data, `brick-${number}`);
  }

  url(number: number, volume = "disk0"): string {
    return `iscsi://${this.portal(number)}/${targetOf(volume)}/0`;
  }

  /** Starts `endisk up` and waits for its ready line. */
  async start(): Promise<void> {
    this.#ports ??= await freePorts();
    this.#killed = false;
    const { bricks, restart, capacity, memory, volumes } = this.#options;
    const args = ["up", "--data", this.data, "--bricks", String(bricks ?? 3)];
    const portalHost = this.#options.portalHost ?? "127.0.0.1";
    args.push("--portal", `${portalHost}:${this.#ports.portal}`, "--api", this.api(1));
    args.push("--listen", `127.0.0.1:${this.#ports.listen}`);
    args.push("--capacity", capacity ?? "4GiB");
    if (memory !== undefined) args.push("--memory", memory);
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

  /** Starts every brick by itself, as on machines of their own, and waits until all is whole. */
  async startApart(): Promise<void> {
    this.#ports ??= await freePorts();
    const { bricks, volumes } = this.#options;
    const count = bricks ?? 3;
    const init = ["init", ...this.#newBrickArgs(1)];
    const made = await runTool(endiskPath, init, { env: this.#env() });
    if (made.code !== 0) throw this.#failure(`endisk init: ${made.output}`);
    this.startAgain(1);
    await this.waitHealthy(1);
    for (let number = 2; number <= count; number += 1) {
      await this.startBrick(number);
      // One after the other, so that DIR/brick-k gets the number k.
      await this.waitHealthy(number);
    }
    for (const volume of volumes ?? ["disk0:1TiB"]) {
      const [name, size, copies] = volume.split(":");
      const args = ["--size", size!, "--copies", copies ?? String(Math.min(2, count))];
      await this.endisk("volume", "create", name!, ...args);
      // A portal that is not on loopback serves only who may use the volume.
      if (this.#options.machines) await this.endisk("volume", "allow", name!, "--no-auth");
    }
    await this.waitWhole();
  }

  #newBrickArgs(number: number): string[] {
    const listen = `${this.#machines.host(number)}:${this.#ports!.listen + number - 1}`;
    const args = ["--data", this.brickFolder(number), "--listen", listen];
    args.push("--portal", this.portal(number), "--api", this.api(number));
    args.push("--capacity", this.#options.capacity ?? "4GiB");
    return args;
  }

  #spawnBrick(number: number, args: readonly string[]): void {
    const [program, ...rest] = [...this.#machines.command(number), endiskPath, "brick", ...args];
    const brick = spawn(program!, rest, { stdio: ["ignore", "pipe", "pipe"], env: this.#env() });
    this.#keepLines(brick, () => {});
    this.#extra.push(brick);
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
  async startBrick(number: number, through = 1): Promise<void> {
    this.#spawnBrick(number, await this.#joiningArgs(number, through));
  }

  /** The same command, of a brick that is not expected to run; how it ended. */
  async startInVain(number: number, through = 1): Promise<ToolResult> {
    const args = ["brick", ...(await this.#joiningArgs(number, through))];
    return runTool(endiskPath, args, { env: this.#env() });
  }

  /** With the token of an earlier try, if there is one. */
  async #joiningArgs(number: number, through: number): Promise<string[]> {
    const tokenFile = join(this.folder, `token-${number}`);
    if (!existsSync(tokenFile)) writePrivateFile(tokenFile, await this.endisk("token"));
    const joining = ["--join", this.api(through), "--token-file", tokenFile];
    return [...this.#newBrickArgs(number), ...joining];
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

  /** Asks the cluster within this process; throws what it answers when that is a fault. */
  async ask<T>(call: (client: ApiClient) => Promise<AdminReply<T>>): Promise<T> {
    const cluster = findCluster({ data: this.data });
    const reply = await call(new ApiClient({ ...cluster, wallMs: () => Date.now() }));
    if (!reply.ok) throw new Error(`${reply.fault.code}: ${reply.fault.message}`);
    return reply.value;
  }

  /** Every shard has all its complete replicas up. */
  async waitWhole(waitMsMax = 60_000): Promise<void> {
    await this.waitFor("all shards whole", waitMsMax, async () => {
      try {
        const { shards } = await this.ask((client) => client.status());
        return shards.whole === shards.total;
      } catch {
        return false;
      }
    });
  }

  /** A brick that died, by hand, as on a machine of its own. */
  startAgain(number: number): void {
    this.#spawnBrick(number, ["--data", this.brickFolder(number)]);
  }

  #pidFile(number: number): string {
    return join(this.brickFolder(number), "brick.pid");
  }

  /** Whether its process is there, frozen or not. */
  isRunning(number: number): boolean {
    return pidFileHolder(this.#pidFile(number)) !== null;
  }

  async waitGone(number: number, waitMsMax = 60_000): Promise<void> {
    await this.waitFor(`brick ${number} gone`, waitMsMax, async () => !this.isRunning(number));
  }

  /** null while it has none. */
  pidNow(number: number): number | null {
    return readPid(this.#pidFile(number));
  }

  pid(number: number): number {
    const pid = this.pidNow(number);
    if (pid === null) throw this.#failure(`brick ${number} has no process id`);
    return pid;
  }

  signal(number: number, signal: NodeJS.Signals): void {
    process.kill(this.pid(number), signal);
  }

  /** kill -9. */
  kill(number: number): void {
    this.signal(number, "SIGKILL");
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

  /** Everything that one brick counts, in Prometheus' format. */
  async metricsText(number: number): Promise<string> {
    return (await fetch(`http://${this.api(number)}/metrics`, answerInTime())).text();
  }

  /** A metric of one brick, summed over its labels. */
  async metric(number: number, name: string): Promise<number> {
    let sum = Number.NaN;
    for (const line of (await this.metricsText(number)).split("\n")) {
      const match = /^([a-z_]+)(?:\{[^}]*\})? ([0-9.e+-]+)$/.exec(line);
      if (match?.[1] === name) sum = (Number.isNaN(sum) ? 0 : sum) + Number(match[2]);
    }
    return sum;
  }

  async isHealthy(number: number): Promise<boolean> {
    return (await this.healthStatus(number)) === 200;
  }

  /** HTTP's status of its health; null when nobody answers. */
  async healthStatus(number: number): Promise<number | null> {
    try {
      const reply = await fetch(`http://${this.api(number)}/health`, answerInTime());
      await reply.body?.cancel();
      return reply.status;
    } catch {
      return null;
    }
  }

  async waitHealthy(number: number, waitMsMax = 60_000): Promise<void> {
    const healthy = () => this.isHealthy(number);
    await this.waitFor(`brick ${number} healthy`, waitMsMax, healthy, () =>
      this.#stateOfProcess(number),
    );
  }

  /** Of its process, as the kernel sees it: "T" was stopped by somebody. */
  #stateOfProcess(number: number): string {
    try {
      const stat = readFileSync(`/proc/${this.pidNow(number)}/stat`, "latin1");
      return `its process is in state ${stat[stat.lastIndexOf(")") + 2]}`;
    } catch {
      return "it has no process";
    }
  }

  async waitFor(
    what: string,
    waitMsMax: number,
    holds: () => Promise<boolean>,
    found: () => string = () => "",
  ): Promise<void> {
    const until = performance.now() + waitMsMax;
    while (!(await holds())) {
      if (performance.now() > until) {
        throw this.#failure(`${what}: not within ${waitMsMax} ms ${found()}`);
      }
      await sleep(50);
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

/** A frozen brick accepts connections and answers nothing. */
function answerInTime(): RequestInit {
  return { signal: AbortSignal.timeout(answerMsMax) };
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
