import type { Prng } from "../../brick/prng.ts";
import { sectorBytes, sectorsPerGrain } from "../../brick/units.ts";
import type { Histories } from "./histories.ts";
import { choosePlace, patiently, type Scene } from "./scene.ts";

/** A copy whose portal died may be on its way still, for about as long as a network holds it. */
const unsureMs = 60_000;
const lengthMax = 3 * sectorsPerGrain;

/** Sectors of a volume that only the copier changes. */
export interface CopyArea {
  readonly volumeName: string;
  readonly firstSector: number;
  readonly sectors: number;
}

/**
 * Copies parts of what the clients work on to where nobody else writes, and looks at once what came
 * of it: that is what the source held at some time during the copy, as if it had been read then.
 * Afterwards it stays so, whatever becomes of the source.
 */
export class Copier {
  copies = 0;
  readonly #scene: Scene;
  readonly #histories: Histories;
  readonly #source: { readonly volumeName: string; readonly sectors: number };
  readonly #areas: readonly CopyArea[];
  /** By area and sector: what it holds for certain, or until when it is not certain. */
  readonly #known = new Map<string, Buffer | number>();

  constructor(
    scene: Scene,
    histories: Histories,
    source: { readonly volumeName: string; readonly sectors: number },
    areas: readonly CopyArea[],
  ) {
    this.#scene = scene;
    this.#histories = histories;
    this.#source = source;
    this.#areas = areas;
  }

  async act(prng: Prng): Promise<void> {
    const area = prng.pick(this.#areas);
    const count = Math.min(prng.between(1, lengthMax), area.sectors, this.#source.sectors);
    const from = prng.between(0, this.#source.sectors - count);
    const to = area.firstSector + prng.between(0, area.sectors - count);
    await this.#look(prng, area, to, count);
    const source = choosePlace(this.#scene, prng, this.#source.volumeName);
    const place = choosePlace(this.#scene, prng, area.volumeName);
    if (source === null || place === null) return;
    const { uuid } = source.volume.info;
    const start = this.#histories.tick();
    const what = { uuid, offsetBytes: from * sectorBytes };
    const copy = place.volume.copyFrom(what, to * sectorBytes, count * sectorBytes);
    for (let at = 0; at < count; at += 1) this.#known.set(nameOf(area, to + at), 0);
    const result = await patiently(this.#scene, place.brick, copy);
    const end = this.#histories.tick();
    if (result === null) {
      const untilMs = this.#nowMs + unsureMs;
      for (let at = 0; at < count; at += 1) this.#known.set(nameOf(area, to + at), untilMs);
      return;
    }
    if (!result.ok) {
      this.#scene.fault(result.fault);
      return;
    }
    this.copies += 1;
    const bytes = await this.#read(prng, area, to, count);
    if (bytes === null) return;
    const wrong = this.#histories.readBetween(start, end, from, bytes);
    if (wrong !== null) this.#scene.violation(`copied from ${from} to ${to}: ${wrong}`);
    for (let at = 0; at < count; at += 1) {
      const sector = bytes.subarray(at * sectorBytes, (at + 1) * sectorBytes);
      this.#known.set(nameOf(area, to + at), Buffer.from(sector));
    }
  }

  /** What was copied before is as it was. */
  async #look(prng: Prng, area: CopyArea, first: number, count: number): Promise<void> {
    const bytes = await this.#read(prng, area, first, count);
    if (bytes === null) return;
    for (let at = 0; at < count; at += 1) {
      const known = this.#known.get(nameOf(area, first + at));
      if (known === undefined || typeof known === "number") continue;
      const sector = bytes.subarray(at * sectorBytes, (at + 1) * sectorBytes);
      if (!known.equals(sector)) {
        this.#scene.violation(`${area.volumeName}, sector ${first + at}: a copy has changed`);
      }
    }
  }

  /** null: it cannot be read now, or part of it may change yet. */
  async #read(prng: Prng, area: CopyArea, first: number, count: number): Promise<Buffer | null> {
    const place = choosePlace(this.#scene, prng, area.volumeName);
    if (place === null) return null;
    for (let at = 0; at < count; at += 1) {
      const known = this.#known.get(nameOf(area, first + at));
      if (typeof known === "number" && known > this.#nowMs) return null;
    }
    const read = place.volume.read(first * sectorBytes, count * sectorBytes);
    const found = await patiently(this.#scene, place.brick, read);
    return found?.ok ? Buffer.concat(found.buffers) : null;
  }

  get #nowMs(): number {
    return this.#scene.cluster.world.clock.nowMs;
  }
}

function nameOf({ volumeName }: CopyArea, sector: number): string {
  return `${volumeName}/${sector}`;
}
