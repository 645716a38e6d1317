import { assert } from "../assert.ts";
import { type Disk, DiskError, type DiskFile, type Host, type Kv, type KvChange } from "../host.ts";
import { decodeBatch, encodeBatch } from "../kv-batch.ts";
import { Prng } from "../prng.ts";

/**
 * Test support: a disk in memory that writes down everything done to it, so that a test can make
 * every state that a power cut could have left, and open each. `file` tells files apart whatever
 * their names are: a rename or a removal may reach the medium long after what was written.
 */

export type TraceEvent =
  | { type: "create"; path: string; file: number }
  | { type: "rename"; from: string; path: string; file: number }
  | { type: "remove"; path: string; file: number }
  | { type: "write"; path: string; file: number; offsetBytes: number; bytes: Buffer }
  | { type: "truncate"; path: string; file: number; sizeBytes: number }
  | { type: "sync"; path: string; file: number }
  | { type: "syncFolder"; folder: string }
  | { type: "kv"; batch: readonly KvChange[]; sync: boolean }
  /** Not of the disk: the test's own remark at this moment. */
  | { type: "mark"; mark: unknown };

const sectorBytes = 512;

/** What is on the medium, and what is only on its way to it. */
export class DiskImage {
  readonly kv = new Map<string, Buffer>();
  readonly names = new Map<string, number>();
  /** Never changed in place, so that images may share them. */
  readonly contents = new Map<number, Buffer>();
  #pending: TraceEvent[] = [];

  /** Content by name; of an image's own, to be damaged in place. */
  get files(): Map<string, Buffer> {
    return filesOf(this.names, this.contents);
  }

  copy(): DiskImage {
    const image = this.#share();
    for (const [file, bytes] of this.contents) image.contents.set(file, Buffer.from(bytes));
    image.#pending = [...this.#pending];
    return image;
  }

  /** Takes the next event of a trace. */
  note(event: TraceEvent): void {
    if (event.type === "mark") return;
    if (event.type === "kv") {
      this.#pending.push(event);
      if (event.sync) this.#settle((pending) => pending.type === "kv");
    } else if (event.type === "sync") {
      const { file } = event;
      this.#settle((pending) => isOfContent(pending) && pending.file === file);
    } else if (event.type === "syncFolder") {
      const { folder } = event;
      this.#settle((pending) => isOfNames(pending) && folderOf(pending.path) === folder);
    } else this.#pending.push(event);
  }

  /** What may arrive or not, each by itself: sectors of writes, changes of names, batches. */
  get unitCount(): number {
    return this.#pending.reduce((sum, event) => sum + unitsOf(event), 0);
  }

  /** Units of each event on its way, in order. */
  get unitsByEvent(): number[] {
    return this.#pending.map(unitsOf);
  }

  /**
   * The power goes: of what was on its way, those units arrive. A sector that was written several
   * times since the last flush can be left in each of its versions: that of the last write to it
   * that arrives. Batches of the key-value store arrive in order or not at all.
   */
  cut(arrives: (unit: number) => boolean): DiskImage {
    const image = this.#share();
    let unit = 0;
    let kvGoesOn = true;
    for (const event of this.#pending) {
      if (event.type === "write") unit = image.#applySectors(event, unit, arrives);
      else if (event.type === "kv") {
        kvGoesOn &&= arrives(unit++);
        if (kvGoesOn) image.#apply(event);
      } else if (arrives(unit++)) image.#apply(event);
    }
    return image;
  }

