import { brickOf, isReachable } from "../../brick/cluster-state.ts";
import type { Prng } from "../../brick/prng.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { sectorBytes } from "../../brick/units.ts";
import { choosePlace, patiently, pause, type Scene } from "./scene.ts";

/**
 * An initiator with two paths. What it writes through one portal hangs in the network; the portal is
 * set down; it writes again through another one, and goes on. When the network lets go of the old
 * command, it must not land on top of the new one.
 */
const downWithinMs = 10_000;
/** A gateway knows of a state when this has passed: else its own lease has ended. */
const knownAfterMs = 2_500;
const hangShare = 0.15;

export class Failover {
  failovers = 0;
  readonly #scene: Scene;
  readonly #volumeName: string;
  readonly #sector: number;
  #tag = 0;
  /** What the sector holds; null when that is not certain. */
  #expected: number | null = 0;

  constructor(scene: Scene, volumeName: string, sector: number) {
    this.#scene = scene;
    this.#volumeName = volumeName;
    this.#sector = sector;
  }

  async act(prng: Prng): Promise<void> {
    await this.#look(prng);
    const { cluster } = this.#scene;
    const allRun = cluster.nodes.size === cluster.bricks.length && cluster.bricks.length > 2;
    if (!prng.chance(hangShare) || !allRun) return;
    const holder = cluster.volumeHolder(this.#volumeName);
    const portal = prng.pick(cluster.bricks.filter((brick) => brick !== holder));
    const volume = cluster.volumeAt(portal, this.#volumeName);
    if (holder === undefined || volume === undefined) return;
    // Of a command that begins at a portal which is down already nothing is promised.
    if (this.#isDown(portal)) return;
    this.#clog(portal, true);
    this.#expected = null;
    volume.write(this.#offset, [this.#next()]);
    const down = await this.#isSetDown(portal);
    if (down) {
      await pause(this.#scene, knownAfterMs);
      await this.#writeElsewhere(prng, portal);
    }
    this.#clog(portal, false);
    await pause(this.#scene, 1000);
    await this.#look(prng);
  }

  async #writeElsewhere(prng: Prng, hanging: BrickNumber): Promise<void> {
    const place = choosePlace(this.#scene, prng, this.#volumeName);
    if (place === null || place.brick === hanging) return;
    const write = place.volume.write(this.#offset, [this.#next()]);
    const tag = this.#tag;
    const result = await patiently(this.#scene, place.brick, write);
    if (!result?.ok) return;
    this.failovers += 1;
    this.#expected = tag;
  }

  async #look(prng: Prng): Promise<void> {
    const place = choosePlace(this.#scene, prng, this.#volumeName);
    if (place === null) return;
    const found = await patiently(
      this.#scene,
      place.brick,
      place.volume.read(this.#offset, sectorBytes),
    );
    if (!found?.ok) return;
    const tag = Buffer.concat(found.buffers).readUInt32BE(0);
    if (this.#expected === null || tag === this.#expected) return;
    const what = `write ${tag} landed on top of ${this.#expected}`;
    this.#scene.violation(`${what}, which its initiator made after it had given it up`);
  }

  async #isSetDown(brick: BrickNumber): Promise<boolean> {
    const { cluster } = this.#scene;
    const untilMs = cluster.world.clock.nowMs + downWithinMs;
    while (cluster.world.clock.nowMs < untilMs) {
      if (this.#isDown(brick)) return true;
      await pause(this.#scene, 100);
    }
    return false;
  }

  #isDown(brick: BrickNumber): boolean {
    const state = this.#scene.cluster.anyNode()?.control.state();
    return state !== undefined && !isReachable(brickOf(state, brick));
  }

  /** What the brick sends to others waits, and arrives later. */
  #clog(brick: BrickNumber, clogged: boolean): void {
    const { world, bricks } = this.#scene.cluster;
    for (const other of bricks) if (other !== brick) world.network.set(brick, other, { clogged });
  }

  get #offset(): number {
    return this.#sector * sectorBytes;
  }

  #next(): Buffer {
    this.#tag += 1;
    const bytes = Buffer.alloc(sectorBytes);
    bytes.writeUInt32BE(this.#tag);
    return bytes;
  }
}
