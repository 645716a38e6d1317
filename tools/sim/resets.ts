import type { Prng } from "../../brick/prng.ts";
import { sectorBytes } from "../../brick/units.ts";
import { VolumeTask } from "../../brick/volume/volume.ts";
import { choosePlace, type Place, patiently, pause, type Scene } from "./scene.ts";

/**
 * An initiator that writes, and before it has all answers has the unit reset through another portal:
 * once the reset is answered, nothing of what began before it lands (DESIGN.md, invariant 5).
 */
export const resetSectors = 16;
const hangMsMax = 1500;

interface Hang {
  readonly place: Place;
  readonly other: Place;
  begin(): void;
  end(): void;
}

export class Resets {
  resets = 0;
  readonly #scene: Scene;
  readonly #volumeName: string;
  readonly #firstSector: number;
  #tag = 0;

  constructor(scene: Scene, volumeName: string, firstSector: number) {
    this.#scene = scene;
    this.#volumeName = volumeName;
    this.#firstSector = firstSector;
  }

  async act(prng: Prng): Promise<void> {
    const scene = this.#scene;
    const hang = prng.chance(0.5) ? this.#planHang(prng) : null;
    const place = hang?.place ?? choosePlace(scene, prng, this.#volumeName);
    if (place === null) return;
    hang?.begin();
    const nexus = {
      initiatorPort: "iqn.2026-11.example:r,i,0x0000000000c1",
      targetPort: place.brick,
    };
    const writes = Array.from({ length: 4 }, () => {
      const task = new VolumeTask(nexus, place.volume.unit().noticeNext);
      const count = prng.between(1, resetSectors);
      const first = this.#firstSector + prng.between(0, resetSectors - count);
      this.#tag += 1;
      const bytes = Buffer.alloc(count * sectorBytes, this.#tag % 256);
      const write = place.volume.write(first * sectorBytes, [bytes], task);
      return patiently(scene, place.brick, write);
    });
    await pause(scene, prng.unit() * 30);
    const other = hang?.other ?? choosePlace(scene, prng, this.#volumeName);
    const reset = other?.volume.changeUnit({
      type: "reset",
      nexus: { ...nexus, targetPort: other.brick },
    });
    const result = reset === undefined ? null : await patiently(scene, other!.brick, reset);
    hang?.end();
    if (result?.ok && result.outcome === "done") {
      this.resets += 1;
      await this.#look(prng);
    } else if (result?.ok === false) scene.fault(result.fault);
    await Promise.all(writes);
  }

  /**
   * The writes hang between their portal and the gateway, for less time than anybody is set down in,
   * while the reset comes by a third brick. null: not with the bricks that run now.
   */
  #planHang(prng: Prng): Hang | null {
    const { cluster } = this.#scene;
    const { bricks, nodes, world } = cluster;
    const holder = cluster.volumeHolder(this.#volumeName);
    const others = bricks.filter((brick) => brick !== holder);
    if (holder === undefined || others.length < 2) return null;
    const portal = prng.pick(others);
    const asker = others.find((brick) => brick !== portal)!;
    const volume = cluster.volumeAt(portal, this.#volumeName);
    const other = cluster.volumeAt(asker, this.#volumeName);
    if (nodes.size < bricks.length || volume === undefined || other === undefined) return null;
    const clog = (clogged: boolean) => world.network.set(portal, holder, { clogged });
    return {
      place: { brick: portal, volume },
      other: { brick: asker, volume: other },
      begin: () => {
        clog(true);
        world.after(hangMsMax, () => clog(false));
      },
      end: () => clog(false),
    };
  }

  /** Nothing of it changes any more. */
  async #look(prng: Prng): Promise<void> {
    const before = await this.#read(prng);
    await pause(this.#scene, prng.unit() * 3000);
    const after = await this.#read(prng);
    if (before === null || after === null || before.equals(after)) return;
    this.#scene.violation("a write landed after the reset that ended it was answered");
  }

  async #read(prng: Prng): Promise<Buffer | null> {
    const place = choosePlace(this.#scene, prng, this.#volumeName);
    if (place === null) return null;
    const offsetBytes = this.#firstSector * sectorBytes;
    const read = place.volume.read(offsetBytes, resetSectors * sectorBytes);
    const found = await patiently(this.#scene, place.brick, read);
    return found?.ok ? Buffer.concat(found.buffers) : null;
  }
}
