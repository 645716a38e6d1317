import type { Prng } from "../../brick/prng.ts";
import { sectorBytes } from "../../brick/units.ts";
import type { Volume } from "../../brick/volume/volume.ts";
import { choosePlace, patiently, type Scene } from "./scene.ts";

/**
 * Sectors that initiators count up by COMPARE AND WRITE through whatever portal they are at, as
 * VMFS takes its locks (ATS), and a sector in which they set bits by ORWRITE.
 *
 * Every attempt writes an id of its own over the id that it has read. So the last id tells the
 * whole history: from attempt to attempt, each names the one before it.
 */
export const counterSectors = 3;
const idBytes = 6;

interface Attempt {
  readonly id: number;
  readonly counter: number;
  /** The id that was there when it was read. */
  readonly previous: number;
  readonly start: number;
  end: number;
  outcome: "written" | "miscompare" | "refused" | "unknown";
}

export interface CounterCounts {
  written: number;
  miscompares: number;
  bits: number;
}

export class Counters {
  readonly counts: CounterCounts = { written: 0, miscompares: 0, bits: 0 };
  readonly #scene: Scene;
  readonly #volumeName: string;
  readonly #firstSector: number;
  readonly #attempts = new Map<number, Attempt>();
  /** Bits that were set for certain, and when that was known. */
  readonly #bits = new Map<number, number>();
  #bitNext = 0;
  #tick = 0;

  /** It has the sectors from `firstSector` on for itself: `counterSectors`, and one for the bits. */
  constructor(scene: Scene, volumeName: string, firstSector: number) {
    this.#scene = scene;
    this.#volumeName = volumeName;
    this.#firstSector = firstSector;
  }

