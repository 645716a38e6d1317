import { sectorBytes } from "../../brick/units.ts";
import { type Anomaly, checkSector, type SectorHistory, type WriteEvent } from "./history.ts";

/** What a client learns of one write: its events, one a sector. */
export interface WriteTicket {
  readonly firstTag: number;
  readonly events: readonly WriteEvent[];
}

/**
 * The histories of all sectors of one volume. Every written sector carries a tag of its own, so
 * that a read tells which write it saw; tags are dense from 1.
 */
export class Histories {
  readonly #sectors = new Map<number, SectorHistory>();
  #position = 0;
  #tagNext = 1;

  /** The next position in the order of events. */
  tick(): number {
    this.#position += 1;
    return this.#position;
  }

  get writes(): number {
    return this.#tagNext - 1;
  }

  startWrite(firstSector: number, sectorCount: number, zero: boolean): WriteTicket {
    const start = this.tick();
    const firstTag = zero ? 0 : this.#tagNext;
    if (!zero) this.#tagNext += sectorCount;
    const events: WriteEvent[] = [];
    for (let at = 0; at < sectorCount; at += 1) {
      const event = { tag: zero ? 0 : firstTag + at, start, end: Number.POSITIVE_INFINITY };
      this.#sector(firstSector + at).writes.push(event);
      events.push(event);
    }
    return { firstTag, events };
  }

  endWrite(ticket: WriteTicket): void {
    const end = this.tick();
    for (const event of ticket.events) event.end = end;
  }

  endRead(start: number, firstSector: number, bytes: Buffer): string | null {
    return this.readBetween(start, this.tick(), firstSector, bytes);
  }

  /** These bytes were what the sectors held at some time between. */
  readBetween(start: number, end: number, firstSector: number, bytes: Buffer): string | null {
    for (let at = 0; at < bytes.length / sectorBytes; at += 1) {
      const sector = firstSector + at;
      const tag = readTag(bytes, at * sectorBytes, sector);
      if (tag === null) return `sector ${sector}: a mixture or foreign bytes`;
      this.#sector(sector).reads.push({ tag, start, end });
    }
    return null;
  }

  /** The first anomaly found, with its sector. */
  check(): { sector: number; anomaly: Anomaly } | null {
    for (const [sector, history] of this.#sectors) {
      const anomaly = checkSector(history);
      if (anomaly !== null) return { sector, anomaly };
    }
    return null;
  }

  describe(sector: number): string {
    const { writes, reads } = this.#sector(sector);
    const lines = [
      ...writes.map((e) => ({ at: e.start, text: `write ${e.tag} [${e.start}, ${e.end}]` })),
      ...reads.map((e) => ({ at: e.start, text: `read  ${e.tag} [${e.start}, ${e.end}]` })),
    ];
    lines.sort((a, b) => a.at - b.at);
    return lines.map((line) => line.text).join("\n");
  }

  #sector(sector: number): SectorHistory {
    let history = this.#sectors.get(sector);
    if (history === undefined) this.#sectors.set(sector, (history = { writes: [], reads: [] }));
    return history;
  }
}

/** A sector's tag and number, written twice; the rest is zeros. */
const nameBytes = 12;
const zeros = Buffer.alloc(sectorBytes);

/** Fills the buffer's sectors, which are zeros, with consecutive tags. */
export function writeTags(bytes: Buffer, firstSector: number, firstTag: number): void {
  for (let at = 0; at < bytes.length / sectorBytes; at += 1) {
    for (const from of [at * sectorBytes, at * sectorBytes + nameBytes]) {
      bytes.writeUIntBE(firstTag + at, from, 6);
      bytes.writeUIntBE(firstSector + at, from + 6, 6);
    }
  }
}

/** The tag, 0 for zeros, or null when the sector is not wholly one write's. */
function readTag(bytes: Buffer, at: number, sector: number): number | null {
  const tag = bytes.readUIntBE(at, 6);
  const second = at + nameBytes;
  const rest = tag === 0 ? at : second + nameBytes;
  const end = at + sectorBytes;
  const isWhole =
    tag === 0 ||
    (bytes.readUIntBE(at + 6, 6) === sector &&
      bytes.readUIntBE(second, 6) === tag &&
      bytes.readUIntBE(second + 6, 6) === sector);
  return isWhole && bytes.compare(zeros, 0, end - rest, rest, end) === 0 ? tag : null;
}
