import { type Disk, DiskError, type DiskFile, type Host, type Kv, type KvChange } from "../host.ts";
import { Prng } from "../prng.ts";

/**
 * Test support: a disk in memory that writes down everything done to it, so that a test can make
 * every state that a power cut could have left, and open each.
 */

export type TraceEvent =
  | { type: "create"; path: string }
  | { type: "write"; path: string; offsetBytes: number; bytes: Buffer }
  | { type: "truncate"; path: string; sizeBytes: number }
  | { type: "sync"; path: string }
  | { type: "syncFolder"; folder: string }
  | { type: "kv"; batch: readonly KvChange[]; sync: boolean }
  /** Not of the disk: the test's own remark at this moment. */
  | { type: "mark"; mark: unknown };

const sectorBytes = 512;

/** What is on the medium, and what is only on its way to it. */
export class DiskImage {
  readonly files = new Map<string, Buffer>();
  readonly kv = new Map<string, Buffer>();
  #pending: TraceEvent[] = [];

  get pendingCount(): number {
    return this.#pending.length;
  }

  copy(): DiskImage {
    const image = new DiskImage();
    for (const [path, bytes] of this.files) image.files.set(path, Buffer.from(bytes));
    for (const [key, value] of this.kv) image.kv.set(key, value);
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
      const { path } = event;
      this.#settle(
        (pending) => "path" in pending && pending.path === path && pending.type !== "create",
      );
    } else if (event.type === "syncFolder") {
      const { folder } = event;
      this.#settle((pending) => pending.type === "create" && folderOf(pending.path) === folder);
    } else this.#pending.push(event);
  }

  /** The power goes: of what was on its way, `chance` of the sectors arrive. */
  cut(prng: Prng, chance: number): DiskImage {
    const image = this.copy();
    const pending = image.#pending;
    image.#pending = [];
    const lost = new Set<string>();
    let kvGoesOn = true;
    for (const event of pending) {
      if (event.type === "create") {
        if (prng.chance(chance) || chance === 1) image.#apply(event);
        else lost.add(event.path);
      } else if (event.type === "kv") {
        kvGoesOn &&= prng.chance(chance);
        if (kvGoesOn) image.#apply(event);
      } else if (event.type === "write") {
        for (let at = 0; at < event.bytes.length; at += sectorBytes) {
          if (!prng.chance(chance)) continue;
          const bytes = event.bytes.subarray(at, at + sectorBytes);
          image.#apply({ ...event, offsetBytes: event.offsetBytes + at, bytes });
        }
      } else if (prng.chance(chance)) image.#apply(event);
    }
    for (const path of lost) image.files.delete(path);
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

  #apply(event: TraceEvent): void {
    if (event.type === "kv") {
      for (const { key, value } of event.batch) {
        const name = key.toString("latin1");
        if (value === null) this.kv.delete(name);
        else this.kv.set(name, value);
      }
      return;
    }
    if (event.type !== "create" && event.type !== "write" && event.type !== "truncate") return;
    const bytes = this.files.get(event.path) ?? Buffer.alloc(0);
    if (event.type === "create") this.files.set(event.path, bytes);
    else if (event.type === "truncate") {
      const resized = Buffer.alloc(event.sizeBytes);
      bytes.copy(resized);
      this.files.set(event.path, resized);
    } else this.files.set(event.path, written(bytes, event.offsetBytes, event.bytes));
  }
}

function written(before: Buffer, offsetBytes: number, bytes: Buffer): Buffer {
  const end = offsetBytes + bytes.length;
  const after = end > before.length ? Buffer.alloc(end) : before;
  if (after !== before) before.copy(after);
  bytes.copy(after, offsetBytes);
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
  readonly files = new Map<string, Buffer>();
  readonly prng = new Prng(1);
  readonly lines: string[] = [];
  crashed: unknown = null;
  freeBytes = Number.MAX_SAFE_INTEGER;
  /** Fails the next matching disk call with this code. */
  fail: ((kind: string, path: string) => string | null) | null = null;
  readonly #kv: Map<string, Buffer>;
  readonly #timers: { action: () => void }[] = [];

  constructor(image: DiskImage = new DiskImage()) {
    for (const [path, bytes] of image.files) this.files.set(path, Buffer.from(bytes));
    this.#kv = new Map(image.kv);
  }

  readonly clock = {
    nowMs: () => 0,
    wallMs: () => 0,
    after: (_delayMs: number, action: () => void) => {
      const timer = { action };
      this.#timers.push(timer);
      return { cancel: () => void this.#timers.splice(this.#timers.indexOf(timer), 1) };
    },
    soon: (action: () => void) => void setImmediate(action),
  };

  readonly network = {
    send: () => {},
    onMessage: () => {},
    setPeers: () => {},
  };

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
      if (!this.files.has(path)) {
        if (!options?.create) throw new DiskError("ENOENT", path);
        this.files.set(path, Buffer.alloc(0));
        this.trace.push({ type: "create", path });
      }
      return this.#file(path);
    },
    list: async (folder) => {
      const names = [...this.files.keys()].filter((path) => folderOf(path) === folder);
      return names.map((path) => path.slice(folder.length + 1)).sort();
    },
    remove: () => Promise.reject(new Error("not traced")),
    rename: () => Promise.reject(new Error("not traced")),
    syncFolder: async (folder) => void this.trace.push({ type: "syncFolder", folder }),
    freeBytes: async () => this.freeBytes,
    openKv: async () => this.#openKv(),
  };

  #check(kind: string, path: string): void {
    const code = this.fail?.(kind, path) ?? null;
    if (code !== null) throw new DiskError(code, `${kind} ${path}`);
  }

  #file(path: string): DiskFile {
    const bytes = () => this.files.get(path)!;
    return {
      read: async (offsetBytes, lengthBytes) => {
        this.#check("read", path);
        return Buffer.from(bytes().subarray(offsetBytes, offsetBytes + lengthBytes));
      },
      write: async (offsetBytes, buffers) => {
        this.#check("write", path);
        const all = Buffer.concat(buffers);
        this.trace.push({ type: "write", path, offsetBytes, bytes: all });
        this.files.set(path, written(bytes(), offsetBytes, all));
      },
      sync: async () => {
        this.#check("sync", path);
        this.trace.push({ type: "sync", path });
      },
      sizeBytes: async () => bytes().length,
      truncate: async (sizeBytes) => {
        this.trace.push({ type: "truncate", path, sizeBytes });
        const resized = Buffer.alloc(sizeBytes);
        bytes().copy(resized);
        this.files.set(path, resized);
      },
      close: async () => {},
    };
  }

  #openKv(): Kv {
    const store = this.#kv;
    const get = (key: Buffer) => store.get(key.toString("latin1"));
    return {
      get,
      getMany: (keys) => keys.map(get),
      write: (batch, { sync }) => {
        this.#check("kv", "index");
        // The batch is kept: its buffers must not change under it.
        const copies = batch.map(({ key, value }) => {
          return { key: Buffer.from(key), value: value && Buffer.from(value) };
        });
        this.trace.push({ type: "kv", batch: copies, sync });
        for (const { key, value } of copies) {
          if (value === null) store.delete(key.toString("latin1"));
          else store.set(key.toString("latin1"), value);
        }
      },
      range: (start, end, limit) => {
        const [from, to] = [start.toString("latin1"), end.toString("latin1")];
        const keys = [...store.keys()].filter((key) => key >= from && key < to).sort();
        return keys.slice(0, limit).map((key) => [Buffer.from(key, "latin1"), store.get(key)!]);
      },
      close: async () => {},
    };
  }
}
