import assert from "node:assert/strict";
import { apply } from "../../control/cluster-machine.ts";
import type { Command } from "../../control/commands.ts";
import type { ClusterState } from "../cluster-state.ts";
import type { BrickNumber } from "../units.ts";
import { FakeCluster } from "./fake-cluster.ts";
import type { VolumeOptions } from "./options.ts";
import type { Submitted } from "./units.ts";
import type { Volume } from "./volume.ts";
import { Volumes } from "./volumes.ts";

/** For tests: the volumes of every brick of a fake cluster, each with a cluster state that lags. */
export class VolumesBench {
  readonly cluster: FakeCluster;
  readonly volumes = new Map<BrickNumber, Volumes>();
  readonly states = new Map<BrickNumber, ClusterState>();
  /** How long a brick takes to learn of a state, at most. */
  readonly lagMs = new Map<BrickNumber, number>();
  readonly mapped = new Map<BrickNumber, Map<number, number>>();

  constructor(seed: number, options: Partial<VolumeOptions> = {}, volume = {}) {
    this.cluster = new FakeCluster({ seed, bricks: 4, shards: 5, volume });
    this.cluster.onState.add((state) => this.#spread(state));
    for (const { number, host, calls } of this.cluster.bricks.values()) {
      this.states.set(number, this.cluster.state);
      const brick = this.cluster.brick(number);
      const parts = {
        host,
        calls,
        self: number,
        boot: () => 1,
        state: () => this.states.get(number)!,
        submit: (command: Command) => this.#submit(number, command),
        own: brick,
        refresh: async () => true,
        leaseValid: () => brick.alive && !brick.frozen,
        mappedBytes: async (of: BrickNumber) => this.mapped.get(of) ?? null,
        options,
      };
      this.volumes.set(number, new Volumes(parts));
    }
  }

  at(brick: BrickNumber): Volume {
    const volume = this.volumes.get(brick)!.open("disk");
    assert.ok(volume !== undefined);
    return volume;
  }

  until<T>(promise: Promise<T>, limitMs?: number): Promise<T> {
    return this.cluster.time.until(promise, limitMs);
  }

  run(ms: number): Promise<void> {
    return this.cluster.time.run(ms);
  }

  holder(): BrickNumber | undefined {
    return this.cluster.state.attachments[this.cluster.volume.uuid]?.brick;
  }

  /** Takes effect at once, and is answered a little later. */
  async #submit(from: BrickNumber, command: Command): Promise<Submitted> {
    await this.#pause(2);
    if (!this.cluster.brick(from).alive) return { ok: false, fault: { code: "unavailable" } };
    const { state, result } = apply(this.cluster.state, command);
    if (state !== this.cluster.state) this.cluster.setState(state);
    await this.#pause(2);
    return result;
  }

  #spread(state: ClusterState): void {
    for (const number of this.cluster.bricks.keys()) {
      const lagMs = this.cluster.prng.unit() * (this.lagMs.get(number) ?? 10);
      this.cluster.time.after(lagMs, () => this.#learn(number, state));
    }
  }

  #learn(number: BrickNumber, state: ClusterState): void {
    const brick = this.cluster.brick(number);
    if (!brick.alive) return;
    if (brick.frozen) {
      this.cluster.time.after(20, () => this.#learn(number, state));
      return;
    }
    if (state.version <= this.states.get(number)!.version) return;
    this.states.set(number, state);
    this.volumes.get(number)!.onState(state);
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => void this.cluster.time.after(ms, resolve));
  }
}
