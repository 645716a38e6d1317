import { type Disk, DiskError, type DiskFile } from "../../brick/host.ts";
import type { Prng } from "../../brick/prng.ts";

/** A power cut tears what was not flushed at this granularity. */
const tearBytes = 512;

interface FakeFile {
  /** What a reader sees. */
  content: Buffer;
  /** What a power cut leaves for certain. */
  durable: Buffer;
  unsynced: { offsetBytes: number; bytes: Buffer }[];
}

/**
 * A disk in memory for tests of the store. After `operationsLeft` more operations it has no power:
 * nothing resolves any more, until powerCut has decided what is left and it is mounted anew.
 */
export class FakeDisk {
  names = new Map<string, FakeFile>();
  #durableNames = new Map<string, FakeFile>();
  operationsLeft = Number.POSITIVE_INFINITY;
  operationCount = 0;
  /** No file may be made or grow. */
  isFull = false;
  #mounts = 0;

  /** Unflushed writes and names come through or not, as chance has it. */
  powerCut(prng: Prng): void {
    this.#mounts += 1;
    this.names = prng.chance(0.5) ? new Map(this.names) : new Map(this.#durableNames);
    for (const file of this.names.values()) {
      for (const { offsetBytes, bytes } of file.unsynced) {
        for (let at = 0; at < bytes.length; ) {
          const end = Math.min(bytes.length, at + tearBytes - ((offsetBytes + at) % tearBytes));
          if (prng.chance(0.5)) {
            file.durable = patch(file.durable, offsetBytes + at, bytes.subarray(at, end));
          }
          at = end;
        }
      }
      file.unsynced = [];
      file.content = Buffer.from(file.durable);
    }
    this.#durableNames = new Map(this.names);
    this.operationsLeft = Number.POSITIVE_INFINITY;
  }

  copy(): FakeDisk {
    const other = new FakeDisk();
    for (const [name, { content }] of this.names) {
      const [now, durable] = [Buffer.from(content), Buffer.from(content)];
      other.names.set(name, { content: now, durable, unsynced: [] });
    }
    other.#durableNames = new Map(other.names);
    return other;
  }

  /** As one process sees it; after a power cut that process does nothing more. */
  mount(): Disk {
    this.#mounts += 1;
    const mount = this.#mounts;
    const operation = async <T>(action: () => T): Promise<T> => {
      await Promise.resolve();
      if (mount !== this.#mounts || this.operationsLeft <= 0) await new Promise(() => {});
      this.operationsLeft -= 1;
      this.operationCount += 1;
      return action();
    };
    return {
      open: (path, options) =>
        operation(() => {
          const isFull = () => this.isFull;
          return handleOf(this.#open(path, options?.create ?? false), operation, isFull);
        }),
      list: (folder) => operation(() => this.#list(`${folder}/`)),
      remove: (path) =>
        operation(() => {
          this.names.delete(path);
        }),
      rename: (from, to) =>
        operation(() => {
          this.names.set(to, this.names.get(from)!);
          this.names.delete(from);
        }),
      syncFolder: () =>
        operation(() => {
          this.#durableNames = new Map(this.names);
        }),
      freeBytes: () => operation(() => 2 ** 40),
      openKv: () => {
        throw new DiskError("ENOSYS", "no key-value store here");
      },
    };
  }

  #open(path: string, create: boolean): FakeFile {
    let file = this.names.get(path);
    if (file === undefined) {
      if (!create) throw new DiskError("ENOENT", path);
      if (this.isFull) throw new DiskError("ENOSPC", path);
      file = { content: Buffer.alloc(0), durable: Buffer.alloc(0), unsynced: [] };
      this.names.set(path, file);
    }
    return file;
  }

  #list(prefix: string): string[] {
    const names = [...this.names.keys()].filter((name) => name.startsWith(prefix));
    return names.map((name) => name.slice(prefix.length)).sort();
  }
}

function handleOf(
  file: FakeFile,
  operation: <T>(action: () => T) => Promise<T>,
  isFull: () => boolean,
): DiskFile {
  return {
    read: (offsetBytes, lengthBytes) =>
      operation(() => Buffer.from(file.content.subarray(offsetBytes, offsetBytes + lengthBytes))),
    write: (offsetBytes, buffers) =>
      operation(() => {
        const bytes = Buffer.concat(buffers);
        if (isFull() && offsetBytes + bytes.length > file.content.length) {
          throw new DiskError("ENOSPC", "the disk is full");
        }
        file.content = patch(file.content, offsetBytes, bytes);
        file.unsynced.push({ offsetBytes, bytes });
      }),
    sync: () =>
      operation(() => {
        file.durable = Buffer.from(file.content);
        file.unsynced = [];
      }),
    sizeBytes: () => operation(() => file.content.length),
    truncate: (sizeBytes) =>
      operation(() => {
        file.content = Buffer.from(file.content.subarray(0, sizeBytes));
        file.durable = Buffer.from(file.content);
        file.unsynced = [];
      }),
    close: () => operation(() => {}),
  };
}

function patch(bytes: Buffer, offsetBytes: number, change: Buffer): Buffer {
  const out = Buffer.alloc(Math.max(bytes.length, offsetBytes + change.length));
  bytes.copy(out);
  change.copy(out, offsetBytes);
  return out;
}
