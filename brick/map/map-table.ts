import { assert } from "../assert.ts";
import type { Kv, KvChange } from "../host.ts";
import { keyAfter } from "../kv-key.ts";
import { NumberMap } from "../number-map.ts";
import { Roster, type Seat } from "../roster.ts";
import { decodeGrain, encodeGrain, type Grain } from "./grain.ts";
import {
  aboveRecords,
  type GrainKey,
  keyIn,
  keyPrefix,
  kindByte,
  MapTableError,
  noteByte,
  noteKey,
  parseKey,
  recordKey,
  recordsEnd,
  stateByte,
  stateKey,
  type TableKind,
  type TableName,
  tablePrefix,
  tablePrefixBytes,
  uint32Max,
} from "./map-table-keys.ts";

export interface TableEntry extends GrainKey {
  value: Grain;
  /** The record as it is stored. */
  bytes: Buffer;
}

export interface MapTableOptions {
  /** Bounds of the cache of records that the key-value store holds as well. */
  readonly cacheEntriesMax: number;
  readonly cacheBytesMax: number;
}

const optionsDefault: MapTableOptions = {
  cacheEntriesMax: 16_384,
  cacheBytesMax: 32 * 1024 * 1024,
};

/** About what an entry costs beside its bytes. */
const entryBytes = 160;
/** Tables that one sweep looks at. */
const sweepTablesMax = 64;
/** Records of older generations that a look-up reads along in one go. */
const lookupSlack = 16;

interface Table extends TableName {
  /** The lines of each branch, newest generation first. */
  readonly branches: Map<number, Line[]>;
  dropped: boolean;
}

/** What memory holds of one branch under one generation. */
interface Line {
  readonly table: Table;
  readonly branch: number;
  readonly generation: number;
  readonly entries: NumberMap<Entry>;
}

interface Entry {
  readonly line: Line;
  readonly grain: number;
  /** The record as it is stored, well formed; null: there is none. */
  bytes: Buffer | null;
  /** Since the cache's hand last passed. */
  used: boolean;
  /** Changed since the last collect. */
  dirty: boolean;
  /** Handed out. */
  collecting: boolean;
  /** Among the clean ones. */
  seat: Seat<Entry> | null;
}

/** A change of a key that the cache does not keep: states, notes, swept records. */
interface Loose {
  readonly key: Buffer;
  readonly bytes: Buffer | null;
}

/**
 * The map tables of one brick: changes gather in memory until a checkpoint collects them, records
 * read from the key-value store are cached. An entry is dirty (changed since the last collect),
 * collecting (handed out, not yet said to be kept), both, or clean; only clean ones are evicted.
 */
export class MapTable {
  readonly #options: MapTableOptions;
  #kv: Kv | null = null;
  readonly #tables = new Map<number, Table>();
  #lineLast: Line | null = null;
  /** Together with entries of tables that were dropped since, which are dirty no more. */
  #dirty: Entry[] = [];
  #dirtyCount = 0;
  #collecting: Entry[] = [];
  /** In order of their coming in, or of the cache's hand passing them. */
  readonly #clean = new Roster<Entry>();
  #cleanBytes = 0;
  #looseDirty = new Map<string, Loose>();
  #looseCollecting = new Map<string, Loose>();
  #sweepFrom: Buffer | null = null;

  constructor(options: Partial<MapTableOptions> = {}) {
    this.#options = { ...optionsDefault, ...options };
  }

