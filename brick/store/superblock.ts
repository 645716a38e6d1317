import { assert } from "../assert.ts";
import { crc32 } from "../crc32.ts";
import { type Disk, DiskError, type DiskFile } from "../host.ts";
import { readUint64, writeUint64 } from "../log/uint64.ts";

/**
 * What a brick is. Two copies, each in a file of one page, written and synced one after the other,
 * the older or broken one first, so that one of them is whole at any instant.
 *
 * Superblock, version 1, big-endian, 512 bytes (one sector: it cannot tear), then zeros to 4096:
 *
 *   at  field
 *    0  magic[4] = "ENDs"
 *    4  version[1] = 1
 *    5  flags[1]             1: the log's tail was cut; 2: records were lost in its middle
 *    6  brick number[2]
 *    8  segment size in bytes[4]
 *   12  boot number[4]
 *   16  write count[8]       of the two copies the higher counts
 *   24  cluster id[16]
 *   40  brick uuid[16]
 *   56  recycled segments[8]  so far; the index knows of as many, or more
 *   64  zero[444]
 *  508  CRC-32 of bytes 0 to 507[4]
 */
export interface Superblock {
  clusterId: string;
  brick: number;
  uuid: string;
  boot: number;
  segmentBytes: number;
  /** Kept until the participants have written down what follows from it. */
  cut: boolean;
  damaged: boolean;
  /** Segments recycled so far: an index that knows of fewer has lost its last checkpoints. */
  recycled: number;
}

export const superblockPaths = ["superblock-a", "superblock-b"] as const;

export const superblockVersion = 1;
const superblockBytes = 512;
const superblockFileBytes = 4096;
const superblockMagic = 0x454e4473;
const flagCut = 1;
const flagDamaged = 2;

export function encodeSuperblock(superblock: Superblock, writeCount: number): Buffer {
  const out = Buffer.alloc(superblockFileBytes);
  const { cut, damaged } = superblock;
  let at = out.writeUInt32BE(superblockMagic, 0);
  at = out.writeUInt8(superblockVersion, at);
  at = out.writeUInt8((cut ? flagCut : 0) | (damaged ? flagDamaged : 0), at);
  at = out.writeUInt16BE(superblock.brick, at);
  at = out.writeUInt32BE(superblock.segmentBytes, at);
  at = out.writeUInt32BE(superblock.boot, at);
  at = writeUint64(out, writeCount, at);
  at += Buffer.from(superblock.clusterId, "hex").copy(out, at);
  at += Buffer.from(superblock.uuid, "hex").copy(out, at);
  assert(at === 56, "cluster id and uuid are 32 hex digits each");
  writeUint64(out, superblock.recycled, at);
  at = out.writeUInt32BE(crc32(out.subarray(0, 508)), 508);
  assert(at === superblockBytes);
  return out;
}

export function decodeSuperblock(
  bytes: Buffer,
): { superblock: Superblock; writeCount: number } | null {
  if (versionOf(bytes) !== superblockVersion) return null;
  const flags = bytes[5]!;
  const superblock = {
    clusterId: bytes.toString("hex", 24, 40),
    brick: bytes.readUInt16BE(6),
    uuid: bytes.toString("hex", 40, 56),
    boot: bytes.readUInt32BE(12),
    segmentBytes: bytes.readUInt32BE(8),
    cut: (flags & flagCut) !== 0,
    damaged: (flags & flagDamaged) !== 0,
    recycled: readUint64(bytes, 56),
  };
  return { superblock, writeCount: readUint64(bytes, 16) };
}

/** Of whatever version it is: magic, version and checksum stay where they are. 0: it is none. */
function versionOf(bytes: Buffer): number {
  if (bytes.length < superblockBytes || bytes.readUInt32BE(0) !== superblockMagic) return 0;
  return bytes.readUInt32BE(508) === crc32(bytes.subarray(0, 508)) ? bytes[4]! : 0;
}

/** Both copies on a disk. */
export class SuperblockCopies {
  readonly #disk: Disk;
  /** Write count of each copy; 0 when it is absent or broken. */
  #writeCounts: [number, number] = [0, 0];
  /** Of the copies that were read; above `superblockVersion`: neither must be gone by. */
  newestVersion = 0;
  /** One at a time, so that a copy is never older than what its write count says. */
  #writing: Promise<void> = Promise.resolve();

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  /** The newer whole copy; null when there is none. */
  async read(): Promise<Superblock | null> {
    let newest: Superblock | null = null;
    let newestCount = 0;
    for (const copy of [0, 1] as const) {
      const found = await this.#readCopy(superblockPaths[copy]);
      this.#writeCounts[copy] = found?.writeCount ?? 0;
      if (found === null || found.writeCount <= newestCount) continue;
      newest = found.superblock;
      newestCount = found.writeCount;
    }
    return newest;
  }

  async #readCopy(path: string) {
    let file: DiskFile;
    try {
      file = await this.#disk.open(path);
    } catch (error) {
      if (error instanceof DiskError && error.code === "ENOENT") return null;
      throw error;
    }
    try {
      const bytes = await file.read(0, superblockBytes);
      this.newestVersion = Math.max(this.newestVersion, versionOf(bytes));
      return decodeSuperblock(bytes);
    } catch (error) {
      // A copy that cannot be read is what the other one is for.
      if (error instanceof DiskError && error.code === "EIO") return null;
      throw error;
    } finally {
      await file.close();
    }
  }

  /** Durable in both copies when it resolves, as it is then. */
  write(superblock: Superblock): Promise<void> {
    const written = this.#writing.then(() => this.#write(superblock));
    this.#writing = written.catch(() => {});
    return written;
  }

  async #write(superblock: Superblock): Promise<void> {
    const writeCount = Math.max(...this.#writeCounts) + 1;
    const bytes = encodeSuperblock(superblock, writeCount);
    const olderFirst =
      this.#writeCounts[0] <= this.#writeCounts[1] ? ([0, 1] as const) : ([1, 0] as const);
    for (const copy of olderFirst) {
      const file = await this.#disk.open(superblockPaths[copy], { create: true });
      await file.write(0, [bytes]);
      await file.sync();
      await file.close();
      if (this.#writeCounts[copy] === 0) await this.#disk.syncFolder("");
      this.#writeCounts[copy] = writeCount;
    }
  }
}
