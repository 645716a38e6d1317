import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { assert } from "./assert.ts";
import { BlockingPace } from "./blocking-pace.ts";
import {
  type Clock,
  type Disk,
  DiskError,
  type DiskFile,
  type Host,
  type Network,
} from "./host.ts";
import { type KvMemory, openRealKv } from "./kv-io.ts";
import { Prng } from "./prng.ts";
import { KiB } from "./units.ts";

/** The real machine behind the seams of host.ts: node:fs, RocksDB, the process's own clock. */

/** How a process ends that must not answer any more. */
export const crashExitCode = 70;
/** Only the owner of the daemon may read user data. */
const folderMode = 0o700;
const fileMode = 0o600;
/** Larger ones are left to a thread in any case. */
const blockingReadBytesMax = 64 * KiB;
const blockingWriteBytesMax = 256 * KiB;

export interface RealHostOptions {
  dataFolder: string;
  network: Network;
  log: (line: string) => void;
  /** Of the key-value store. */
  memory?: KvMemory;
}

export async function openRealHost(options: RealHostOptions): Promise<Host> {
  const { dataFolder, network, log } = options;
  const disk = await openRealDisk(dataFolder, options);
  return {
    clock: realClock,
    disk,
    network,
    prng: new Prng(randomBytes(6).readUIntBE(0, 6)),
    log,
    crash: (reason): never => {
      const text = reason instanceof Error ? (reason.stack ?? reason.message) : String(reason);
      // Straight to the descriptor: nothing asynchronous gets its turn any more.
      fs.writeSync(2, `brick stops: ${text}\n`);
      process.exit(crashExitCode);
    },
  };
}

export const realClock: Clock = {
  nowMs: () => performance.now(),
  wallMs: () => Date.now(),
  after: (delayMs, action) => {
    const timer = setTimeout(action, delayMs);
    return { cancel: () => clearTimeout(timer) };
  },
  soon: (action) => {
    setImmediate(action);
  },
};

/** The data directory alone, for what must be read before there is a network. */
export async function openRealDisk(
  dataFolder: string,
  options: { memory?: KvMemory } = {},
): Promise<Disk> {
  const root = path.resolve(dataFolder);
  await makeFolder(root);
  const at = (relative: string) => {
    const full = path.resolve(root, relative);
    assert(full === root || full.startsWith(`${root}${path.sep}`), `${relative} leads outside`);
    return full;
  };
  const paces: Paces = {
    // A read from the page cache takes microseconds, one from a disk a millisecond or ten.
    read: new BlockingPace({ quickMs: 0.05, mayHaveWaited: deviceReads() }),
    write: new BlockingPace({ quickMs: 0.15 }),
  };
  return {
    open: async (relative, { create = false } = {}) => {
      const full = at(relative);
      if (create) await makeFolder(path.dirname(full));
      // Everything that is written is synced at once: O_DSYNC does both in one call.
      const flags = fs.constants.O_RDWR | fs.constants.O_DSYNC;
      const file = create ? flags | fs.constants.O_CREAT : flags;
      const fd = await call<number>((done) => fs.open(full, file, fileMode, done));
      return new RealFile(fd, relative, paces);
    },
    list: async (folder) => {
      try {
        return (await call<string[]>((done) => fs.readdir(at(folder), done))).sort();
      } catch (error) {
        if (error instanceof DiskError && error.code === "ENOENT") return [];
        throw error;
      }
    },
    remove: (relative) => call((done) => fs.unlink(at(relative), done)),
    rename: async (from, to) => {
      await makeFolder(path.dirname(at(to)));
      await call((done) => fs.rename(at(from), at(to), done));
    },
    syncFolder: (folder) => syncFolder(at(folder)),
    freeBytes: async () => {
      const facts = await call<fs.StatsFs>((done) => fs.statfs(root, done));
      return facts.bavail * facts.bsize;
    },
    openKv: async (folder) => {
      await makeFolder(at(folder));
      return openRealKv(at(folder), options.memory);
    },
  };
}

/**
 * Whether this process has read anything from a device since the last call. The system counts that when
 * it counts what is written, too, of which there is always some.
 */
function deviceReads(): () => boolean {
  let before = 0;
  return () => {
    const { fsRead, fsWrite } = process.resourceUsage();
    const none = fsWrite > 0 && fsRead === before;
    before = fsRead;
    return !none;
  };
}

interface Paces {
  readonly read: BlockingPace;
  readonly write: BlockingPace;
}

class RealFile implements DiskFile {
  readonly #fd: number;
  readonly #name: string;
  readonly #paces: Paces;
  #open = true;
  /**
   * What this handle writes is synced with the writing. But whoever wrote before, and died, may have left
   * bytes that are read and not yet on the medium; and a changed length is not written.
   */
  #unsynced = true;

  constructor(fd: number, name: string, paces: Paces) {
    this.#fd = fd;
    this.#name = name;
    this.#paces = paces;
  }

