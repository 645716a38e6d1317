import type { Host } from "../host.ts";
import type { Segments } from "../log/segments.ts";
import type { IndexRoom } from "./index-room.ts";

/** How often it is looked what others have left of the file system. */
const lookEveryMs = 500;

interface WatchParts {
  readonly host: Host;
  readonly segments: Segments;
  readonly indexRoom: IndexRoom;
  isFull(): boolean;
  isClosed(): boolean;
  /** The brick is full now, or is no longer. */
  changed(): void;
}

/** Looks what others leave of the file system, and tells when it makes a difference. */
export class SpaceWatch {
  readonly #parts: WatchParts;
  #wasFull = false;

  constructor(parts: WatchParts) {
    this.#parts = parts;
  }

  start(): void {
    const { host, isClosed } = this.#parts;
    host.clock.after(lookEveryMs, () => {
      if (!isClosed()) this.#look().catch((error: unknown) => host.crash(error));
    });
  }

  async #look(): Promise<void> {
    const { host, segments, indexRoom, isFull, isClosed, changed } = this.#parts;
    const freeBytes = await host.disk.freeBytes();
    if (isClosed()) return;
    segments.look(freeBytes);
    indexRoom.look(freeBytes);
    const full = isFull();
    if (full !== this.#wasFull) changed();
    this.#wasFull = full;
    this.start();
  }
}
