import assert from "node:assert/strict";
import { test } from "node:test";
import { DiskError, type DiskFile } from "../host.ts";
import { TraceHost } from "../store/trace-disk.ts";
import { encodeBatch } from "./batch.ts";
import { logSalt, recordType } from "./batch-format.ts";
import { LogReplay } from "./replay.ts";
import { SegmentReader } from "./segment-reader.ts";

const salt = logSalt("ab".repeat(16));
const segmentBytes = 8 * 4096;

/** Segments by hand: each with its epoch and bytes. */
class Segments {
  readonly files = new Map<number, { epoch: number; bytes: Buffer; unreadableAt: number }>();

  segment(number: number, epoch = 1) {
    let file = this.files.get(number);
    if (file === undefined) {
      file = { epoch, bytes: Buffer.alloc(segmentBytes), unreadableAt: -1 };
      this.files.set(number, file);
    }
    return file;
  }

  /** Writes one batch of one record; returns its header's checksum. */
  batch(
    number: number,
    offsetBytes: number,
    text: string,
    more: {
      position: number;
      previousChecksum: number;
      boot?: number;
      epoch?: number;
      salt?: number;
    },
  ): number {
    const { bytes, epoch } = this.segment(number);
    const parts = [Buffer.from(text)];
    const record = { type: recordType.map, parts, bodyBytes: text.length, chunk: null };
    const place = { brick: 7, segment: number, epoch, offsetBytes, boot: 1, ...more };
    const batch = encodeBatch(place, [record], more.salt ?? salt);
    Buffer.concat(batch.buffers).copy(bytes, offsetBytes);
    return batch.checksum;
  }

  async replay(boot = 9) {
    const records: string[] = [];
    const segments = [...this.files].map(([number, file]) => {
      const read: DiskFile["read"] = async (offsetBytes, lengthBytes) => {
        const at = file.unreadableAt;
        if (at >= 0 && offsetBytes <= at && at < offsetBytes + lengthBytes) {
          throw new DiskError("EIO", "a bad sector");
        }
        return file.bytes.subarray(offsetBytes, offsetBytes + lengthBytes);
      };
      const reader = new SegmentReader({ read } as DiskFile, segmentBytes);
      return { number, epoch: file.epoch, reader };
    });
    const start = { position: 1, segment: 0, offsetBytes: 0, previousChecksum: 0 };
    const identity = { brick: 7, boot, salt };
    const result = await new LogReplay(new TraceHost(), identity, segments, start, {
      record: (_header, body) => void records.push(body.toString()),
      damagedRecord: () => {},
    }).run();
    return { records, ...result };
  }
}

function twoBatches(): { segments: Segments; first: number; second: number } {
  const segments = new Segments();
  const first = segments.batch(1, 0, "one", { position: 1, previousChecksum: 0 });
  const second = segments.batch(1, 4096, "two", { position: 2, previousChecksum: first });
  return { segments, first, second };
}

test("batches are replayed in order, across segments, to a clean end in zeros", async () => {
  const { segments, second } = twoBatches();
  const third = segments.batch(2, 0, "three", { position: 3, previousChecksum: second });
  const { records, clean, damage, end } = await segments.replay();
  assert.deepEqual(records, ["one", "two", "three"]);
  assert.equal(clean, true);
  assert.deepEqual(damage, []);
  assert.deepEqual(end, { position: 4, segment: 2, offsetBytes: 4096, previousChecksum: third });
});

test("a batch that a later boot has replaced is void, even if it can be read", async () => {
  const { segments, first } = twoBatches();
  const second = segments.batch(2, 0, "TWO", { position: 2, previousChecksum: first, boot: 2 });
  segments.batch(2, 4096, "THREE", { position: 3, previousChecksum: second, boot: 2 });
  const { records, damage } = await segments.replay();
  assert.deepEqual(records, ["one", "TWO", "THREE"]);
  assert.deepEqual(damage, []);
});

test("of a torn batch that a later boot has replaced nothing is taken, whatever is damaged", async () => {
  const { segments, first } = twoBatches();
  const second = segments.batch(2, 0, "TWO", { position: 2, previousChecksum: first, boot: 2 });
  segments.batch(2, 4096, "THREE", { position: 3, previousChecksum: second, boot: 2 });
  segments.segment(1).bytes[4096 + 176]! ^= 1;
  segments.segment(2).bytes[10]! ^= 1;
  const { records, damage } = await segments.replay();
  assert.deepEqual(records, ["one", "TWO", "THREE"]);
  assert.deepEqual(damage.length, 2);
});

test("a batch that names another one before it does not belong to the chain", async () => {
  const { segments, second } = twoBatches();
  segments.batch(2, 0, "three?", { position: 3, previousChecksum: (second ^ 1) >>> 0 });
  const { records, clean } = await segments.replay();
  assert.deepEqual(records, ["one", "two"]);
  assert.equal(clean, false);
});

test("what an earlier use of the file left is ignored, and so are copies and strangers", async () => {
  const { segments, second } = twoBatches();
  const next = { position: 3, previousChecksum: second };
  segments.segment(2, 2);
  segments.batch(2, 0, "stale", { ...next, epoch: 1 });
  segments.batch(3, 0, "stranger", { ...next, salt: salt ^ 1 });
  segments.segment(4).bytes.set(segments.segment(1).bytes.subarray(0, 4096), 8192);
  segments.batch(4, 4096, "three", next);
  segments.segment(4).bytes.copyWithin(0, 4096, 8192);
  segments.segment(4).bytes.fill(0, 4096, 8192);
  const { records, clean } = await segments.replay();
  assert.deepEqual(records, ["one", "two"]);
  assert.equal(clean, false);
});

test("a stale batch of lower position never counts as a later one", async () => {
  const { segments, second } = twoBatches();
  segments.batch(1, 8192, "old", { position: 2, previousChecksum: 77 });
  const { records, damage, clean } = await segments.replay();
  assert.deepEqual(records, ["one", "two"]);
  assert.deepEqual(damage, []);
  assert.equal(clean, false);
  assert.notEqual(second, 77);
});

test("a page that the disk cannot read is damage, and the log goes on behind it", async () => {
  const { segments, second } = twoBatches();
  segments.batch(1, 8192, "three", { position: 3, previousChecksum: second });
  segments.segment(1).unreadableAt = 5000;
  const { records, damage } = await segments.replay();
  assert.deepEqual(records, ["one", "three"]);
  assert.deepEqual(damage, [
    { segment: 1, fromBytes: 4096, toBytes: 8192, firstPosition: 2, lastPosition: 2 },
  ]);
});

test("a seal of the boot before this one ends the log, whatever lies behind it", async () => {
  const { segments, second } = twoBatches();
  const file = segments.segment(1);
  file.bytes.fill(0xee, 12288);
  const record = { type: recordType.seal, parts: [], bodyBytes: 0, chunk: null };
  const place = { brick: 7, segment: 1, epoch: 1, offsetBytes: 8192, boot: 8, position: 3 };
  const seal = encodeBatch({ ...place, previousChecksum: second }, [record], salt);
  Buffer.concat(seal.buffers).copy(file.bytes, 8192);
  assert.equal((await segments.replay(9)).clean, true);
  // A boot has been in between, and may have written what is missing now.
  assert.equal((await segments.replay(10)).clean, false);
});