  attach(kv: Kv): void {
    assert(this.#kv === null);
    this.#kv = kv;
  }

  get(kind: TableKind, shard: number, incarnation: number, key: GrainKey): Grain | undefined {
    const record = this.getRecord(kind, shard, incarnation, key);
    return record === undefined ? undefined : decode(record);
  }

  /** The record as it is stored, well formed; never to be written into. */
  getRecord(
    kind: TableKind,
    shard: number,
    incarnation: number,
    key: GrainKey,
  ): Buffer | undefined {
    const line = this.#line(kind, shard, incarnation, key);
    let entry = line.entries.get(key.grain);
    if (entry === undefined) {
      const bytes = this.#store().get(recordKey(line.table, key)) ?? null;
      if (bytes !== null) decode(bytes);
      entry = newEntry(line, key.grain, bytes);
      line.entries.set(key.grain, entry);
      this.#cache(entry);
    }
    entry.used = true;
    return entry.bytes ?? undefined;
  }

  /** null removes the record. Kept in memory until it is collected. */
  put(
    kind: TableKind,
    shard: number,
    incarnation: number,
    key: GrainKey,
    grain: Grain | null,
  ): void {
    this.putRecord(kind, shard, incarnation, key, grain === null ? null : encodeGrain(grain));
  }

  putRecord(
    kind: TableKind,
    shard: number,
    incarnation: number,
    key: GrainKey,
    bytes: Buffer | null,
  ): void {
    const line = this.#line(kind, shard, incarnation, key);
    let entry = line.entries.get(key.grain);
    if (entry === undefined) {
      entry = newEntry(line, key.grain, bytes);
      entry.used = true;
      line.entries.set(key.grain, entry);
    } else {
      this.#uncache(entry);
      entry.bytes = bytes;
    }
    if (entry.dirty) return;
    entry.dirty = true;
    this.#dirty.push(entry);
    this.#dirtyCount += 1;
  }

  /**
   * At most `limit` records in order of branch, grain, newest generation first, after the key
   * `after`; null begins at the start. What changes between two calls may or may not be seen.
   */
  scan(
    kind: TableKind,
    shard: number,
    incarnation: number,
    after: GrainKey | null,
    limit: number,
  ): { entries: TableEntry[]; done: boolean } {
    assert(limit >= 1);
    const prefix = tablePrefix(kind, shard, incarnation);
    const end = Buffer.concat([prefix, aboveRecords]);
    const table = this.#tables.get(tableId(kind, shard, incarnation));
    const entries: TableEntry[] = [];
    let position = after;
    while (entries.length < limit) {
      const want = limit - entries.length;
      const start = position === null ? prefix : keyAfter(keyIn(prefix, position));
      const stored = this.#store().range(start, end, want);
      // Each source is known up to here; null is to its end.
      const storedTo = stored.length < want ? null : parseKey(stored.at(-1)![0]);
      const changed = table === undefined ? [] : smallest(table, position, storedTo, want);
      const changedTo = changed.length < want ? null : keyOf(changed.at(-1)!);
      const until = earlier(storedTo, changedTo);
      mergeInto(entries, limit, stored, changed, until);
      if (entries.length >= limit) break;
      if (until === null) return { entries, done: true };
      position = until;
    }
    return { entries, done: false };
  }

  /**
   * Of each grain in [firstGrain, firstGrain + count) of a branch, in order, the record of the
   * newest generation not after `generation`; grains without one are left out.
   */
  lookup(
    shard: number,
    incarnation: number,
    branch: number,
    firstGrain: number,
    count: number,
    generation: number,
  ): { grain: number; value: Grain }[] {
    const newest = new Map<number, { generation: number; bytes: Buffer }>();
    const lines = this.#tables.get(tableId("base", shard, incarnation))?.branches.get(branch) ?? [];
    for (const line of lines) {
      if (line.generation > generation) continue;
      for (let grain = firstGrain; grain < firstGrain + count; grain += 1) {
        const bytes = line.entries.get(grain)?.bytes ?? null;
        if (bytes === null || newest.has(grain)) continue;
        newest.set(grain, { generation: line.generation, bytes });
      }
    }
    const prefix = tablePrefix("base", shard, incarnation);
    const end = keyIn(prefix, { branch, grain: firstGrain + count, generation: uint32Max });
    let start = keyIn(prefix, { branch, grain: firstGrain, generation });
    const page = count + lookupSlack;
    for (let more = true; more; ) {
      const pairs = this.#store().range(start, end, page);
      for (const [key, bytes] of pairs) {
        const at = parseKey(key);
        if (at.generation > generation) continue;
        const known = newest.get(at.grain);
        if (known !== undefined && known.generation >= at.generation) continue;
        // What memory holds of this very key hides it.
        const line = lines.find((line) => line.generation === at.generation);
        if (line?.entries.has(at.grain)) continue;
        newest.set(at.grain, { generation: at.generation, bytes });
      }
      more = pairs.length === page;
      if (more) start = keyAfter(pairs.at(-1)![0]);
    }
    const found: { grain: number; value: Grain }[] = [];
    for (let grain = firstGrain; grain < firstGrain + count; grain += 1) {
      const record = newest.get(grain);
      if (record !== undefined) found.push({ grain, value: decode(record.bytes) });
    }
    return found;
  }

  getState(shard: number): Buffer | undefined {
    return this.#getLoose(stateKey(shard));
  }

  putState(shard: number, state: Buffer | null): void {
    this.#putLoose(stateKey(shard), state);
  }

  /** The states of all shards, in order. */
  states(): { shard: number; state: Buffer }[] {
    const byShard = new Map<number, Buffer | null>();
    const end = Buffer.from([keyPrefix, noteByte]);
    // Shards are 16-bit numbers.
    for (const [key, state] of this.#store().range(recordsEnd, end, 2 ** 16)) {
      byShard.set(key.readUInt16BE(2), state);
    }
    for (const changes of [this.#looseCollecting, this.#looseDirty]) {
      for (const { key, bytes } of changes.values()) {
        if (key[1] === stateByte) byShard.set(key.readUInt16BE(2), bytes);
      }
    }
    const states: { shard: number; state: Buffer }[] = [];
    for (const [shard, state] of byShard) if (state !== null) states.push({ shard, state });
    return states.sort((a, b) => a.shard - b.shard);
  }

  getNote(name: string): Buffer | undefined {
    return this.#getLoose(noteKey(name));
  }

  putNote(name: string, bytes: Buffer | null): void {
    this.#putLoose(noteKey(name), bytes);
  }

  /** All changes that are not known to be kept, for one batch; `collected` once they are. */
  collect(): KvChange[] {
    for (const entry of this.#dirty) {
      if (!entry.dirty) continue;
      entry.dirty = false;
      if (entry.collecting) continue;
      entry.collecting = true;
      this.#collecting.push(entry);
    }
    this.#dirty = [];
    this.#dirtyCount = 0;
    for (const [name, loose] of this.#looseDirty) this.#looseCollecting.set(name, loose);
    this.#looseDirty = new Map();
    const changes: KvChange[] = [];
    for (const entry of this.#collecting) {
      changes.push({ key: recordKey(entry.line.table, keyOf(entry)), value: entry.bytes });
    }
    for (const { key, bytes } of this.#looseCollecting.values()) {
      changes.push({ key, value: bytes });
    }
    return changes;
  }

  /** The key-value store has what was handed out last. */
  collected(): void {
    for (const entry of this.#collecting) {
      entry.collecting = false;
      if (entry.dirty || entry.line.table.dropped) continue;
      this.#cache(entry);
    }
    this.#collecting = [];
    this.#looseCollecting = new Map();
  }

  /** Changes not known to be kept; one that changed again while handed out counts twice. */
  dirtyCount(): number {
    const loose = this.#looseDirty.size + this.#looseCollecting.size;
    return this.#dirtyCount + this.#collecting.length + loose;
  }

  /**
   * Removes up to `limit` records of tables that `isLive` refuses, a few tables a call, going round.
   * Such an incarnation must not be used any more. The removals are collected like other changes:
   * before the log that tells of the table's end is covered, it is still there. Returns how many.
   */
  sweep(isLive: (shard: number, incarnation: number) => boolean, limit: number): number {
    for (const table of this.#tables.values()) {
      if (!isLive(table.shard, table.incarnation)) this.#drop(table);
    }
    const kv = this.#store();
    let from = this.#sweepFrom ?? Buffer.from([keyPrefix]);
    let removed = 0;
    for (let looks = 0; looks < sweepTablesMax && removed < limit; looks += 1) {
      const first = kv.range(from, recordsEnd, 1)[0]?.[0];
      if (first === undefined) {
        this.#sweepFrom = null;
        return removed;
      }
      const tableEnd = Buffer.concat([first.subarray(0, tablePrefixBytes), aboveRecords]);
      from = tableEnd;
      if (isLive(first.readUInt16BE(2), first.readUInt32BE(4))) continue;
      const want = limit - removed;
      const pairs = kv.range(first, tableEnd, want);
      for (const [key] of pairs) if (this.#removeStored(key)) removed += 1;
      if (pairs.length === want) from = keyAfter(pairs.at(-1)![0]);
    }
    this.#sweepFrom = from;
    return removed;
  }

  #store(): Kv {
    assert(this.#kv !== null, "the map table has no key-value store yet");
    return this.#kv;
  }

  /** False when the removal waits already. */
  #removeStored(key: Buffer): boolean {
    const name = key.toString("latin1");
    if (this.#looseDirty.has(name) || this.#looseCollecting.has(name)) return false;
    this.#looseDirty.set(name, { key, bytes: null });
    return true;
  }

  /** Memory's part of a table that has ended. What was handed out may still reach the store. */
  #drop(table: Table): void {
    table.dropped = true;
    this.#tables.delete(tableId(table.kind, table.shard, table.incarnation));
    if (this.#lineLast?.table === table) this.#lineLast = null;
    for (const lines of table.branches.values()) {
      for (const line of lines) {
        for (const entry of line.entries.values()) {
          if (entry.dirty) this.#dirtyCount -= 1;
          entry.dirty = false;
          this.#uncache(entry);
        }
      }
    }
  }

  #getLoose(key: Buffer): Buffer | undefined {
    const name = key.toString("latin1");
    const loose = this.#looseDirty.get(name) ?? this.#looseCollecting.get(name);
    return loose === undefined ? this.#store().get(key) : (loose.bytes ?? undefined);
  }

  #putLoose(key: Buffer, bytes: Buffer | null): void {
    this.#looseDirty.set(key.toString("latin1"), { key, bytes });
  }

  #line(kind: TableKind, shard: number, incarnation: number, key: GrainKey): Line {
    const { branch, generation } = key;
    const last = this.#lineLast;
    if (
      last !== null &&
      last.branch === branch &&
      last.generation === generation &&
      last.table.shard === shard &&
      last.table.incarnation === incarnation &&
      last.table.kind === kind
    ) {
      return last;
    }
    const id = tableId(kind, shard, incarnation);
    let table = this.#tables.get(id);
    if (table === undefined) {
      table = { kind, shard, incarnation, branches: new Map(), dropped: false };
      this.#tables.set(id, table);
    }
    const line = lineOf(table, branch, generation);
    this.#lineLast = line;
    return line;
  }

  #cache(entry: Entry): void {
    const clean = this.#clean;
    entry.seat = clean.enter(entry);
    this.#cleanBytes += cost(entry);
    const { cacheEntriesMax, cacheBytesMax } = this.#options;
    while (clean.size > cacheEntriesMax || this.#cleanBytes > cacheBytesMax) {
      const victim = clean.first!;
      if (victim.used) {
        victim.used = false;
        clean.leave(victim.seat!);
        victim.seat = clean.enter(victim);
      } else {
        this.#uncache(victim);
        this.#forget(victim);
      }
    }
  }

