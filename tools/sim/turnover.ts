import { brickOf, type ClusterState, isReachable } from "../../brick/cluster-state.ts";
import type { Prng } from "../../brick/prng.ts";
import { type BrickNumber, MiB, sectorBytes } from "../../brick/units.ts";
import type { Command } from "../../control/commands.ts";
import { shortOfCopies } from "./copies.ts";
import type { FaultAtlas } from "./fault-atlas.ts";
import { type FaultDials, never } from "./fault-dials.ts";
import { patiently, pause, rest, type Scene, sitOutCalm } from "./scene.ts";

const askAgainMs = 500;
/** Whether all is in order is looked at this often. */
const orderMs = 1_000;
const growBytesMax = 16;

export interface TurnoverCounts {
  lost: number;
  drained: number;
  joined: number;
  grown: number;
}

/**
 * What an operator does to a cluster that is in use: gives up a brick that does not come back,
 * empties one and takes it away, adds one, makes a volume larger. One thing at a time, begun only
 * while everything has all its copies: a second loss before that is more than is promised.
 */
export class Turnover {
  readonly counts: TurnoverCounts = { lost: 0, drained: 0, joined: 0, grown: 0 };
  readonly #scene: Scene;
  readonly #dials: FaultDials;
  readonly #atlas: FaultAtlas;
  readonly #volumeName: string;
  /** A brick is given up, emptied or new. */
  isUnderWay = false;
  /** As it was made, or was confirmed to have become. */
  #sizeBytes: number;

  constructor(scene: Scene, dials: FaultDials, atlas: FaultAtlas, volumeName: string) {
    this.#scene = scene;
    this.#dials = dials;
    this.#atlas = atlas;
    this.#volumeName = volumeName;
    this.#sizeBytes = scene.cluster.options.volumeBytes;
  }

  /** Both end when the run's faults have, and what they began has come to its end. */
  run(prng: Prng): Promise<void>[] {
    const { turnoverEveryMs, growEveryMs } = this.#dials;
    const growth = prng.fork();
    return [
      this.#repeat(prng, turnoverEveryMs, () => this.#change(prng)),
      this.#repeat(growth, growEveryMs, () => this.#grow(growth)),
    ];
  }

  /** Whatever was confirmed holds at the end. */
  check(): string | null {
    const state = this.#state;
    for (const brick of this.#scene.cluster.gone.keys()) {
      const status = brickOf(state, brick)?.status;
      if (status !== "removed" && status !== "failed") return `brick ${brick} is ${status}`;
    }
    for (const brick of this.#scene.cluster.bricks) {
      const volume = this.#scene.cluster.volumeAt(brick, this.#volumeName);
      const { sizeBytes = 0 } = volume?.info ?? {};
      if (sizeBytes < this.#sizeBytes) return `brick ${brick} offers ${sizeBytes} bytes`;
    }
    return null;
  }

  async #repeat(prng: Prng, everyMs: number, act: () => Promise<void>): Promise<void> {
    if (everyMs === never) return;
    while (this.#scene.working()) {
      await rest(this.#scene, everyMs * (0.2 + 1.6 * prng.unit()));
      await sitOutCalm(this.#scene);
      if (this.#scene.working()) await act();
    }
  }

  async #change(prng: Prng): Promise<void> {
    const { cluster } = this.#scene;
    while (!cluster.isWhole() || shortOfCopies(cluster) !== null) {
      await pause(this.#scene, orderMs);
      if (!this.#scene.working()) return;
    }
    const shape = prng.unit();
    const bricks = cluster.bricks.length;
    this.isUnderWay = true;
    const mayLeave = bricks > Math.max(2, cluster.options.copies);
    if (mayLeave && shape < 0.35) await this.#lose(prng);
    else if (mayLeave && shape < 0.6) await this.#drain(prng);
    else if (bricks < bricksMax) await this.#join();
    this.isUnderWay = false;
  }

  async #lose(prng: Prng): Promise<void> {
    const brick = this.#atlas.mayLose(prng);
    if (brick !== null) await this.giveUp(prng, brick);
  }

  /** It never comes back. */
  async giveUp(prng: Prng, brick: BrickNumber): Promise<void> {
    const { cluster } = this.#scene;
    this.counts.lost += 1;
    cluster.dismiss(brick);
    await this.#until((state) => !isReachable(brickOf(state, brick)));
    await this.#bringAbout({ type: "brickFailed", number: brick }, (state) =>
      hasStatus(state, brick, "failed", "removed"),
    );
    if (prng.chance(0.5)) await this.#join();
    const remove: Command = { type: "removeBrick", number: brick, emptied: false, force: true };
    await this.#bringAbout(remove, (state) => hasStatus(state, brick, "removed"));
  }

  async #drain(prng: Prng): Promise<void> {
    const { cluster } = this.#scene;
    const brick = this.#atlas.mayLose(prng);
    if (brick === null) return;
    const drain: Command = { type: "drainBrick", number: brick, drain: true };
    await this.#bringAbout(drain, (state) => hasStatus(state, brick, "draining"));
    await this.#until(() => this.#isEmptied());
    const remove: Command = { type: "removeBrick", number: brick, emptied: true, force: false };
    await this.#bringAbout(
      remove,
      (state) => hasStatus(state, brick, "removed"),
      () => this.#isEmptied(),
    );
    this.counts.drained += 1;
    cluster.dismiss(brick);
  }

