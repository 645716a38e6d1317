import { assert } from "../assert.ts";
import { Roster, type Seat } from "../roster.ts";

/**
 * A stream asks for what was fetched ahead of it within milliseconds, a slow one within as many reads as are
 * fetched ahead. What nobody has asked for after so long makes room for others; what is fresher does not, or
 * streams that are too many for the room would push out each other's chunks, each for nothing.
 */
export const aheadStaleMs = 1000;

/** Bytes in the room, and who gives them up when others need their place. */
export interface AheadGuest {
  readonly lengthBytes: number;
  readonly sinceMs: number;
  /** Leaves the room at once. */
  giveUp(): void;
}

/** What is fetched ahead at one brick, over all its volumes: at most `bytesMax`. */
export class AheadRoom {
  readonly #bytesMax: number;
  /** The oldest first. */
  readonly #guests = new Roster<AheadGuest>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Whether there is room for so many bytes, when those are given up whose time is over. */
  hasRoom(lengthBytes: number, nowMs: number): boolean {
    while (this.#bytes + lengthBytes > this.#bytesMax) {
      const oldest = this.#guests.first;
      if (oldest === null || nowMs - oldest.sinceMs < aheadStaleMs) return false;
      oldest.giveUp();
      assert(this.#guests.first !== oldest, "what was given up stays in the room");
    }
    return true;
  }

  enter(guest: AheadGuest): Seat<AheadGuest> {
    this.#bytes += guest.lengthBytes;
    assert(this.#bytes <= this.#bytesMax, "more is fetched ahead than there is room for");
    return this.#guests.enter(guest);
  }

  leave(seat: Seat<AheadGuest>): void {
    const wasIn = this.#guests.leave(seat);
    assert(wasIn, "it has left the room before");
    this.#bytes -= seat.value.lengthBytes;
  }
}