  async act(prng: Prng): Promise<void> {
    if (prng.chance(0.25)) {
      await this.#setBit(prng);
      return;
    }
    // A storm: several at once, each at a portal of its choice.
    const counter = prng.between(0, counterSectors - 1);
    const many = Array.from({ length: prng.between(1, 5) }, () => this.#countUp(prng, counter));
    await Promise.all(many);
  }

  async #countUp(prng: Prng, counter: number): Promise<void> {
    const offsetBytes = (this.#firstSector + counter) * sectorBytes;
    const place = choosePlace(this.#scene, prng, this.#volumeName);
    if (place === null) return;
    const read = place.volume.read(offsetBytes, sectorBytes);
    const found = await patiently(this.#scene, place.brick, read);
    if (found === null || !found.ok) return;
    const old = Buffer.concat(found.buffers);
    const id = this.#attempts.size + 1;
    const attempt: Attempt = {
      id,
      counter,
      previous: this.#idOf(old),
      start: (this.#tick += 1),
      end: Number.POSITIVE_INFINITY,
      outcome: "unknown",
    };
    this.#attempts.set(id, attempt);
    // Perhaps by another portal than it was read through.
    const there = choosePlace(this.#scene, prng, this.#volumeName) ?? place;
    const swap = there.volume.compareAndWrite(offsetBytes, [old], [sectorOf(id)]);
    const result = await patiently(this.#scene, there.brick, swap);
    if (result === null) return;
    attempt.end = this.#tick += 1;
    if (result.ok) {
      attempt.outcome = "written";
      this.counts.written += 1;
    } else if (result.fault.code === "miscompare") {
      attempt.outcome = "miscompare";
      this.counts.miscompares += 1;
    } else {
      this.#scene.fault(result.fault);
      if (result.fault.code !== "unavailable") attempt.outcome = "refused";
    }
  }

  async #setBit(prng: Prng): Promise<void> {
    const place = choosePlace(this.#scene, prng, this.#volumeName);
    if (place === null || this.#bitNext >= sectorBytes * 8) return;
    const bit = this.#bitNext;
    this.#bitNext += 1;
    const bytes = Buffer.alloc(sectorBytes);
    bytes[bit >> 3] = 1 << (bit & 7);
    const done = place.volume.orWrite(this.#bitsOffset, [bytes]);
    const result = await patiently(this.#scene, place.brick, done);
    if (result?.ok) {
      this.counts.bits += 1;
      this.#bits.set(bit, (this.#tick += 1));
    } else if (result !== null) this.#scene.fault(result.fault);
    await this.#lookAtBits(prng);
  }

  async #lookAtBits(prng: Prng): Promise<void> {
    const place = choosePlace(this.#scene, prng, this.#volumeName);
    if (place === null) return;
    const start = this.#tick;
    const read = place.volume.read(this.#bitsOffset, sectorBytes);
    const found = await patiently(this.#scene, place.brick, read);
    if (found?.ok) this.#checkBits(Buffer.concat(found.buffers), start);
  }

  get #bitsOffset(): number {
    return (this.#firstSector + counterSectors) * sectorBytes;
  }

  /** What was set by `start` is there, and nothing that nobody set. */
  #checkBits(bytes: Buffer, start: number): void {
    for (let bit = 0; bit < sectorBytes * 8; bit += 1) {
      const isSet = (bytes[bit >> 3]! & (1 << (bit & 7))) !== 0;
      const sinceTick = this.#bits.get(bit);
      if (isSet && bit >= this.#bitNext) this.#scene.violation(`bit ${bit}: nobody set it`);
      if (!isSet && sinceTick !== undefined && sinceTick <= start) {
        this.#scene.violation(`bit ${bit}: it was set, and is not`);
      }
      // Once seen it stays.
      if (isSet && sinceTick === undefined) this.#bits.set(bit, (this.#tick += 1));
    }
  }

  /** At the end, when nothing is under way. */
  async checkAll(volume: Volume): Promise<void> {
    const lengthBytes = (counterSectors + 1) * sectorBytes;
    const found = await volume.read(this.#firstSector * sectorBytes, lengthBytes);
    if (!found.ok) {
      this.#scene.violation("the counters cannot be read at the end");
      return;
    }
    const bytes = Buffer.concat(found.buffers);
    this.#checkBits(bytes.subarray(counterSectors * sectorBytes), this.#tick);
    for (let counter = 0; counter < counterSectors; counter += 1) {
      const sector = bytes.subarray(counter * sectorBytes, (counter + 1) * sectorBytes);
      const wrong = this.#checkCounter(counter, this.#idOf(sector));
      if (wrong !== null) this.#scene.violation(`counter ${counter}: ${wrong}`);
    }
  }

  #checkCounter(counter: number, last: number): string | null {
    /** By the id that it was written over. */
    const successors = new Map<number, Attempt>();
    for (let id = last; id !== 0; ) {
      const attempt = this.#attempts.get(id);
      if (attempt === undefined || attempt.counter !== counter) return `${id} was never written`;
      if (successors.has(attempt.previous)) return `two were written over ${attempt.previous}`;
      successors.set(attempt.previous, attempt);
      id = attempt.previous;
    }
    const landed = new Set([...successors.values()]);
    for (const attempt of this.#attempts.values()) {
      if (attempt.counter !== counter) continue;
      const { id, previous, outcome, end } = attempt;
      if (previous !== 0 && !landed.has(this.#attempts.get(previous)!)) {
        return `${previous} was read, and is not in the history`;
      }
      if (outcome === "written" && !landed.has(attempt)) return `the update ${id} was lost`;
      if ((outcome === "miscompare" || outcome === "refused") && landed.has(attempt)) {
        return `${id} landed, although it was told "${outcome}"`;
      }
      if (outcome !== "miscompare") continue;
      const successor = successors.get(previous);
      if (successor === undefined || successor.start > end) return `a false miscompare of ${id}`;
    }
    return null;
  }

  #idOf(sector: Buffer): number {
    const id = sector.readUIntBE(0, idBytes);
    if (!sectorOf(id).equals(sector)) this.#scene.violation("a counter's sector is a mixture");
    return id;
  }
}

function sectorOf(id: number): Buffer {
  const sector = Buffer.alloc(sectorBytes);
  if (id === 0) return sector;
  for (let at = 0; at + idBytes <= sectorBytes; at += idBytes) sector.writeUIntBE(id, at, idBytes);
  return sector;
}