  /** To be called before its bytes change. */
  #uncache(entry: Entry): void {
    if (entry.seat === null) return;
    this.#clean.leave(entry.seat);
    entry.seat = null;
    this.#cleanBytes -= cost(entry);
  }

  #forget(entry: Entry): void {
    const { line } = entry;
    const { table } = line;
    line.entries.delete(entry.grain);
    if (line.entries.size > 0) return;
    if (line === this.#lineLast) this.#lineLast = null;
    const lines = table.branches.get(line.branch)!;
    lines.splice(lines.indexOf(line), 1);
    if (lines.length > 0) return;
    table.branches.delete(line.branch);
    if (table.branches.size > 0) return;
    this.#tables.delete(tableId(table.kind, table.shard, table.incarnation));
  }
}

function decode(bytes: Buffer): Grain {
  const grain = decodeGrain(bytes);
  if (grain === null) throw new MapTableError("a grain record in the map table is damaged");
  return grain;
}

function newEntry(line: Line, grain: number, bytes: Buffer | null): Entry {
  return { line, grain, bytes, used: false, dirty: false, collecting: false, seat: null };
}

function cost(entry: Entry): number {
  return entryBytes + (entry.bytes?.length ?? 0);
}

function tableId(kind: TableKind, shard: number, incarnation: number): number {
  return (kindByte[kind] * 2 ** 16 + shard) * 2 ** 32 + incarnation;
}