  readNow(offsetBytes: number, lengthBytes: number): Buffer | null {
    this.#check();
    if (lengthBytes > blockingReadBytesMax) return null;
    if (!this.#paces.read.mayBlock(performance.now())) return null;
    const bytes = Buffer.allocUnsafeSlow(lengthBytes);
    try {
      const filled = this.#blocking(this.#paces.read, () =>
        fs.readSync(this.#fd, bytes, 0, lengthBytes, offsetBytes),
      );
      return filled === lengthBytes ? bytes : null;
    } catch (error) {
      throw toDiskError(error as NodeJS.ErrnoException);
    }
  }

  read(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    try {
      const now = this.readNow(offsetBytes, lengthBytes);
      if (now !== null) return Promise.resolve(now);
    } catch (error) {
      return Promise.reject(error);
    }
    const bytes = Buffer.allocUnsafeSlow(lengthBytes);
    let filled = 0;
    return new Promise((resolve, reject) => {
      const more = () => {
        const left = lengthBytes - filled;
        fs.read(this.#fd, bytes, filled, left, offsetBytes + filled, (error, count) => {
          if (error) return reject(toDiskError(error));
          filled += count;
          if (count === 0) resolve(bytes.subarray(0, filled));
          else if (filled === lengthBytes) resolve(bytes);
          else more();
        });
      };
      if (lengthBytes === 0) resolve(bytes);
      else more();
    });
  }

  write(offsetBytes: number, buffers: readonly Buffer[]): Promise<void> {
    this.#check();
    let left: readonly Buffer[] = buffers.filter((buffer) => buffer.length > 0);
    let at = offsetBytes;
    let lengthBytes = 0;
    for (const buffer of left) lengthBytes += buffer.length;
    if (lengthBytes <= blockingWriteBytesMax && this.#paces.write.mayBlock(performance.now())) {
      try {
        const count = this.#blocking(this.#paces.write, () =>
          left.length === 0 ? 0 : fs.writevSync(this.#fd, left as Buffer[], at),
        );
        left = without(left, count);
        at += count;
      } catch (error) {
        return Promise.reject(toDiskError(error as NodeJS.ErrnoException));
      }
      if (left.length === 0) return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const more = () => {
        if (left.length === 0) return resolve();
        fs.writev(this.#fd, left as Buffer[], at, (error, count) => {
          if (error) return reject(toDiskError(error));
          left = without(left, count);
          at += count;
          more();
        });
      };
      more();
    });
  }

  sync(): Promise<void> {
    this.#check();
    if (!this.#unsynced) return Promise.resolve();
    this.#unsynced = false;
    return call((done) => fs.fdatasync(this.#fd, done));
  }

  #blocking(pace: BlockingPace, act: () => number): number {
    const startMs = performance.now();
    const count = act();
    pace.took(performance.now() - startMs);
    return count;
  }

  async sizeBytes(): Promise<number> {
    this.#check();
    return (await call<fs.Stats>((done) => fs.fstat(this.#fd, done))).size;
  }

  truncate(sizeBytes: number): Promise<void> {
    this.#check();
    this.#unsynced = true;
    return call((done) => fs.ftruncate(this.#fd, sizeBytes, done));
  }

  close(): Promise<void> {
    this.#check();
    this.#open = false;
    return call((done) => fs.close(this.#fd, done));
  }

  /** A number of a closed file may belong to another file by now. */
  #check(): void {
    assert(this.#open, `${this.#name} is closed`);
  }
}

/** What is left of the buffers when the first `count` bytes have been written. */
function without(buffers: readonly Buffer[], count: number): readonly Buffer[] {
  let left = count;
  for (const [at, buffer] of buffers.entries()) {
    if (left < buffer.length) return [buffer.subarray(left), ...buffers.slice(at + 1)];
    left -= buffer.length;
  }
  return [];
}

/** Makes the folder and those above it, durably: a lost folder loses every file in it. */
async function makeFolder(folder: string): Promise<void> {
  const options = { recursive: true, mode: folderMode } as const;
  const first = await call<string | undefined>((done) => fs.mkdir(folder, options, done));
  if (first === undefined) return;
  for (let made = folder; ; made = path.dirname(made)) {
    await syncFolder(path.dirname(made));
    if (made === first || made === path.dirname(made)) return;
  }
}

async function syncFolder(folder: string): Promise<void> {
  const fd = await call<number>((done) => fs.open(folder, "r", done));
  try {
    await call((done) => fs.fsync(fd, done));
  } finally {
    await call((done) => fs.close(fd, done));
  }
}

type Done<T> = (error: NodeJS.ErrnoException | null, value: T) => void;

function call<T = void>(act: (done: Done<T>) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    act((error, value) => (error ? reject(toDiskError(error)) : resolve(value)));
  });
}

function toDiskError(error: NodeJS.ErrnoException): DiskError {
  return new DiskError(error.code ?? "EIO", error.message);
}
