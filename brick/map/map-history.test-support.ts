import { strict as check } from "node:assert";
import type { BrickNumber } from "../units.ts";
import { sectorsPerGrain } from "../units.ts";
import type { Entry } from "./entry.ts";
import type { Extent } from "./grain.ts";
import { isZeros, mappedSectors } from "./grain.ts";
import type { MapService } from "./map-service-io.ts";
import type { GrainKey } from "./map-table.ts";
import type { Replica } from "./replica.ts";

/** What each sector of a grain holds: a chunk's key and the sector inside it, or null. */
type Sectors = readonly (string | null)[];

interface Version {
  readonly op: number;
  readonly sectors: Sectors;
}

const blank: Sectors = new Array<string | null>(sectorsPerGrain).fill(null);

/**
 * Everything that any replica of one shard has ever committed, by op: there must be one history
 * only, and whatever is answered or kept must follow from it.
 */
export class ShardHistory {
  readonly ops: string[] = [""];
  readonly #grains = new Map<number, Version[]>();
  readonly #settled = new Map<string, { end: "landed" | "cancelled"; op: number }>();
  readonly #leaders = new Map<number, BrickNumber>();
  /** Per grain, the newest op that an answer has shown or promised. */
  readonly #shown = new Map<number, number>();
  #epoch = 0;
  readonly shard: number;

  constructor(shard: number) {
    this.shard = shard;
  }

  get lastOp(): number {
    return this.ops.length - 1;
  }

  /** A replica has committed the entry; true when it is the first to do so. */
  commit(replica: Replica, entry: Entry): boolean {
    const { role, view, self } = replica;
    if (role.is === "primary") {
      const leader = this.#leaders.get(view!.view) ?? self;
      check.equal(leader, self, `two primaries committed in view ${view!.view}`);
      this.#leaders.set(view!.view, self);
    }
    const said = fingerprint(entry);
    const known = this.ops[entry.op];
    if (known !== undefined) {
      check.equal(said, known, `brick ${self} committed another op ${entry.op}`);
      return false;
    }
    check.equal(entry.op, this.ops.length, `brick ${self} committed ops with a gap`);
    this.ops.push(said);
    this.#take(entry);
    return true;
  }

  #take(entry: Entry): void {
    const { kind, epoch, sequence, op } = entry;
    if (kind === "fence") {
      this.#epoch = Math.max(this.#epoch, epoch);
      return;
    }
    if (sequence > 0) {
      check.equal(epoch, this.#epoch, `op ${op} of epoch ${epoch} landed under ${this.#epoch}`);
      const name = `${epoch}.${sequence}`;
      check.equal(this.#settled.get(name), undefined, `sequence ${name} came to two ends`);
      this.#settled.set(name, { end: kind === "cancel" ? "cancelled" : "landed", op });
    }
    if (kind !== "write" && kind !== "reference" && kind !== "unmap") return;
    const key = entry.key?.toString("hex") ?? null;
    const put = (grain: number, first: number, count: number) => {
      const sectors = [...this.at(grain)];
      for (let at = 0; at < count; at += 1) {
        sectors[first + at] = key === null ? null : `${key}+${entry.chunkSector + at}`;
      }
      let versions = this.#grains.get(grain);
      if (versions === undefined) this.#grains.set(grain, (versions = []));
      versions.push({ op, sectors });
    };
    if (entry.grainCount === 0) put(entry.grain, entry.firstSector, entry.sectorCount);
    for (let at = 0; at < entry.grainCount; at += 1) put(entry.grain + at, 0, sectorsPerGrain);
  }

  at(grain: number): Sectors {
    return this.#grains.get(grain)?.at(-1)?.sectors ?? blank;
  }

  settled(epoch: number, sequence: number): "landed" | "cancelled" | undefined {
    return this.#settled.get(`${epoch}.${sequence}`)?.end;
  }

  /** What was acknowledged must be seen by every look-up from now on. */
  acknowledge(epoch: number, sequence: number, grain: number): void {
    const { op } = this.#settled.get(`${epoch}.${sequence}`)!;
    this.#shown.set(grain, Math.max(this.shown(grain), op));
  }

  shown(grain: number): number {
    return this.#shown.get(grain) ?? 0;
  }

  /** A look-up that began when `since` had been shown gave these extents. */
  seen(grain: number, since: number, extents: readonly Extent[]): void {
    const sectors = sectorsOf(extents);
    const versions = [{ op: 0, sectors: blank }, ...(this.#grains.get(grain) ?? [])];
    const match = versions.find(
      (one, at) => (versions[at + 1]?.op ?? since + 1) > since && same(one.sectors, sectors),
    );
    check.ok(match, `grain ${grain} was seen as it was at no op after ${since}`);
    this.#shown.set(grain, Math.max(this.shown(grain), match.op));
  }

  /** A complete replica that has committed everything holds what the history says. */
  examine(service: MapService, replica: Replica): void {
    const { facts, self, mapped } = replica;
    check.equal(facts.commitOp, this.lastOp, `brick ${self} lacks what was committed`);
    const found = new Map<number, Sectors>();
    let sectors = 0;
    let after: GrainKey | null = null;
    for (let done = false; !done; ) {
      const page = service.table.scan("base", this.shard, facts.incarnation, after, 100);
      for (const { branch, grain, generation, value } of page.entries) {
        found.set(grain, sectorsOf(value.extents));
        sectors += mappedSectors(value);
        after = { branch, grain, generation };
      }
      done = page.done;
    }
    for (const grain of new Set([...this.#grains.keys(), ...found.keys()])) {
      const held = found.get(grain) ?? blank;
      check.ok(same(held, this.at(grain)), `brick ${self} holds another grain ${grain}`);
    }
    const counted = [...mapped.values()].reduce((a, b) => a + b, 0);
    check.equal(counted, sectors, `brick ${self} counts its mapped sectors wrongly`);
  }
}

function fingerprint(entry: Entry): string {
  const { kind, op, epoch, sequence, grain, grainCount, firstSector, sectorCount } = entry;
  const key = entry.key?.toString("hex") ?? "";
  return [kind, op, epoch, sequence, grain, grainCount, firstSector, sectorCount, key].join(" ");
}

function sectorsOf(extents: readonly Extent[]): Sectors {
  const sectors = [...blank];
  for (const extent of extents) {
    check.ok(!isZeros(extent), "explicit zeros in a complete table");
    for (let at = 0; at < extent.sectorCount; at += 1) {
      const inChunk = extent.chunkSector + at;
      sectors[extent.firstSector + at] = `${extent.key.toString("hex")}+${inChunk}`;
    }
  }
  return sectors;
}

function same(a: Sectors, b: Sectors): boolean {
  return a.every((sector, at) => sector === b[at]);
}