function lineOf(table: Table, branch: number, generation: number): Line {
  let lines = table.branches.get(branch);
  if (lines === undefined) {
    lines = [];
    table.branches.set(branch, lines);
  }
  let at = 0;
  while (at < lines.length && lines[at]!.generation > generation) at += 1;
  let line = lines[at];
  if (line === undefined || line.generation !== generation) {
    line = { table, branch, generation, entries: new NumberMap() };
    lines.splice(at, 0, line);
  }
  return line;
}

/** What memory holds after one key up to another: the first in order, at most `limit` of them. */
function smallest(
  table: Table,
  after: GrainKey | null,
  until: GrainKey | null,
  limit: number,
): Entry[] {
  let kept: Entry[] = [];
  let bound = until;
  for (const lines of table.branches.values()) {
    for (const line of lines) {
      for (const entry of line.entries.values()) {
        const key = { branch: line.branch, grain: entry.grain, generation: line.generation };
        if (after !== null && compareKeys(key, after) <= 0) continue;
        if (bound !== null && compareKeys(key, bound) > 0) continue;
        kept.push(entry);
        if (kept.length < 4 * limit) continue;
        kept = kept.sort(compareEntries).slice(0, limit);
        bound = keyOf(kept.at(-1)!);
      }
    }
  }
  return kept.sort(compareEntries).slice(0, limit);
}

