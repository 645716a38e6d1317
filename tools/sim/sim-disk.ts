import { assert } from "../../brick/assert.ts";
import { type Disk, DiskError, type DiskFile, type Kv } from "../../brick/host.ts";
import type { Prng } from "../../brick/prng.ts";
import { TiB } from "../../brick/units.ts";
import { type EventOwner, eventKind, type Guard, type SimClock } from "./sim-clock.ts";
import { SimFile } from "./sim-file.ts";
import { openSimKv, SimKvStore } from "./sim-kv.ts";

/** What a disk call is, for the trace hash. */
const operation = {
  open: 1,
  list: 2,
  remove: 3,
  rename: 4,
  syncFolder: 5,
  freeBytes: 6,
  openKv: 7,
  read: 8,
  write: 9,
  sync: 10,
  size: 11,
  truncate: 12,
  close: 13,
  writeKv: 14,
};

/** Reads that are not to be had on the spot: both ways are taken. */
const readsNotNowChance = 1 / 2;

/** How one machine's disk behaves; every dial may be turned at any time. */
export interface DiskDials {
  readMs: readonly [number, number];
  writeMs: readonly [number, number];
  syncMs: readonly [number, number];
  /** Reads, writes and flushes take turns at this rate, besides their latency. */
  bytesPerSecond: number;
  /** Multiplies every latency. */
  slowness: number;
  capacityBytes: number;
  readErrorChance: number;
  writeErrorChance: number;
  syncErrorChance: number;
  /** Chance that a read finds one bit of what it reads flipped, for good. */
  flipChance: number;
  /** Chance that a synced or unsynced key-value batch fails to be written. */
  kvErrorChance: number;
  kvReadErrorChance: number;
}

export function healthyDisk(): DiskDials {
  return {
    readMs: [0.02, 0.2],
    writeMs: [0.02, 0.1],
    syncMs: [0.2, 1.5],
    bytesPerSecond: Number.POSITIVE_INFINITY,
    slowness: 1,
    capacityBytes: 1 * TiB,
    readErrorChance: 0,
    writeErrorChance: 0,
    syncErrorChance: 0,
    flipChance: 0,
    kvErrorChance: 0,
    kvReadErrorChance: 0,
  };
}

/** A change of names that is not durable until its folder is synced. */
interface NameChange {
  folder: string;
  apply: (names: Map<string, SimFile>) => void;
}

interface WriteUnderWay {
  path: string;
  file: SimFile;
  offsetBytes: number;
  buffers: readonly Buffer[];
}

/** Where a write lands that the disk says is done: nowhere, or at another place of its file. */
export type Straying = { atBytes: number | null };

export type FileCall = "open" | "read" | "write" | "sync";

/** One machine's medium; it outlives boots. */
export class SimDiskStore {
  /** For tests: calls that it gives a code for fail with it; of the key-value store, a write without space. */
  fault:
    | ((call: FileCall, path: string, range: { from: number; to: number }) => string | null)
    | null = null;
  readonly dials: DiskDials = healthyDisk();
  /** Asked of every write that succeeds; null: it lands where it should. */
  stray: ((path: string, file: SimFile, lengthBytes: number) => Straying | null) | null = null;
  /** Flushes that have failed so far. */
  syncFailures = 0;
  readonly #prng: Prng;
  #names = new Map<string, SimFile>();
  #durableNames = new Map<string, SimFile>();
  #nameChanges: NameChange[] = [];
  readonly #kvs = new Map<string, SimKvStore>();
  readonly #underWay = new Set<WriteUnderWay>();
  /** All that was asked of the medium so far has passed through it then. */
  #mediumFreeMs = 0;

  constructor(prng: Prng) {
    this.#prng = prng;
  }

  /** For tests that damage files on purpose. */
  file(path: string): SimFile | undefined {
    return this.#names.get(path);
  }

  /** For tests that look at or lose a key-value store. */
  kv(folder: string): SimKvStore | undefined {
    return this.#kvs.get(folder);
  }

  /** For tests: the key-value store is not there any more. */
  loseKv(folder: string): void {
    this.#kvs.delete(folder);
  }

