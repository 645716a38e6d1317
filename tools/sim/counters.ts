import { grainsPerShardRun } from "../../brick/cluster-state.ts";
import type { Prng } from "../../brick/prng.ts";
import { sectorBytes, sectorsPerGrain } from "../../brick/units.ts";
import type { Volume } from "../../brick/volume/volume.ts";
import { choosePlace, patiently, type Scene } from "./scene.ts";

/**
 * Ranges that initiators count up by COMPARE AND WRITE through whatever portal they are at, as
 * VMFS takes its locks (ATS), and a sector in which they set bits by ORWRITE. A range holds one id in
 * all its sectors: who ever reads two has seen half of a command.
 *
 * Every attempt writes an id of its own over the id that it has read. So the last id tells the
 * whole history: from attempt to attempt, each names the one before it.
 */
const idBytes = 6;
const runSectors = grainsPerShardRun * sectorsPerGrain;
/** From the first sector of the counters' own on. */
const bitsAt = 3;

interface Place {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** Two single sectors, one range over some grains of a shard, and one over the end of its run. */
function placesOf(firstSector: number): readonly Place[] {
  const place = (first: number, sectors: number) => {
    return { offsetBytes: first * sectorBytes, lengthBytes: sectors * sectorBytes };
  };
  return [
    place(firstSector, 1),
    place(firstSector + 1, 1),
    place(firstSector + 100, 300),
    place(runSectors - 60, 160),
  ];
}

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
  readonly #places: readonly Place[];
  readonly #bitsOffset: number;
  readonly #attempts = new Map<number, Attempt>();
  /** Bits that were set for certain, and when that was known. */
  readonly #bits = new Map<number, number>();
  #bitNext = 0;
  #tick = 0;

  /** It has 400 sectors from `firstSector` on for itself, and those about the end of the first run. */
  constructor(scene: Scene, volumeName: string, firstSector: number) {
    this.#scene = scene;
    this.#volumeName = volumeName;
    this.#places = placesOf(firstSector);
    this.#bitsOffset = (firstSector + bitsAt) * sectorBytes;
  }

  async act(prng: Prng): Promise<void> {
    if (prng.chance(0.25)) {
      await this.#setBit(prng);
      return;
    }
    // A storm: several at once, each at a portal of its choice.
    const counter = prng.between(0, this.#places.length - 1);
    const many = Array.from({ length: prng.between(1, 5) }, () => this.#countUp(prng, counter));
    await Promise.all(many);
  }

  async #countUp(prng: Prng, counter: number): Promise<void> {
    const { offsetBytes, lengthBytes } = this.#places[counter]!;
    const place = choosePlace(this.#scene, prng, this.#volumeName);
    if (place === null) return;
    const read = place.volume.read(offsetBytes, lengthBytes);
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
    const swap = there.volume.compareAndWrite(offsetBytes, [old], [contentOf(id, lengthBytes)]);
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
    const bits = await this.#readLast(volume, this.#bitsOffset, sectorBytes);
    if (bits !== null) this.#checkBits(bits, this.#tick);
    for (const [counter, { offsetBytes, lengthBytes }] of this.#places.entries()) {
      const content = await this.#readLast(volume, offsetBytes, lengthBytes);
      const wrong = content === null ? null : this.#checkCounter(counter, this.#idOf(content));
      if (wrong !== null) this.#scene.violation(`counter ${counter}: ${wrong}`);
    }
  }

  async #readLast(volume: Volume, offsetBytes: number, length: number): Promise<Buffer | null> {
    const found = await volume.read(offsetBytes, length);
    if (found.ok) return Buffer.concat(found.buffers);
    this.#scene.violation("the counters cannot be read at the end");
    return null;
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

  #idOf(content: Buffer): number {
    const id = content.readUIntBE(0, idBytes);
    if (!contentOf(id, content.length).equals(content)) {
      this.#scene.violation(`a counter's content is a mixture: ${describe(content)}`);
    }
    return id;
  }
}

/** From which sector on which id is there. */
function describe(content: Buffer): string {
  const found: string[] = [];
  let last = -1;
  for (let at = 0; at < content.length; at += sectorBytes) {
    // Ids go on across sectors' borders: one that begins in the sector.
    const id = content.readUIntBE(Math.ceil(at / idBytes) * idBytes, idBytes);
    if (id !== last) found.push(`${id} from sector ${at / sectorBytes} on`);
    last = id;
  }
  return found.join(", ");
}

function contentOf(id: number, lengthBytes: number): Buffer {
  const one = Buffer.alloc(idBytes);
  one.writeUIntBE(id, 0, idBytes);
  return Buffer.alloc(lengthBytes, one);
}
