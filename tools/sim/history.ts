/**
 * The history of one sector as clients saw it, and the question whether a single copy could have
 * given it (linearizability of a register, P. Gibbons and E. Korach, "Testing shared memories",
 * 1997: with unique writes the test takes O(n log n)).
 *
 * Times are positions in the simulator's event order, so no two are equal. A write that was never
 * answered may have happened at any time after its start, or never: its end is infinite.
 */
export interface WriteEvent {
  /** Unique over the run; 0 stands for zeros (the initial value and what unmap writes). */
  readonly tag: number;
  readonly start: number;
  /** Infinity while, or when, the outcome is not known. */
  end: number;
}

export interface ReadEvent {
  readonly tag: number;
  readonly start: number;
  readonly end: number;
}

export interface SectorHistory {
  readonly writes: WriteEvent[];
  readonly reads: ReadEvent[];
}

export type Anomaly =
  /** A value that nobody wrote, or read before its write began. */
  | { kind: "invented"; tag: number; read: ReadEvent }
  /** Zeros where a write had certainly replaced them. */
  | { kind: "lost"; tag: number; read: ReadEvent }
  /** Two values each of which must come before the other: a stale or reverted read. */
  | { kind: "order"; tag: number; other: number };

/** All events of one value: its write and the reads that returned it. */
interface Zone {
  tag: number;
  /** The earliest end and the latest start of the value's events. */
  firstEnd: number;
  lastStart: number;
}

export function checkSector(history: SectorHistory): Anomaly | null {
  const zones = new Map<number, Zone>();
  const written = new Map<number, WriteEvent>();
  const zeroings: WriteEvent[] = [{ tag: 0, start: -1, end: -1 }];
  for (const write of history.writes) {
    if (write.tag === 0) zeroings.push(write);
    else written.set(write.tag, write);
  }
  const read = new Set<number>();
  for (const event of history.reads) {
    if (event.tag === 0) continue;
    const write = written.get(event.tag);
    if (write === undefined || write.start > event.end) {
      return { kind: "invented", tag: event.tag, read: event };
    }
    read.add(event.tag);
    extend(zones, event.tag, event);
  }
  for (const write of written.values()) {
    // A write whose outcome is unknown and that nobody read need not have happened.
    if (write.end === Number.POSITIVE_INFINITY && !read.has(write.tag)) continue;
    extend(zones, write.tag, write);
  }
  return (
    checkZones([...zones.values()]) ?? checkZeros(history.reads, zeroings, [...zones.values()])
  );
}

function extend(
  zones: Map<number, Zone>,
  tag: number,
  event: { start: number; end: number },
): void {
  const zone = zones.get(tag);
  if (zone === undefined) {
    zones.set(tag, { tag, firstEnd: event.end, lastStart: event.start });
    return;
  }
  zone.firstEnd = Math.min(zone.firstEnd, event.end);
  zone.lastStart = Math.max(zone.lastStart, event.start);
}

/**
 * A zone whose first end lies before its last start is "forward": the register must have held the
 * value all that time. Two forward zones must not overlap, and a value whose zone is not forward
 * must not lie wholly inside a forward one.
 */
function checkZones(zones: Zone[]): Anomaly | null {
  const forward = zones.filter((zone) => zone.firstEnd < zone.lastStart);
  forward.sort((a, b) => a.firstEnd - b.firstEnd);
  for (let at = 1; at < forward.length; at += 1) {
    const before = forward[at - 1]!;
    const after = forward[at]!;
    if (after.firstEnd < before.lastStart)
      return { kind: "order", tag: before.tag, other: after.tag };
  }
  for (const zone of zones) {
    if (zone.firstEnd < zone.lastStart) continue;
    const holder = forwardZoneAt(forward, zone.lastStart);
    if (holder !== null && holder.firstEnd < zone.lastStart && zone.firstEnd < holder.lastStart) {
      return { kind: "order", tag: holder.tag, other: zone.tag };
    }
  }
  return null;
}

/** The last forward zone that begins before the time: forward zones do not overlap here. */
function forwardZoneAt(forward: readonly Zone[], time: number): Zone | null {
  let low = 0;
  let high = forward.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (forward[middle]!.firstEnd < time) low = middle + 1;
    else high = middle;
  }
  return low === 0 ? null : forward[low - 1]!;
}

/**
 * Zeros are not unique, so they are judged one read at a time: some zeroing must be able to be the
 * last write before the read. (Weaker than the zones, and never wrong.)
 */
function checkZeros(
  reads: readonly ReadEvent[],
  zeroings: WriteEvent[],
  zones: Zone[],
): Anomaly | null {
  for (const event of reads) {
    if (event.tag !== 0) continue;
    const possible = zeroings.some(
      (zeroing) =>
        zeroing.start < event.end && !zones.some((zone) => certainlyBetween(zone, zeroing, event)),
    );
    if (!possible) return { kind: "lost", tag: 0, read: event };
  }
  return null;
}

/**
 * The value was held after the zeroing had ended (its write or a read of it began later) and was
 * in place before the read began: so this zeroing is not what the read saw.
 */
function certainlyBetween(zone: Zone, zeroing: WriteEvent, read: ReadEvent): boolean {
  return zone.lastStart > zeroing.end && zone.firstEnd < read.start;
}