  #share(): DiskImage {
    const image = new DiskImage();
    for (const [path, file] of this.names) image.names.set(path, file);
    for (const [file, bytes] of this.contents) image.contents.set(file, bytes);
    for (const [key, value] of this.kv) image.kv.set(key, value);
    return image;
  }

  #settle(wanted: (event: TraceEvent) => boolean): void {
    const kept: TraceEvent[] = [];
    for (const event of this.#pending) {
      if (wanted(event)) this.#apply(event);
      else kept.push(event);
    }
    this.#pending = kept;
  }

  #applySectors(
    event: TraceEvent & { type: "write" },
    firstUnit: number,
    arrives: (unit: number) => boolean,
  ): number {
    let unit = firstUnit;
    let after: Buffer | null = null;
    for (let at = 0; at < event.bytes.length; at += sectorBytes) {
      if (!arrives(unit++)) continue;
      const sector = event.bytes.subarray(at, at + sectorBytes);
      const before = after ?? Buffer.from(this.#content(event.file));
      after = written(before, event.offsetBytes + at, sector);
    }
    if (after !== null) this.contents.set(event.file, after);
    return unit;
  }

  #content(file: number): Buffer {
    return this.contents.get(file) ?? Buffer.alloc(0);
  }

  #apply(event: TraceEvent): void {
    switch (event.type) {
      case "kv":
        applyBatch(this.kv, event.batch);
        return;
      case "create":
      case "rename":
      case "remove":
        applyName(this.names, event);
        return;
      case "truncate":
        this.contents.set(event.file, resized(this.#content(event.file), event.sizeBytes));
        return;
      case "write": {
        const before = Buffer.from(this.#content(event.file));
        this.contents.set(event.file, written(before, event.offsetBytes, event.bytes));
      }
    }
  }
}

function unitsOf(event: TraceEvent): number {
  return event.type === "write" ? Math.ceil(event.bytes.length / sectorBytes) : 1;
}

type ContentEvent = TraceEvent & { type: "write" | "truncate" };
type NameEvent = TraceEvent & { type: "create" | "rename" | "remove" };

function isOfContent(event: TraceEvent): event is ContentEvent {
  return event.type === "write" || event.type === "truncate";
}

function isOfNames(event: TraceEvent): event is NameEvent {
  return event.type === "create" || event.type === "rename" || event.type === "remove";
}

function applyName(names: Map<string, number>, event: NameEvent): void {
  const { path, file } = event;
  if (event.type === "remove") {
    if (names.get(path) === file) names.delete(path);
    return;
  }
  names.set(path, file);
  if (event.type === "rename" && names.get(event.from) === file) names.delete(event.from);
}

function applyBatch(store: Map<string, Buffer>, batch: readonly KvChange[]): void {
  for (const { key, value } of batch) {
    if (value === null) store.delete(key.toString("latin1"));
    else store.set(key.toString("latin1"), value);
  }
}

function filesOf(names: Map<string, number>, contents: Map<number, Buffer>): Map<string, Buffer> {
  const found = [...names].map(([path, file]) => [path, contents.get(file) ?? Buffer.alloc(0)]);
  return new Map(found as [string, Buffer][]);
}

/** `before` is changed, or a longer copy of it. */
function written(before: Buffer, offsetBytes: number, bytes: Buffer): Buffer {
  const end = offsetBytes + bytes.length;
  const after = end > before.length ? resized(before, end) : before;
  bytes.copy(after, offsetBytes);
  return after;
}

function resized(before: Buffer, sizeBytes: number): Buffer {
  const after = Buffer.alloc(sizeBytes);
  before.copy(after);
  return after;
}

function folderOf(path: string): string {
  const at = path.lastIndexOf("/");
  return at < 0 ? "" : path.slice(0, at);
}

/** A crash asked for by the brick itself. */
export class BrickCrash extends Error {
  override readonly name = "BrickCrash";
}

/** A brick's machine for tests. What it sees is its own page cache; `trace` tells the rest. */
export class TraceHost implements Host {
  readonly trace: TraceEvent[] = [];
  readonly prng = new Prng(1);
  readonly lines: string[] = [];
  crashed: unknown = null;
  freeBytes = Number.MAX_SAFE_INTEGER;
  /** Fails the next matching disk call with this code. */
  fail: ((kind: string, path: string) => string | null) | null = null;
  readonly #kv: Map<string, Buffer>;
  readonly #names: Map<string, number>;
  readonly #contents: Map<number, Buffer>;
  #fileNext: number;
  /** Counts the processes that this machine has run; what an older one still does is not done. */
  #process = 0;
  #operationsLeft = Number.POSITIVE_INFINITY;
  #killBefore: "write" | "sync" = "write";
  #onKilled: () => void = () => {};
  readonly #timers: { action: () => void }[] = [];

  constructor(image: DiskImage = new DiskImage()) {
    this.#names = new Map(image.names);
    this.#contents = new Map(image.contents);
    this.#fileNext = Math.max(0, ...image.contents.keys(), ...image.names.values()) + 1;
    this.#kv = new Map(image.kv);
  }

  /** What the page cache has, by name. */
  get files(): Map<string, Buffer> {
    return filesOf(this.#names, this.#contents);
  }

  readonly clock = {
    nowMs: () => 0,
    wallMs: () => 0,
    after: (_delayMs: number, action: () => void) => {
      const timer = { action };
      this.#timers.push(timer);
      return { cancel: () => void this.#timers.splice(this.#timers.indexOf(timer), 1) };
    },
    soon: (action: () => void) => {
      const process = this.#process;
      setImmediate(() => {
        if (process === this.#process) action();
      });
    },
  };

  readonly network = {
    send: () => {},
    onMessage: () => {},
    setPeers: () => {},
  };

  /** Ends the process: nothing of it happens any more, and all that it wrote is still there. */
  kill(): void {
    this.#process += 1;
    this.#operationsLeft = Number.POSITIVE_INFINITY;
    this.#timers.length = 0;
  }

  /** Resolves once the process was killed: right before such a call, after so many operations. */
  killAfter(operations: number, before: "write" | "sync"): Promise<void> {
    this.#operationsLeft = operations;
    this.#killBefore = before;
    return new Promise((resolve) => {
      this.#onKilled = resolve;
    });
  }

  /** Runs an operation of the process; never ends when that process has. */
  #operation<T>(process: number, call: "write" | "sync", action: () => T): Promise<T> {
    const isDue = this.#operationsLeft <= 0 && call === this.#killBefore;
    if (process === this.#process && isDue) {
      this.kill();
      this.#onKilled();
    }
    if (process !== this.#process) return new Promise(() => {});
    this.#operationsLeft -= 1;
    return (async () => action())();
  }

  fireTimers(): void {
    for (const { action } of this.#timers.splice(0)) action();
  }

  log(line: string): void {
    this.lines.push(line);
  }

  crash(reason: unknown): never {
    this.crashed ??= reason;
    throw new BrickCrash(String(reason));
  }

  mark(mark: unknown): void {
    this.trace.push({ type: "mark", mark });
  }

  readonly disk: Disk = {
    open: async (path, options) => {
      this.#check("open", path);
      let file = this.#names.get(path);
      if (file === undefined) {
        if (!options?.create) throw new DiskError("ENOENT", path);
        file = this.#fileNext++;
        this.#contents.set(file, Buffer.alloc(0));
        this.#rename({ type: "create", path, file });
      }
      return this.#file(path, file);
    },
    list: async (folder) => {
      const names = [...this.#names.keys()].filter((path) => folderOf(path) === folder);
      return names.map((path) => path.slice(folder.length + 1)).sort();
    },
    remove: async (path) => {
      this.#check("remove", path);
      this.#rename({ type: "remove", path, file: this.#named(path) });
    },
    rename: async (from, path) => {
      this.#check("rename", from);
      this.#rename({ type: "rename", from, path, file: this.#named(from) });
    },
    syncFolder: async (folder) => void this.trace.push({ type: "syncFolder", folder }),
    freeBytes: async () => this.freeBytes,
    openKv: async () => {
      this.#check("openKv", "index");
      return this.#openKv();
    },
  };

  #named(path: string): number {
    const file = this.#names.get(path);
    if (file === undefined) throw new DiskError("ENOENT", path);
    return file;
  }

  #rename(event: NameEvent): void {
    this.trace.push(event);
    applyName(this.#names, event);
  }

  #check(kind: string, path: string): void {
    const code = this.fail?.(kind, path) ?? null;
    if (code !== null) throw new DiskError(code, `${kind} ${path}`);
  }

  #file(path: string, file: number): DiskFile {
    const bytes = () => this.#contents.get(file) ?? Buffer.alloc(0);
    const process = this.#process;
    const operation = <T>(call: "write" | "sync", action: () => T) =>
      this.#operation(process, call, action);
    return {
      read: async (offsetBytes, lengthBytes) => {
        this.#check("read", path);
        return Buffer.from(bytes().subarray(offsetBytes, offsetBytes + lengthBytes));
      },
      write: (offsetBytes, buffers) =>
        operation("write", () => {
          this.#check("write", path);
          const all = Buffer.concat(buffers);
          this.trace.push({ type: "write", path, file, offsetBytes, bytes: all });
          this.#contents.set(file, written(Buffer.from(bytes()), offsetBytes, all));
        }),
      sync: () =>
        operation("sync", () => {
          this.#check("sync", path);
          this.trace.push({ type: "sync", path, file });
        }),
      sizeBytes: async () => bytes().length,
      truncate: async (sizeBytes) => {
        this.trace.push({ type: "truncate", path, file, sizeBytes });
        this.#contents.set(file, resized(bytes(), sizeBytes));
      },
      close: async () => {},
    };
  }

  #openKv(): Kv {
    const store = this.#kv;
    const get = (key: Buffer) => store.get(key.toString("latin1"));
    let failed = false;
    let writing = false;
    // The batch is kept: its buffers must not change under it.
    const copyOf = (batch: readonly KvChange[]) => [...decodeBatch(encodeBatch(batch))];
    const write = (batch: readonly KvChange[], sync: boolean) => {
      if (failed) throw new DiskError("ENOSPC", "an earlier batch found no space");
      const code = this.fail?.("kv", "index") ?? null;
      failed = code === "ENOSPC";
      if (code !== null) throw new DiskError(code, "kv index");
      this.trace.push({ type: "kv", batch, sync });
      applyBatch(store, batch);
    };
    return {
      get,
      getMany: (keys) => keys.map(get),
      write: (batch, { sync }) => {
        assert(!writing, "a batch is being written");
        write(copyOf(batch), sync);
      },
      writeLater: (batch, done) => {
        assert(!writing, "a batch is being written");
        writing = true;
        const copies = copyOf(batch);
        this.clock.soon(() => {
          let failure: Error | null = null;
          try {
            write(copies, true);
          } catch (error) {
            failure = error as Error;
          }
          this.clock.soon(() => {
            writing = false;
            done(failure);
          });
        });
      },
      range: (start, end, limit) => {
        const [from, to] = [start.toString("latin1"), end.toString("latin1")];
        const keys = [...store.keys()].filter((key) => key >= from && key < to).sort();
        return keys.slice(0, limit).map((key) => [Buffer.from(key, "latin1"), store.get(key)!]);
      },
      hasFailed: () => failed,
      unflushedBytes: () => 0,
      reopen: () => {
        assert(!writing, "a batch is being written");
        this.#check("openKv", "index");
        failed = false;
      },
      close: async () => assert(!writing, "a batch is being written"),
    };
  }
}