  keepKv(folder: string, kv: SimKvStore): void {
    this.#kvs.set(folder, kv);
  }

  paths(): string[] {
    return [...this.#names.keys()].sort();
  }

  usedBytes(): number {
    let used = 0;
    for (const file of new Set([...this.#names.values(), ...this.#durableNames.values()])) {
      used += file.allocatedBytes;
    }
    return used;
  }

  /** For tests: all that is there now; called later, it is there again, as from a backup. */
  image(): () => void {
    const files = [...this.#names].map(([path, file]) => ({
      path,
      bytes: file.read(0, file.sizeBytes),
    }));
    const kvs = [...this.#kvs].map(([folder, kv]) => ({ folder, copy: kv.copy() }));
    return () => {
      this.wipe();
      for (const { path, bytes } of files) {
        const file = new SimFile();
        file.write(0, [bytes]);
        file.endSync(file.beginSync());
        this.#names.set(path, file);
      }
      this.#durableNames = new Map(this.#names);
      for (const { folder, copy } of kvs) this.#kvs.set(folder, copy);
    };
  }

  /** Everything gone, as when a machine comes back with a new disk. */
  wipe(): void {
    this.#names.clear();
    this.#durableNames.clear();
    this.#nameChanges = [];
    this.#kvs.clear();
    this.#underWay.clear();
  }

  /** The medium after a power cut: what was synced, and chance's share of the rest. */
  crash(): void {
    const prng = this.#prng;
    for (const { file, offsetBytes, buffers } of this.#underWay) file.write(offsetBytes, buffers);
    this.#underWay.clear();
    const files = new Set([...this.#names.values(), ...this.#durableNames.values()]);
    for (const file of files) file.crash(prng);
    // Each folder's changes of names reach the medium in order: some first ones did.
    const kept = new Map<string, number>();
    for (const { folder } of this.#nameChanges) kept.set(folder, (kept.get(folder) ?? 0) + 1);
    for (const [folder, count] of kept) kept.set(folder, prng.between(0, count));
    for (const { folder, apply } of this.#nameChanges) {
      const left = kept.get(folder)!;
      if (left > 0) apply(this.#durableNames);
      kept.set(folder, left - 1);
    }
    this.#nameChanges = [];
    this.#names = new Map(this.#durableNames);
    for (const kv of this.#kvs.values()) kv.crash(prng);
  }

  /** The process died and the kernel lives: writes under way land, and nothing is lost. */
  kill(): void {
    for (const { file, offsetBytes, buffers } of this.#underWay) file.write(offsetBytes, buffers);
    this.#underWay.clear();
  }

  /** The disk as one boot sees it. */
  mount(clock: SimClock, owner: EventOwner, guard: Guard): Disk {
    const prng = this.#prng;
    const { dials } = this;
    const delayOf = ([leastMs, mostMs]: readonly [number, number], bytes = 0) =>
      (leastMs + prng.unit() * (mostMs - leastMs)) * dials.slowness +
      this.#turnMs(clock.nowMs, bytes);
    /** Resolves after a while with what `act` says then; never, once the boot is dead. */
    const later = <T>(
      type: number,
      rangeMs: readonly [number, number],
      act: () => T,
      bytes = 0,
    ): Promise<T> => {
      return new Promise((resolve, reject) => {
        clock.schedule(delayOf(rangeMs, bytes), owner, eventKind.disk, type, () => {
          try {
            resolve(act());
          } catch (error) {
            reject(error);
          }
        });
      });
    };
    const handle = (path: string, file: SimFile): DiskFile => {
      let open = true;
      const check = (change?: string) => {
        guard(change && `${change} ${path}`);
        assert(open, `${path} is closed`);
      };
      return {
        read: (offsetBytes, lengthBytes) => {
          check();
          return later(
            operation.read,
            dials.readMs,
            () => {
              this.#failIf("read", path, offsetBytes, lengthBytes);
              return this.#read(file, offsetBytes, lengthBytes);
            },
            lengthBytes,
          );
        },
        readNow: (offsetBytes, lengthBytes) => {
          check();
          if (prng.chance(readsNotNowChance)) return null;
          this.#failIf("read", path, offsetBytes, lengthBytes);
          const bytes = this.#read(file, offsetBytes, lengthBytes);
          return bytes.length === lengthBytes ? bytes : null;
        },
        write: (offsetBytes, buffers) => {
          check("write");
          const write = { path, file, offsetBytes, buffers };
          this.#underWay.add(write);
          return later(
            operation.write,
            dials.writeMs,
            () => {
              if (this.fault !== null) this.#failWrite(path, write);
              this.#write(write);
            },
            bytesOf(buffers),
          );
        },
        sync: () => {
          check("sync");
          const upTo = file.beginSync();
          return later(operation.sync, dials.syncMs, () => {
            const asked = this.fault?.("sync", path, { from: 0, to: 0 }) ?? null;
            if (asked !== null || prng.chance(dials.syncErrorChance)) {
              this.syncFailures += 1;
              file.failSync(upTo);
              throw new DiskError("EIO", `simulated failure to sync ${path}`);
            }
            file.endSync(upTo);
          });
        },
        sizeBytes: () => {
          check();
          return later(operation.size, dials.readMs, () => file.sizeBytes);
        },
        truncate: (sizeBytes) => {
          check("truncate");
          return later(operation.truncate, dials.writeMs, () => file.truncate(sizeBytes));
        },
        close: () => {
          check();
          open = false;
          return later(operation.close, dials.writeMs, () => {});
        },
      };
    };
    return {
      open: async (path, options) => {
        guard(options?.create ? `open ${path}` : undefined);
        checkPath(path);
        const file = await later(operation.open, dials.writeMs, () => {
          this.#failIf("open", path, 0, 0);
          return this.#open(path, options?.create);
        });
        return handle(path, file);
      },
      list: (folder) => {
        guard();
        return later(operation.list, dials.readMs, () => this.#list(folder));
      },
      remove: (path) => {
        guard(`remove ${path}`);
        return later(operation.remove, dials.writeMs, () => this.#remove(path));
      },
      rename: (from, to) => {
        guard(`rename ${to}`);
        checkPath(to);
        return later(operation.rename, dials.writeMs, () => this.#rename(from, to));
      },
      syncFolder: (folder) => {
        guard(`sync folder ${folder}`);
        return later(operation.syncFolder, dials.syncMs, () => this.#syncFolder(folder));
      },
      freeBytes: () => {
        guard();
        return later(operation.freeBytes, dials.readMs, () =>
          Math.max(0, dials.capacityBytes - this.usedBytes()),
        );
      },
      openKv: (folder) => {
        guard();
        checkPath(folder);
        return later(operation.openKv, dials.syncMs, () => {
          const afterWriting = (action: () => void) => {
            clock.schedule(delayOf(dials.syncMs), owner, eventKind.disk, operation.writeKv, action);
          };
          return this.#openKv(folder, guard, afterWriting);
        });
      },
    };
  }

  /** How long until the medium has passed so many bytes more. */
  #turnMs(nowMs: number, bytes: number): number {
    const freeMs = Math.max(nowMs, this.#mediumFreeMs);
    this.#mediumFreeMs = freeMs + (bytes / this.dials.bytesPerSecond) * 1000;
    return this.#mediumFreeMs - nowMs;
  }

  #failIf(call: FileCall, path: string, from: number, lengthBytes: number): void {
    const code = this.fault?.(call, path, { from, to: from + lengthBytes }) ?? null;
    if (code !== null) throw new DiskError(code, `asked-for failure to ${call} ${path}`);
  }

  #failWrite(path: string, write: WriteUnderWay): void {
    const lengthBytes = bytesOf(write.buffers);
    try {
      this.#failIf("write", path, write.offsetBytes, lengthBytes);
    } catch (error) {
      this.#underWay.delete(write);
      throw error;
    }
  }

  #read(file: SimFile, offsetBytes: number, lengthBytes: number): Buffer {
    const prng = this.#prng;
    if (prng.chance(this.dials.readErrorChance))
      throw new DiskError("EIO", "simulated failure to read");
    if (!file.isReadable(offsetBytes, lengthBytes)) {
      throw new DiskError("EIO", "the sector cannot be read");
    }
    const count = Math.min(lengthBytes, file.sizeBytes - offsetBytes);
    if (count > 0 && prng.chance(this.dials.flipChance)) {
      file.flipBit(offsetBytes * 8 + prng.between(0, count * 8 - 1));
    }
    return file.read(offsetBytes, lengthBytes);
  }

  #write(write: WriteUnderWay): void {
    const { file, offsetBytes, buffers } = write;
    const prng = this.#prng;
    this.#underWay.delete(write);
    if (prng.chance(this.dials.writeErrorChance)) {
      // Any part of a failed write may have landed.
      file.write(offsetBytes, buffers.slice(0, prng.between(0, buffers.length)));
      throw new DiskError("EIO", "simulated failure to write");
    }
    const lengthBytes = bytesOf(buffers);
    const missing = file.missingBytes(offsetBytes, lengthBytes);
    if (missing > 0 && !this.#hasRoom(missing)) {
      throw new DiskError("ENOSPC", "the simulated disk is full");
    }
    const straying = this.stray?.(write.path, file, lengthBytes) ?? null;
    if (straying === null) file.write(offsetBytes, buffers);
    else {
      file.loseWrite(offsetBytes, lengthBytes);
      if (straying.atBytes !== null) file.write(straying.atBytes, buffers);
    }
  }

  #open(path: string, create = false): SimFile {
    const known = this.#names.get(path);
    if (known !== undefined) return known;
    if (!create) throw new DiskError("ENOENT", `there is no ${path}`);
    if (!this.#hasRoom(1)) throw new DiskError("ENOSPC", `no space for the name ${path}`);
    const file = new SimFile();
    this.#changeNames(folderOf(path), (names) => names.set(path, file));
    return file;
  }

  #hasRoom(bytes: number): boolean {
    return this.usedBytes() + bytes <= this.dials.capacityBytes;
  }

  #list(folder: string): string[] {
    const prefix = folder === "" || folder === "." ? "" : `${folder}/`;
    const found = new Set<string>();
    for (const path of [...this.#names.keys(), ...this.#kvs.keys()]) {
      if (path.startsWith(prefix)) found.add(path.slice(prefix.length).split("/")[0]!);
    }
    return [...found].sort();
  }

  #remove(path: string): void {
    if (!this.#names.has(path)) throw new DiskError("ENOENT", `there is no ${path}`);
    this.#changeNames(folderOf(path), (names) => names.delete(path));
  }

  #rename(from: string, to: string): void {
    const file = this.#names.get(from);
    if (file === undefined) throw new DiskError("ENOENT", `there is no ${from}`);
    if (from === to) return;
    this.#changeNames(folderOf(to), (names) => {
      names.set(to, file);
      if (names.get(from) === file) names.delete(from);
    });
  }

  #changeNames(folder: string, apply: NameChange["apply"]): void {
    apply(this.#names);
    this.#nameChanges.push({ folder, apply });
  }

  #syncFolder(folder: string): void {
    if (this.#prng.chance(this.dials.syncErrorChance)) {
      throw new DiskError("EIO", `simulated failure to sync the folder ${folder}`);
    }
    const synced = folder === "." ? "" : folder;
    this.#nameChanges = this.#nameChanges.filter((change) => {
      if (change.folder !== synced) return true;
      change.apply(this.#durableNames);
      return false;
    });
  }

  #openKv(folder: string, guard: Guard, later: (action: () => void) => void): Kv {
    let store = this.#kvs.get(folder);
    if (store === undefined) this.#kvs.set(folder, (store = new SimKvStore()));
    const hasRoom = () => {
      const asked = this.fault?.("write", folder, { from: 0, to: 0 });
      return this.#hasRoom(1) && asked !== "ENOSPC";
    };
    return openSimKv(store, { dials: this.dials, prng: this.#prng, guard, hasRoom, later });
  }
}

function bytesOf(buffers: readonly Buffer[]): number {
  return buffers.reduce((sum, buffer) => sum + buffer.length, 0);
}

function folderOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "" : path.slice(0, slash);
}

function checkPath(path: string): void {
  assert(
    path !== "" && !path.startsWith("/") && !path.split("/").includes(".."),
    `bad path ${path}`,
  );
}
