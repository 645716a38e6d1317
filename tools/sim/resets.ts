import type { Prng } from "../../brick/prng.ts";
import { sectorBytes } from "../../brick/units.ts";
import { VolumeTask } from "../../brick/volume/volume.ts";
import { choosePlace, patiently, pause, type Scene } from "./scene.ts";

/**
 * An initiator that writes, and before it has all answers has the unit reset through another portal:
 * once the reset is answered, nothing of what began before it lands (DESIGN.md, invariant 5).
 */
export const resetSectors = 16;

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
    const place = choosePlace(scene, prng, this.#volumeName);
    if (place === null) return;
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
    const other = choosePlace(scene, prng, this.#volumeName);
    const reset = other?.volume.changeUnit({
      type: "reset",
      nexus: { ...nexus, targetPort: other.brick },
    });
    const result = reset === undefined ? null : await patiently(scene, other!.brick, reset);
    if (result?.ok && result.outcome === "done") {
      this.resets += 1;
      await this.#look(prng);
    } else if (result?.ok === false) scene.fault(result.fault);
    await Promise.all(writes);
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
