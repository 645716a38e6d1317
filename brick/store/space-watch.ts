import type { Host, Kv } from "../host.ts";
import type { Segments } from "../log/segments.ts";
import type { IndexRoom } from "./index-room.ts";
import type { KeptRoom } from "./kept-room.ts";

/** How often it is looked what others have left of the file system. */
const lookEveryMs = 500;
/** Between two pieces of the room that is taken back after a start. */
const pieceRestMs = 20;

interface WatchParts {
  readonly host: Host;
  readonly segments: Segments;
  readonly indexRoom: IndexRoom;
  readonly keptRoom: KeptRoom;
  readonly kv: Kv;
  readonly diskFloorBytes: number;
  isFull(): boolean;
  isClosed(): boolean;
  /** The brick is full now, or is no longer. */
  changed(): void;
}

/** Looks what others leave of the file system, and tells when it makes a difference. */
export class SpaceWatch {
  readonly #parts: WatchParts;
  #wasFull = false;
  #looking: Promise<void> = Promise.resolve();

  constructor(parts: WatchParts) {
    this.#parts = parts;
  }

  start(afterMs = lookEveryMs): void {
    const { host, isClosed } = this.#parts;
    host.clock.after(afterMs, () => {
      if (isClosed()) return;
      this.#looking = this.#look().catch((error: unknown) => host.crash(error));
    });
  }

  /** To be asked once the store is closed: resolves when nothing of it is under way. */
  ended(): Promise<void> {
    return this.#looking;
  }

  async #look(): Promise<void> {
    const { host, segments, indexRoom, keptRoom, isFull, isClosed, changed } = this.#parts;
    const freeBytes = await host.disk.freeBytes();
    if (isClosed()) return;
    segments.look(freeBytes);
    indexRoom.look(freeBytes);
    const full = isFull();
    if (full !== this.#wasFull) changed();
    this.#wasFull = full;
    const { kv, diskFloorBytes } = this.#parts;
    const goesOn = await keptRoom.keep(freeBytes, kv.unflushedBytes(), diskFloorBytes);
    if (!isClosed()) this.start(goesOn ? pieceRestMs : lookEveryMs);
  }
}
