import assert from "node:assert/strict";
import { test } from "node:test";
import { TraceHost } from "../store/trace-disk.ts";
import { MiB } from "../units.ts";
import { SegmentFiles } from "./segment-files.ts";
import { newSegment, Segments } from "./segments.ts";

const segmentBytes = 4 * MiB;

function started(capacityBytes: number): { host: TraceHost; segments: Segments } {
  const host = new TraceHost();
  const limits = { segmentBytes, capacityBytes, diskFloorBytes: 0 };
  const segments = new Segments(host, new SegmentFiles(host.disk), limits);
  segments.start(null);
  return { host, segments };
}

/** Zeros that were written, in segments. */
function zeroed(host: TraceHost): number {
  let bytes = 0;
  for (const event of host.trace) if (event.type === "write") bytes += event.bytes.length;
  return bytes / segmentBytes;
}

/** All timers that are due fire, and what they begin comes to its end. */
async function later(host: TraceHost): Promise<void> {
  host.fireTimers();
  await settled();
}

async function settled(): Promise<void> {
  for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

test("an idle log has zeros ahead for a sixteenth of its capacity, each slice after a rest", async () => {
  const { host, segments } = started(64 * segmentBytes);
  await settled();
  assert.equal(zeroed(host), 1);
  let before = zeroed(host);
  for (let look = 0; look < 40; look += 1) {
    await later(host);
    assert.ok(zeroed(host) - before <= 2 / 4, "more than two slices of 1 MiB between two timers");
    before = zeroed(host);
  }
  assert.equal(zeroed(host), 4);
  await segments.stop();
});

test("an idle log has zeros for eight segments ahead at most", async () => {
  const { host, segments } = started(1024 * segmentBytes);
  for (let look = 0; look < 80; look += 1) await later(host);
  assert.equal(zeroed(host), 8);
  await segments.stop();
});

test("a log that is written has zeros ahead for as much, up to an eighth of its capacity", async () => {
  const { host, segments } = started(64 * segmentBytes);
  await settled();
  for (let position = 1; position <= 12; position += 1) {
    while (segments.room(segmentBytes, "ordinary") === "later") await later(host);
    segments.take(segmentBytes, position);
    await later(host);
    const ahead = zeroed(host) - position;
    assert.ok(ahead <= Math.min(8, position), `${ahead} segments ahead of ${position}`);
  }
  for (let look = 0; look < 80; look += 1) await later(host);
  assert.equal(zeroed(host), 12 + 8);
  await segments.stop();
});

test("after a time without room the log gets through the segment that it is in", async () => {
  const host = new TraceHost();
  const limits = { segmentBytes, capacityBytes: 64 * segmentBytes, diskFloorBytes: 1 * MiB };
  const segments = new Segments(host, new SegmentFiles(host.disk), limits);
  // One was written before, and can be without any room.
  segments.add({ ...newSegment(2), preparedBytes: segmentBytes });
  segments.add({ ...newSegment(1), preparedBytes: 2 * MiB });
  host.freeBytes = 0;
  segments.start(segments.byNumber.get(1)!);
  await settled();
  segments.take(1.5 * MiB, 1);
  await later(host);
  assert.equal(segments.stuck, true);
  host.freeBytes = 100 * MiB;
  for (let position = 2; position < 7; position += 1) {
    await later(host);
    // Never idle: small batches go on, and find room.
    segments.take(4096, position);
  }
  assert.equal(segments.room(1 * MiB, "ordinary"), "now");
  assert.equal(segments.current.number, 1);
  await segments.stop();
});
