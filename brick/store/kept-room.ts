import { DiskError, type DiskFile, type Host, isNoSpace } from "../host.ts";
import { sizeText } from "../size-text.ts";
import { MiB } from "../units.ts";

/** Zeros, that nobody reads. */
export const keptRoomPath = "room";
const indexFolder = "index";
/** RocksDB's own log: what a start makes a table of. */
const indexLogPattern = /\.log$/;
/** What opening the index takes besides: new lists of its tables and options; 2 MiB were measured. */
const indexStartBytes = 3 * MiB;
/** What else begins anew at a start: a file of Raft's log with its zeros, some zeros of the log. */
const otherStartBytes = 5 * MiB;
/** Kept at most: more than an index has in memory. */
const keptRoomBytesMax = 128 * MiB;
const sliceBytes = 1 * MiB;
/** What was given up at a start is taken back at once, but for this: other files begin anew, too, */
const leftBytes = 2 * MiB;
/** and have done so when it was looked this often. */
const settledLooks = 5;
/** Taken back in one go: other work of the brick comes between. */
const pieceSlicesMax = 8;
/** How soon a file system that has no room to start in is asked again. */
export const startRetryMs = 2000;

const zeros = Buffer.alloc(sliceBytes);

/**
 * Room that others cannot fill: a file that a start in a full file system shortens by what it needs,
 * and that is made longer again afterwards. What it holds means nothing, so a power cut at any moment
 * leaves a file of some length, which is as much room as there is.
 */
export class KeptRoom {
  readonly #host: Host;
  #sizeBytes = 0;
  /** What starts have taken of it and not brought back. */
  #givenBytes = 0;
  #looks = 0;
  /** Of what is owed, more can be taken back at once. */
  #goesOn = false;

  private constructor(host: Host) {
    this.#host = host;
  }

  static async find(host: Host): Promise<KeptRoom> {
    const room = new KeptRoom(host);
    await room.#with(false, async (file) => {
      room.#sizeBytes = await file.sizeBytes();
      // An earlier start may have given it up, and ended before it had it back.
      room.#givenBytes = Math.max(0, indexStartBytes + otherStartBytes - room.#sizeBytes);
    });
    return room;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Resolves once the file system has room to start in, if need be by giving up what is kept. */
  async untilStart(): Promise<void> {
    const { disk } = this.#host;
    for (let isFirst = true; ; isFirst = false) {
      const indexBytes = indexStartBytes + (await this.#indexLogBytes());
      const freeBytes = await disk.freeBytes();
      if (freeBytes + this.#sizeBytes >= indexBytes) {
        await this.#give(indexBytes + otherStartBytes - freeBytes);
        if (!isFirst) this.#host.log("store: there is room to start in");
        return;
      }
      await this.#ask(isFirst, freeBytes, indexBytes);
    }
  }

  /** Opens the index, again and again while there is no room for that after all. */
  async opening<T>(open: () => Promise<T>): Promise<T> {
    for (let isFirst = true; ; isFirst = false) {
      try {
        return await open();
      } catch (error) {
        if (!isNoSpace(error)) throw error;
      }
      const freeBytes = await this.#host.disk.freeBytes();
      const neededBytes = indexStartBytes + (await this.#indexLogBytes());
      await this.#give(this.#sizeBytes);
      // A quota is not seen in free bytes.
      await this.#ask(isFirst, freeBytes, Math.max(neededBytes, freeBytes + 1));
    }
  }

  /**
   * Makes it as long as the next start will need; of what others have not taken above the floor, and
   * of anything what this start had given up. True: that is not done yet, and should go on soon.
   */
  async keep(freeBytes: number, unflushedBytes: number, floorBytes: number): Promise<boolean> {
    const startBytes = indexStartBytes + otherStartBytes + unflushedBytes;
    const wantedBytes = Math.min(startBytes, keptRoomBytesMax);
    if (!this.#goesOn) this.#looks += 1;
    this.#goesOn = false;
    if (this.#sizeBytes >= wantedBytes) return false;
    const isOwed = this.#givenBytes > 0;
    const owedFloorBytes = this.#looks < settledLooks ? leftBytes : 0;
    let left = freeBytes - (isOwed ? owedFloorBytes : floorBytes);
    if (left < sliceBytes) return false;
    const mayGoOn = () =>
      this.#givenBytes > 0 && left >= sliceBytes && this.#sizeBytes < wantedBytes;
    await this.#with(true, async (file) => {
      let slices = 0;
      do {
        await file.write(this.#sizeBytes, [zeros]);
        await file.sync();
        this.#sizeBytes += sliceBytes;
        this.#givenBytes = Math.max(0, this.#givenBytes - sliceBytes);
        left -= sliceBytes;
        slices += 1;
      } while (slices < pieceSlicesMax && mayGoOn());
      this.#goesOn = mayGoOn();
    });
    if (this.#sizeBytes <= sliceBytes) await this.#host.disk.syncFolder("");
    return this.#goesOn;
  }

  async #give(bytes: number): Promise<void> {
    const given = Math.min(bytes, this.#sizeBytes);
    if (given <= 0) return;
    await this.#with(false, async (file) => {
      await file.truncate(this.#sizeBytes - given);
      await file.sync();
    });
    this.#sizeBytes -= given;
    this.#givenBytes += given;
    this.#host.log(`store: the file system is full, ${sizeText(given)} were kept for this start`);
  }

  async #ask(isFirst: boolean, freeBytes: number, neededBytes: number): Promise<void> {
    const { clock } = this.#host;
    const facts = `${sizeText(freeBytes)} are free, ${sizeText(neededBytes)} are needed`;
    const again = `it is asked again every ${startRetryMs / 1000} s`;
    const why = `the file system is full: ${facts}`;
    if (isFirst) this.#host.log(`store: cannot start, ${why}; ${again}`);
    await new Promise<void>((resolve) => clock.after(startRetryMs, resolve));
  }

  async #indexLogBytes(): Promise<number> {
    const { disk } = this.#host;
    let bytes = 0;
    for (const name of await disk.list(indexFolder)) {
      if (!indexLogPattern.test(name)) continue;
      const file = await disk.open(`${indexFolder}/${name}`);
      bytes += await file.sizeBytes();
      await file.close();
    }
    return bytes;
  }

  /** Without room, or without the file, nothing is done. */
  async #with(create: boolean, action: (file: DiskFile) => Promise<void>): Promise<void> {
    try {
      const file = await this.#host.disk.open(keptRoomPath, { create });
      try {
        await action(file);
      } finally {
        await file.close();
      }
    } catch (error) {
      const isAbsent = error instanceof DiskError && error.code === "ENOENT";
      if (!isAbsent && !isNoSpace(error)) throw error;
    }
  }
}
