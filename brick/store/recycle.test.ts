import assert from "node:assert/strict";
import { test } from "node:test";
import { KiB, MiB } from "../units.ts";
import { Store } from "./store.ts";
import { DiskImage, type TraceEvent, TraceHost } from "./trace-disk.ts";

const identity = { clusterId: "00112233445566778899aabbccddeeff", brick: 7, uuid: "ab".repeat(16) };
const segmentBytes = 16 * MiB;
const recordBytes = 256 * KiB;
const tornSectors = 100;

function openStore(host: TraceHost): Promise<Store> {
  const sizes = { capacityBytes: 64 * segmentBytes, segmentBytes, diskFloorBytes: 1 * MiB };
  return Store.open(host, { ...sizes, participants: [], identity });
}

/** After a power cut in the middle of the last batch of a record, which leaves its beginning. */
function afterTornBatch(host: TraceHost): DiskImage {
  const isBatch = (event: TraceEvent) =>
    event.type === "write" &&
    event.bytes.length > recordBytes &&
    event.bytes.length < 2 * recordBytes;
  const image = new DiskImage();
  for (const event of host.trace.slice(0, host.trace.findLastIndex(isBatch) + 1)) image.note(event);
  const { unitCount } = image;
  return image.cut((unit) => unit < unitCount - tornSectors);
}

/** After a power cut that kept what was synced. */
function afterPowerCut(host: TraceHost, image: DiskImage): TraceHost {
  for (const event of host.trace) image.note(event);
  return new TraceHost(image.cut(() => false));
}

function append(store: Store): Promise<boolean> {
  return new Promise((resolve) => {
    const parts = [Buffer.alloc(recordBytes, 1)];
    store.appendMap(parts, null, resolve, { claim: "reserve" });
  });
}

async function turns(): Promise<"waits"> {
  for (let turn = 0; turn < 40; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  return "waits";
}

/** Bytes that the files of the log have. */
async function logBytes(host: TraceHost): Promise<number> {
  let bytes = 0;
  for (const name of await host.disk.list("log")) {
    const file = await host.disk.open(`log/${name}`);
    bytes += await file.sizeBytes();
    await file.close();
  }
  return bytes;
}

test("a segment whose file is short has no more room than that when it is used anew", async () => {
  // The log continues in a second segment behind a torn end, when the first had few zeros yet.
  const first = new TraceHost();
  const begun = await openStore(first);
  await turns();
  for (let record = 0; record < 2; record += 1) assert.equal(await append(begun), true);
  const torn = afterTornBatch(first);
  const second = new TraceHost(torn);
  const cut = await openStore(second);
  await turns();
  assert.ok(cut.cut);
  assert.equal(await append(cut), true);
  cut.checkpoint();
  await cut.checkpointed();
  const third = afterPowerCut(second, torn);
  const store = await openStore(third);
  await turns();
  assert.equal(await append(store), true);
  store.checkpoint();
  await store.checkpointed();
  assert.equal(await store.recycle(), 1);
  third.freeBytes = 0;
  third.fireTimers();
  await turns();
  const before = await logBytes(third);
  assert.ok(before < 2 * segmentBytes);
  let appended = 0;
  while ((await Promise.race([append(store), turns()])) === true) appended += 1;
  assert.ok(store.waitsForRoom);
  // All that was there is used, of both segments, and not a byte more.
  assert.ok(appended * recordBytes > before / 2, `${appended} records`);
  assert.equal(await logBytes(third), before);
  assert.equal(third.crashed, null);
});
