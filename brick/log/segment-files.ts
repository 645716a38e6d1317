import { assert } from "../assert.ts";
import type { Disk, DiskFile } from "../host.ts";

export const logFolder = "log";
/** Segment files kept open. */
export const openFilesMax = 256;

export function segmentPath(segment: number): string {
  return `${logFolder}/segment-${String(segment).padStart(8, "0")}`;
}

/** The number in a segment's file name; null for other names. */
export function segmentOfName(name: string): number | null {
  const match = /^segment-(\d{8,10})$/.exec(name);
  if (match === null) return null;
  const segment = Number(match[1]);
  return segmentPath(segment) === `${logFolder}/${name}` ? segment : null;
}

interface OpenFile {
  file: Promise<DiskFile>;
  /** The same, once it is open. */
  opened: DiskFile | null;
  users: number;
  /** Counts uses of all files: the lowest is the longest ago. */
  usedAt: number;
}

/** The open files of the log: a bounded cache; those in use stay. */
export class SegmentFiles {
  readonly #disk: Disk;
  readonly #open = new Map<number, OpenFile>();
  #uses = 0;

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  /** Runs `action` on the segment's file, which stays open meanwhile. */
  async with<T>(
    segment: number,
    action: (file: DiskFile) => Promise<T>,
    create = false,
  ): Promise<T> {
    const open = this.#take(segment, create);
    open.users += 1;
    try {
      return await action(await open.file);
    } finally {
      open.users -= 1;
    }
  }

  /** As DiskFile.readNow, of a segment's file; null also when that is not open. */
  readNow(segment: number, offsetBytes: number, lengthBytes: number): Buffer | null {
    const known = this.#open.get(segment);
    if (known === undefined || known.opened === null) return null;
    this.#uses += 1;
    known.usedAt = this.#uses;
    return known.opened.readNow?.(offsetBytes, lengthBytes) ?? null;
  }

  #take(segment: number, create: boolean): OpenFile {
    this.#uses += 1;
    const known = this.#open.get(segment);
    if (known !== undefined) {
      known.usedAt = this.#uses;
      return known;
    }
    const file = this.#disk.open(segmentPath(segment), { create });
    const opened: OpenFile = { file, opened: null, users: 0, usedAt: this.#uses };
    file.then(
      (known) => {
        opened.opened = known;
      },
      () => {
        if (this.#open.get(segment) === opened) this.#open.delete(segment);
      },
    );
    this.#open.set(segment, opened);
    if (this.#open.size > openFilesMax) this.#closeOne();
    return opened;
  }

  /** The one that was used the longest ago, of those that are not in use. */
  #closeOne(): void {
    let oldest: [number, OpenFile] | null = null;
    for (const entry of this.#open) {
      const [, { users, usedAt }] = entry;
      if (users > 0 || usedAt === this.#uses) continue;
      if (oldest === null || usedAt < oldest[1].usedAt) oldest = entry;
    }
    if (oldest === null) return;
    const [segment, { file }] = oldest;
    this.#open.delete(segment);
    // Nothing is lost with the handle: what counts has been synced.
    file.then((opened) => opened.close()).catch(() => {});
  }

  async closeAll(): Promise<void> {
    for (const [segment, open] of this.#open) {
      assert(open.users === 0, "a segment file is in use at close");
      this.#open.delete(segment);
      await (await open.file).close();
    }
  }
}