  async #join(): Promise<void> {
    const { cluster } = this.#scene;
    const { brick, token, join } = cluster.joining();
    const id = token.type === "addJoinToken" ? token.id : "";
    await this.#bringAbout(token, (state) => state.joinTokens[id] !== undefined);
    await this.#bringAbout(join, (state) => brickOf(state, brick) !== undefined);
    this.counts.joined += 1;
    cluster.admit(brick);
  }

  async #grow(prng: Prng): Promise<void> {
    const name = this.#volumeName;
    const sizeBytes = this.#sizeBytes + prng.between(1, growBytesMax) * MiB;
    const command: Command = { type: "resizeVolume", name, sizeBytes, shrink: false };
    await this.#bringAbout(command, (state) => state.volumes[name]?.sizeBytes === sizeBytes);
    this.#sizeBytes = sizeBytes;
    this.counts.grown += 1;
    // What was added reads as zeros, through whatever portal, as soon as that knows of it.
    for (const brick of this.#scene.cluster.bricks) {
      const volume = this.#scene.cluster.volumeAt(brick, name);
      if (volume === undefined || volume.info.sizeBytes < sizeBytes) continue;
      const read = volume.read(sizeBytes - sectorBytes, sectorBytes);
      const found = await patiently(this.#scene, brick, read);
      if (found?.ok && Buffer.concat(found.buffers).some((byte) => byte !== 0)) {
        this.#scene.violation("what was added to a volume is not zeros");
      }
    }
  }

  /** As `endisk brick remove` asks it: all shards are led, and need nothing of bricks that leave. */
  #isEmptied(): boolean {
    const { nodes } = this.#scene.cluster;
    const { version, shards } = this.#state;
    const running = [...nodes.values()];
    if (running.some(({ control }) => control.state().version < version)) return false;
    return (
      shards.every(({ primary }) => nodes.has(primary)) &&
      running.every(({ repair }) => repair.pendingShards().length === 0)
    );
  }

  get #state(): ClusterState {
    return this.#scene.cluster.anyNode()!.control.state();
  }

  async #until(holds: (state: ClusterState) => boolean): Promise<void> {
    const { cluster } = this.#scene;
    while (cluster.anyNode() === undefined || !holds(this.#state)) {
      await pause(this.#scene, askAgainMs);
    }
  }

  /** Asks whoever runs until the newest state says that it is so. */
  async #bringAbout(
    command: Command,
    isDone: (state: ClusterState) => boolean,
    mayAsk: () => boolean = () => true,
  ): Promise<void> {
    const { cluster } = this.#scene;
    for (;;) {
      const node = cluster.anyNode();
      if (node !== undefined) {
        if (isDone(node.control.state())) return;
        if (mayAsk()) await patiently(this.#scene, node.number, node.control.submit(command));
      }
      await pause(this.#scene, askAgainMs);
    }
  }
}

const bricksMax = 9;

function hasStatus(state: ClusterState, number: BrickNumber, ...statuses: string[]): boolean {
  const status = brickOf(state, number)?.status;
  return status !== undefined && statuses.includes(status);
}