/** Adds what both sources say up to `until`, in order; memory's word on a key counts. */
function mergeInto(
  entries: TableEntry[],
  limit: number,
  stored: readonly [Buffer, Buffer][],
  changed: readonly Entry[],
  until: GrainKey | null,
): void {
  let storedAt = 0;
  let changedAt = 0;
  while (entries.length < limit) {
    const pair = stored[storedAt];
    const entry = changed[changedAt];
    if (pair === undefined && entry === undefined) return;
    const storedKey = pair === undefined ? null : parseKey(pair[0]);
    const changedKey = entry === undefined ? null : keyOf(entry);
    const key = earlier(storedKey, changedKey)!;
    if (until !== null && compareKeys(key, until) > 0) return;
    const isChanged = changedKey !== null && compareKeys(changedKey, key) === 0;
    if (storedKey !== null && compareKeys(storedKey, key) === 0) storedAt += 1;
    if (isChanged) changedAt += 1;
    const bytes = isChanged ? entry!.bytes : pair![1];
    if (bytes !== null) entries.push({ ...key, value: decode(bytes), bytes });
  }
}

/** null counts as after everything. */
function earlier(a: GrainKey | null, b: GrainKey | null): GrainKey | null {
  if (a === null || b === null) return a ?? b;
  return compareKeys(a, b) <= 0 ? a : b;
}

function compareKeys(a: GrainKey, b: GrainKey): number {
  return a.branch - b.branch || a.grain - b.grain || b.generation - a.generation;
}

function compareEntries(a: Entry, b: Entry): number {
  const { line } = a;
  const other = b.line;
  return line.branch - other.branch || a.grain - b.grain || other.generation - line.generation;
}

function keyOf({ line, grain }: Entry): GrainKey {
  return { branch: line.branch, grain, generation: line.generation };
}
