import type { ClusterState } from "../../brick/cluster-state.ts";
import { Prng } from "../../brick/prng.ts";
import { type BrickNumber, MiB } from "../../brick/units.ts";
import type { AdminBackend, AdminReply } from "../../control/api.ts";
import { NodeBackend } from "../admin-backend.ts";
import { isHealthy } from "../health/problems.ts";
import { patiently } from "./scene.ts";
import { BrickStopped } from "./sim-clock.ts";
import { SimCluster, type SimClusterOptions, volumeName } from "./sim-cluster.ts";
import { VerbLoad } from "./verb-load.ts";
import { copiesAmiss, disorder } from "./verb-order.ts";

/** All has come to its end within this, whatever was cut; a key that no volume took is kept for 60 s. */
export const settleMsMax = 180_000;
const lookEveryMs = 100;
const calmMs = 1_000;
/** The operator asks again while it is told that nobody can answer. */
const asksMax = 6;
const askAgainMs = 1_000;

/** null: no answer, for the brick that was asked went down, or nobody led for long. */
export type Told = AdminReply<unknown> | null;

export type Ask = (backend: AdminBackend) => Promise<AdminReply<unknown>>;

/** A small cluster in use, and its operator, who asks one brick that is not the most important one. */
export class VerbScene {
  readonly cluster: SimCluster;
  readonly load: VerbLoad;
  readonly #prng: Prng;
  leader: BrickNumber = 0;
  /** Serves the volume. */
  gateway: BrickNumber = 0;
  /** Whom the operator asks. */
  asked: BrickNumber = 0;
  /** What the verb is about, if it is about a brick. */
  subject: BrickNumber = 0;

  private constructor(options: SimClusterOptions) {
    this.cluster = new SimCluster(options);
    this.load = new VerbLoad(this.cluster);
    this.#prng = new Prng(options.seed + 0.375 * 2 ** 32);
  }

  static async begin(seed: number, options: Partial<SimClusterOptions> = {}): Promise<VerbScene> {
    const sizes = { seed, bricks: 3, shardCount: 4, volumeBytes: 128 * MiB, copies: 2 };
    // Nobody waits long before who stands in for a lost brick is sent the map.
    const timing = { transferAfterMs: 3_000 };
    const scene = new VerbScene({ ...sizes, timing, ...options });
    const { cluster } = scene;
    await cluster.create();
    await scene.until(() => scene.#raftLeader() !== 0);
    scene.leader = scene.#raftLeader();
    scene.gateway = scene.otherThan(scene.leader);
    scene.asked = scene.otherThan(scene.leader, scene.gateway);
    await scene.load.fill(scene.gateway, volumeName);
    await scene.calm();
    return scene;
  }

  get state(): ClusterState {
    return this.cluster.anyNode()!.control.state();
  }

  otherThan(...bricks: readonly BrickNumber[]): BrickNumber {
    return this.cluster.bricks.find((brick) => !bricks.includes(brick))!;
  }

  #raftLeader(): BrickNumber {
    for (const [brick, { control }] of this.cluster.nodes) {
      if (control.leader() === brick) return brick;
    }
    return 0;
  }

  until(holds: () => boolean, limitMs = 60_000): Promise<void> {
    return this.cluster.world.runUntil(holds, limitMs);
  }

  /** Until all is in order, and the planners have nothing left that they would do. */
  async calm(): Promise<void> {
    for (let before = -1; ; ) {
      const found = await this.settled();
      if (found !== null) throw new Error(`not calm before the verb: ${found}`);
      const views = this.state.shards.reduce((sum, { view }) => sum + view, 0);
      if (views === before) break;
      before = views;
      await this.cluster.world.runFor(calmMs);
    }
    this.leader = this.#raftLeader();
  }

  /** What is not in order after reasonable time; null: all is. */
  async settled(): Promise<string | null> {
    const { clock } = this.cluster.world;
    const endMs = clock.nowMs + settleMsMax;
    for (;;) {
      let found = disorder(this.cluster);
      if (found === null) {
        this.#takeAway();
        found = copiesAmiss(this.cluster);
      }
      if (found === null || clock.nowMs >= endMs) return found;
      await this.cluster.world.runFor(lookEveryMs);
    }
  }

  /** Machines of bricks that were removed are switched off. */
  #takeAway(): void {
    for (const brick of this.cluster.bricks) {
      if (this.state.bricks[brick]?.status === "removed") this.cluster.dismiss(brick);
    }
  }

  /** What `endisk status` calls wrong; null: nothing. */
  async problems(): Promise<string | null> {
    const { clock } = this.cluster.world;
    const endMs = clock.nowMs + settleMsMax;
    for (;;) {
      const told = await this.#answerTo(this.asking((backend) => backend.status()));
      const wrong = told?.ok === true ? told.value.problems : null;
      if (wrong !== null && isHealthy(wrong)) return null;
      if (clock.nowMs >= endMs) return `status says ${JSON.stringify(wrong)}`;
      await this.cluster.world.runFor(askAgainMs);
    }
  }

  /** Asks the operator's brick once. */
  asking<T>(ask: (backend: AdminBackend) => Promise<AdminReply<T>>): Promise<AdminReply<T> | null> {
    const node = this.cluster.nodes.get(this.asked);
    if (node === undefined) return Promise.resolve(null);
    const random = (bytes: number) => this.#prng.fill(Buffer.alloc(bytes));
    const answered = ask(new NodeBackend(node, random)).catch((error: unknown) => {
      if (error instanceof BrickStopped) return null;
      throw error;
    });
    return patiently(this, this.asked, answered);
  }

  /** Asks until somebody can answer. */
  async ask(ask: Ask): Promise<Told> {
    let told: Told = null;
    for (let asks = 0; asks < asksMax; asks += 1) {
      told = await this.#answerTo(this.asking(ask));
      if (told !== null && (told.ok || told.fault.code !== "unavailable")) return told;
      await this.cluster.world.runFor(askAgainMs);
    }
    return told;
  }

  /** Asks, and it is done. */
  async order(ask: Ask): Promise<void> {
    const told = await this.ask(ask);
    if (told?.ok !== true) throw new Error(`before the verb: ${JSON.stringify(told)}`);
  }

  #answerTo<T>(asked: Promise<T>): Promise<T> {
    return this.cluster.world.complete(asked, 2 * settleMsMax);
  }
}
