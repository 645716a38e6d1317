import type { Prng } from "../../brick/prng.ts";
import { grainBytes, KiB } from "../../brick/units.ts";
import type { Volume } from "../../brick/volume/volume.ts";

/** Contents that are written again and again, so that chunks die and are hit by new writes. */
const contentsCount = 48;
const pieceBytes = [4 * KiB, grainBytes] as const;
/** The cells lie beyond the grains that the other clients work on. */
const firstGrain = 512;

/** One grain. What may be in it: more than one thing while a write's fate is not known. */
interface Cell {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  possible: Set<number>;
  busy: boolean;
}

export interface PaletteCounts {
  reads: number;
  writes: number;
}

/**
 * A client that writes few contents to few places: most of its writes are of chunks that exist
 * already, many of which nobody refers to any more. A read must find what was written last.
 */
export class PaletteClient {
  readonly counts: PaletteCounts = { reads: 0, writes: 0 };
  readonly #prng: Prng;
  readonly #cells: readonly Cell[];
  readonly #contents: readonly Buffer[];

  constructor(prng: Prng, cellCount: number) {
    this.#prng = prng;
    this.#cells = Array.from({ length: cellCount }, (_, at) => ({
      offsetBytes: (firstGrain + at) * grainBytes,
      lengthBytes: pieceBytes[at % pieceBytes.length]!,
      possible: new Set([0]),
      busy: false,
    }));
    this.#contents = Array.from({ length: contentsCount }, (_, at) => {
      const bytes = Buffer.alloc(grainBytes);
      return at === 0 ? bytes : prng.fill(bytes);
    });
  }

  /** One operation; what no initiator may see, or null. Its promise may never end. */
  async operate(volume: Volume): Promise<string | null> {
    const cell = this.#prng.pick(this.#cells);
    if (cell.busy) return null;
    cell.busy = true;
    const isRead = this.#prng.chance(0.3);
    const violation = isRead ? await this.#read(volume, cell) : await this.#write(volume, cell);
    // A cell whose write never ended stays as it is, and is read at the end only.
    cell.busy = false;
    return violation;
  }

  /** Reads of every cell, each of which must succeed, once nothing goes wrong any more. */
  reads(volume: () => Volume): (() => Promise<string | null>)[] {
    return this.#cells.map((cell) => () => this.#read(volume(), cell, true));
  }

  async #read(volume: Volume, cell: Cell, must = false): Promise<string | null> {
    const { offsetBytes, lengthBytes } = cell;
    const result = await volume.read(offsetBytes, lengthBytes);
    if (!result.ok) {
      const { code } = result.fault;
      if (must || code === "lost") return `a palette read at ${offsetBytes} ended with ${code}`;
      return null;
    }
    this.counts.reads += 1;
    const bytes = Buffer.concat(result.buffers);
    for (const content of cell.possible) {
      if (bytes.equals(this.#contents[content]!.subarray(0, lengthBytes))) return null;
    }
    return `a palette read at ${offsetBytes} found none of ${[...cell.possible]}`;
  }

  async #write(volume: Volume, cell: Cell): Promise<string | null> {
    const content = this.#prng.between(0, contentsCount - 1);
    const { offsetBytes, lengthBytes } = cell;
    cell.possible = new Set([...cell.possible, content]);
    const data = this.#contents[content]!.subarray(0, lengthBytes);
    const result =
      content === 0
        ? await volume.unmap(offsetBytes, lengthBytes)
        : await volume.write(offsetBytes, [data]);
    if (!result.ok) return null;
    cell.possible = new Set([content]);
    this.counts.writes += 1;
    return null;
  }
}
