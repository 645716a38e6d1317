import { strict as check } from "node:assert";
import type { BrickNumber } from "../units.ts";
import { sectorsPerGrain } from "../units.ts";
import { changesOf, type Entry } from "./entry.ts";
import type { Extent } from "./grain.ts";
import { isZeros, mappedSectors } from "./grain.ts";
import type { MapChange } from "./group.ts";
import type { MapService } from "./map-service-io.ts";
import type { GrainKey } from "./map-table-keys.ts";
import { ownBranch } from "./owed.ts";
import type { Replica } from "./replica.ts";

/** What each sector of a grain holds: a chunk's key and the sector inside it, or null. */
type Sectors = readonly (string | null)[];

interface Version {
  readonly op: number;
  readonly sectors: Sectors;
}

interface Settled {
  readonly end: "landed" | "cancelled";
  readonly op: number;
  readonly grains: readonly number[];
}

/** Ops, both ends included. */
interface Span {
  readonly from: number;
  readonly to: number;
}

function common(a: Span, b: Span): Span[] {
  const span = { from: Math.max(a.from, b.from), to: Math.min(a.to, b.to) };
  return span.from <= span.to ? [span] : [];
}

/** What is owed to another shard is a grain apart. */
function nameOf(grain: number, owed = false): number {
  return owed ? -grain - 1 : grain;
}

const blank: Sectors = new Array<string | null>(sectorsPerGrain).fill(null);

/**
 * Everything that any replica of one shard has ever committed, by op: there must be one history
 * only, and whatever is answered or kept must follow from it.
 */
export class ShardHistory {
  readonly ops: string[] = [""];
  readonly #grains = new Map<number, Version[]>();
  readonly #settled = new Map<string, Settled>();
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
      const grains = changesOf(entry).flatMap(({ grain, grainCount }) =>
        Array.from({ length: Math.max(1, grainCount) }, (_, at) => grain + at),
      );
      this.#settled.set(name, { end: kind === "cancel" ? "cancelled" : "landed", op, grains });
    }
    for (const change of changesOf(entry)) {
      const { grain, grainCount, firstSector, sectorCount, owed } = change;
      if (grainCount === 0) this.#put(op, nameOf(grain, owed), firstSector, sectorCount, change);
      for (let at = 0; at < grainCount; at += 1) {
        this.#put(op, nameOf(grain + at, owed), 0, sectorsPerGrain, change);
      }
    }
  }

  #put(op: number, grain: number, first: number, count: number, change: MapChange): void {
    const key = change.key?.toString("hex") ?? null;
    const sectors = [...this.at(grain)];
    for (let at = 0; at < count; at += 1) {
      sectors[first + at] = key === null ? null : `${key}+${change.chunkSector + at}`;
    }
    let versions = this.#grains.get(grain);
    if (versions === undefined) this.#grains.set(grain, (versions = []));
    versions.push({ op, sectors });
  }

  at(grain: number): Sectors {
    return this.#grains.get(grain)?.at(-1)?.sectors ?? blank;
  }

  settled(epoch: number, sequence: number): "landed" | "cancelled" | undefined {
    return this.#settled.get(`${epoch}.${sequence}`)?.end;
  }

  /** What was acknowledged has changed these grains by one op, and every look-up sees it from now on. */
  acknowledge(epoch: number, sequence: number, grains: readonly number[]): void {
    const settled = this.#settled.get(`${epoch}.${sequence}`)!;
    check.deepEqual(settled.grains, grains, `op ${settled.op} is not the whole of its command`);
    for (const grain of grains) this.#shown.set(grain, Math.max(this.shown(grain), settled.op));
  }

  shown(grain: number): number {
    return this.#shown.get(grain) ?? 0;
  }

  /**
   * A look-up that began when `since` had been shown gave these grains: together they are the shard
   * as it was after one of its ops, so that of what one entry changed all is seen, or nothing.
   */
  seen(
    since: number,
    grains: readonly number[],
    extents: ReadonlyMap<number, readonly Extent[]>,
  ): void {
    let spans: Span[] = [{ from: since, to: this.lastOp }];
    for (const grain of grains) {
      const like = this.#spansLike(grain, sectorsOf(extents.get(grain) ?? []));
      spans = spans.flatMap((span) => like.flatMap((one) => common(span, one)));
      check.ok(spans.length > 0, `grains up to ${grain} were seen as at no op after ${since}`);
    }
    const op = Math.min(...spans.map(({ from }) => from));
    for (const grain of grains) {
      const version = this.#grains.get(grain)?.findLast((one) => one.op <= op);
      this.#shown.set(grain, Math.max(this.shown(grain), version?.op ?? 0));
    }
  }

  /** The ops after which the grain held these sectors. */
  #spansLike(grain: number, sectors: Sectors): Span[] {
    const versions = [{ op: 0, sectors: blank }, ...(this.#grains.get(grain) ?? [])];
    return versions.flatMap((one, at) => {
      if (!same(one.sectors, sectors)) return [];
      return [{ from: one.op, to: (versions[at + 1]?.op ?? this.lastOp + 1) - 1 }];
    });
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
        found.set(nameOf(grain, branch !== ownBranch(branch)), sectorsOf(value.extents));
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
  const { kind, op, epoch, sequence } = entry;
  const changes = changesOf(entry).map((change) => {
    const { grain, grainCount, firstSector, sectorCount, key, owed } = change;
    const what = [grain, grainCount, firstSector, sectorCount, key?.toString("hex"), owed ?? false];
    return what.join(" ");
  });
  return [kind, op, epoch, sequence, ...changes].join(" ");
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
