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
  users: number;
}

/** The open files of the log: a bounded cache; those in use stay. */
export class SegmentFiles {
  readonly #disk: Disk;
  /** Least recently used first. */
  readonly #open = new Map<number, OpenFile>();

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

  #take(segment: number, create: boolean): OpenFile {
    let open = this.#open.get(segment);
    if (open === undefined) {
      const file = this.#disk.open(segmentPath(segment), { create });
      open = { file, users: 0 };
      const opened = open;
      file.catch(() => {
        if (this.#open.get(segment) === opened) this.#open.delete(segment);
      });
    } else {
      this.#open.delete(segment);
    }
    this.#open.set(segment, open);
    if (this.#open.size > openFilesMax) this.#closeOne();
    return open;
  }

  #closeOne(): void {
    for (const [segment, open] of this.#open) {
      if (open.users > 0) continue;
      this.#open.delete(segment);
      // Nothing is lost with the handle: what counts has been synced.
      open.file.then((file) => file.close()).catch(() => {});
      return;
    }
  }

  async closeAll(): Promise<void> {
    for (const [segment, open] of this.#open) {
      assert(open.users === 0, "a segment file is in use at close");
      this.#open.delete(segment);
      await (await open.file).close();
    }
  }
}
