import { assert } from "../../brick/assert.ts";
import { type Disk, DiskError, type Host, type Network } from "../../brick/host.ts";
import { Prng } from "../../brick/prng.ts";
import type { BrickNumber } from "../../brick/units.ts";
import {
  BrickStopped,
  type EventOwner,
  eventKind,
  SimClock,
  SimMachineClock,
} from "./sim-clock.ts";
import { SimDiskStore } from "./sim-disk.ts";
import { SimNetwork } from "./sim-network.ts";

/** Why a boot ended. */
export interface CrashRecord {
  brick: BrickNumber;
  boot: number;
  atMs: number;
  /** "power" when the simulator did it, "self" for host.crash, "error" for what nobody caught. */
  cause: "power" | "self" | "error";
  reason: unknown;
}

export interface SimHost extends Host {
  /** The boot number that its messages carry; a brick sets it once it has read its superblock. */
  readonly network: Network & { setBoot(boot: number): void };
}

/** One life of a brick's process. */
class SimBoot implements EventOwner {
  readonly brick: BrickNumber;
  readonly number: number;
  alive = true;
  frozenUntilMs = 0;
  readonly #machine: SimMachine;

  constructor(machine: SimMachine, number: number) {
    this.#machine = machine;
    this.brick = machine.brick;
    this.number = number;
  }

  failed(error: unknown): void {
    if (error instanceof BrickStopped) return;
    this.#machine.end(this, "error", error);
  }
}

/** One machine: its disk and clocks stay while boots come and go. */
export class SimMachine {
  readonly brick: BrickNumber;
  readonly disk: SimDiskStore;
  readonly clock: SimMachineClock;
  readonly #world: SimWorld;
  readonly #prng: Prng;
  #boot: SimBoot | null = null;
  #bootCount = 0;

  constructor(world: SimWorld, brick: BrickNumber, prng: Prng) {
    this.#world = world;
    this.brick = brick;
    this.#prng = prng;
    this.disk = new SimDiskStore(prng.fork());
    this.clock = new SimMachineClock(world.clock, prng.between(0, 1_000_000));
  }

  get running(): boolean {
    return this.#boot !== null;
  }

  get isFrozen(): boolean {
    return this.#boot !== null && this.#boot.frozenUntilMs > this.#world.clock.nowMs;
  }

  get bootCount(): number {
    return this.#bootCount;
  }

  /** The host of a new boot. The machine must not be running. */
  start(): SimHost {
    assert(this.#boot === null, `brick ${this.brick} is running already`);
    const boot = new SimBoot(this, (this.#bootCount += 1));
    this.#boot = boot;
    const { clock, network } = this.#world;
    clock.trace.add((eventKind.boot << 24) | this.brick);
    const guard = (change?: string) => {
      if (change !== undefined && boot.alive) this.#world.onChange?.(this.brick, change);
      if (!boot.alive) throw new BrickStopped(`brick ${this.brick} has stopped`);
    };
    const disk: Disk = this.disk.mount(clock, boot, guard);
    return {
      clock: this.clock.of(boot),
      disk,
      network: network.plug(boot, boot.number),
      prng: this.#prng.fork(),
      log: (line) => {
        if (boot.alive) this.#world.onLog?.(this.brick, line);
      },
      crash: (reason) => {
        if (boot.alive) this.end(boot, "self", reason);
        throw new BrickStopped(`brick ${this.brick} stopped itself`);
      },
    };
  }

  /** Power cut: nothing of this boot happens any more, and the disk keeps what it must. */
  crash(): void {
    if (this.#boot !== null) this.end(this.#boot, "power", "power cut");
  }

  /** Kills the process only: the kernel keeps and later writes what the process had written. */
  kill(): void {
    if (this.#boot !== null) this.end(this.#boot, "power", "killed", { keepsCache: true });
  }

  /** Nothing runs on this machine for a while, and all of it runs late afterwards. */
  freeze(durationMs: number): void {
    if (this.#boot !== null) this.#boot.frozenUntilMs = this.#world.clock.nowMs + durationMs;
  }

  end(
    boot: SimBoot,
    cause: CrashRecord["cause"],
    reason: unknown,
    options?: { keepsCache: boolean },
  ): void {
    if (!boot.alive) return;
    boot.alive = false;
    this.#boot = null;
    const { clock } = this.#world;
    clock.trace.add((eventKind.crash << 24) | this.brick);
    if (options?.keepsCache) this.disk.kill();
    else this.disk.crash();
    this.#world.crashed({ brick: this.brick, boot: boot.number, atMs: clock.nowMs, cause, reason });
  }
}

/** A world of machines, one seed, one timeline. */
export class SimWorld {
  readonly clock = new SimClock();
  readonly prng: Prng;
  readonly network: SimNetwork;
  readonly crashes: CrashRecord[] = [];
  /** Where the bricks' log lines go; nowhere unless set. */
  onLog: ((brick: BrickNumber, line: string) => void) | null = null;
  /** Told right before a brick changes anything on its medium; it may end the boot then. */
  onChange: ((brick: BrickNumber, change: string) => void) | null = null;
  /** Told of every end of a boot. */
  onCrash: ((record: CrashRecord) => void) | null = null;
  /**
   * Whether this end of a boot is a bug, which ends the run. Unless replaced, every one is that
   * neither the simulator nor a failing disk has caused.
   */
  isBug: (record: CrashRecord) => boolean = ({ cause, reason }) =>
    cause !== "power" && !(reason instanceof DiskError);
  readonly #machines = new Map<BrickNumber, SimMachine>();
  readonly #machinePrng: Prng;

  constructor(seed: number) {
    this.prng = new Prng(seed);
    this.#machinePrng = this.prng.fork();
    this.network = new SimNetwork(this.clock, this.prng.fork());
  }

  get traceHash(): string {
    return this.clock.trace.toString();
  }

  get machines(): readonly SimMachine[] {
    return [...this.#machines.values()];
  }

  machine(brick: BrickNumber): SimMachine {
    let machine = this.#machines.get(brick);
    if (machine === undefined) {
      machine = new SimMachine(this, brick, this.#machinePrng.fork());
      this.#machines.set(brick, machine);
    }
    return machine;
  }

  /** The host of a new boot of this brick. */
  host(brick: BrickNumber): SimHost {
    return this.machine(brick).start();
  }

  /** The whole cluster loses power at once. */
  crashAll(): void {
    for (const machine of this.machines) machine.crash();
  }

  /** Runs until `until` holds; fails when it does not within `limitMs` of virtual time. */
  async runUntil(until: () => boolean, limitMs = 60_000): Promise<void> {
    const end = await this.clock.run({ until, untilMs: this.clock.nowMs + limitMs });
    if (end !== "until") throw new Error(`not within ${limitMs} virtual ms (${end})`);
  }

  async runFor(durationMs: number): Promise<void> {
    await this.clock.run({ untilMs: this.clock.nowMs + durationMs });
  }

  /** Runs until the promise has settled, and gives its result. */
  async complete<T>(promise: Promise<T>, limitMs = 60_000): Promise<T> {
    let settled = false;
    const mark = () => {
      settled = true;
    };
    promise.then(mark, mark);
    await this.runUntil(() => settled, limitMs);
    return promise;
  }

  /** The world's own events (faults, workloads); they survive every crash. */
  after(delayMs: number, action: () => void): void {
    this.clock.schedule(delayMs, null, eventKind.control, 0, action);
  }

  crashed(record: CrashRecord): void {
    this.crashes.push(record);
    this.onCrash?.(record);
    if (this.isBug(record)) this.clock.failure ??= { error: record.reason };
  }
}
