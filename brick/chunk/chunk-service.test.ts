import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { SimWorld } from "../../tools/sim/sim-host.ts";
import { Calls } from "../rpc/calls.ts";
import { type MessageType, messageType } from "../rpc/message-types.ts";
import { Store } from "../store/store.ts";
import { KiB, MiB } from "../units.ts";
import {
  decodeChunkGetReply,
  decodeChunkHasReply,
  decodeChunkPutReply,
  encodeChunkGet,
  encodeChunkHas,
  encodeChunkPut,
  getStatus,
  putStatus,
} from "./chunk-messages.ts";
import { serveChunks } from "./chunk-service.ts";
import { chunkKey } from "./key.ts";
import { outlineOf, sliceBytes } from "./outline.ts";
import { decodeChunkPutsReply, encodeChunkPuts } from "./puts-messages.ts";
import { decodeSliceReply, encodeSliceRequest, type SliceWish } from "./slice-messages.ts";

const origin = { branch: 1, grain: 2, firstSector: 0, sequence: 3 };

async function serviceOf(world: SimWorld) {
  const host = world.host(1);
  const opened = Store.open(host, {
    capacityBytes: 16 * MiB,
    segmentBytes: 1 * MiB,
    participants: [],
    identity: { clusterId: "00".repeat(16), brick: 1, uuid: "cd".repeat(16) },
  });
  const store = await world.complete(opened);
  serveChunks(new Calls(host), store, 1);
  const client = world.host(2);
  const addresses = new Map([
    [1, "1:1"],
    [2, "2:2"],
  ]);
  host.network.setPeers(addresses);
  client.network.setPeers(addresses);
  const calls = new Calls(client);
  const ask = (type: MessageType, body: readonly Buffer[]): Promise<Buffer> => {
    const answered = new Promise<Buffer>((resolve, reject) => {
      calls.call(1, type, body, 1000, (reply) => {
        if (reply.ok) resolve(reply.body);
        else reject(new Error(reply.fault.code));
      });
    });
    return world.complete(answered);
  };
  return { store, ask };
}

test("another brick puts, asks and gets", async () => {
  const { ask } = await serviceOf(new SimWorld(7));
  const bytes = Buffer.alloc(4096, 5);
  const key = chunkKey(bytes);
  const other = chunkKey(Buffer.alloc(4096, 6));
  const put = encodeChunkPut(key, origin, bytes, 0);
  assert.equal(decodeChunkPutReply(await ask(messageType.chunkPut, put)), putStatus.stored);
  assert.equal(decodeChunkPutReply(await ask(messageType.chunkPut, put)), putStatus.deduplicated);
  const has = await ask(messageType.chunkHas, encodeChunkHas([other, key]));
  assert.deepEqual(decodeChunkHasReply(has), [false, true]);
  const got = await ask(messageType.chunkGet, encodeChunkGet([key, other]));
  assert.deepEqual(decodeChunkGetReply([got]), [
    { status: getStatus.found, bytes },
    { status: getStatus.absent },
  ]);
});

test("bytes that do not hash to their key are not kept", async () => {
  const { store, ask } = await serviceOf(new SimWorld(8));
  const bytes = Buffer.alloc(4096, 5);
  const key = chunkKey(bytes);
  bytes[9] = 0;
  const reply = await ask(messageType.chunkPut, encodeChunkPut(key, origin, bytes, 0));
  assert.equal(decodeChunkPutReply(reply), putStatus.bad);
  assert.equal(store.has(key), false);
});

test("of several puts each has its own answer, and only what is whole and has room is kept", async () => {
  const world = new SimWorld(10);
  const { store, ask } = await serviceOf(world);
  const toPut = (bytes: Buffer, key = chunkKey(bytes)) => {
    return { key, origin, data: [bytes], lengthBytes: bytes.length };
  };
  const [first, second] = [Buffer.alloc(4096, 1), Buffer.alloc(8192, 2)];
  const damaged = toPut(Buffer.alloc(4096, 3), chunkKey(Buffer.alloc(4096, 4)));
  const puts = encodeChunkPuts([toPut(first), damaged, toPut(second), toPut(first)], 0);
  const { stored, deduplicated, bad, noSpace } = putStatus;
  const statuses = async (body: readonly Buffer[]) =>
    decodeChunkPutsReply(await ask(messageType.chunkPuts, body));
  assert.deepEqual(await statuses(puts), [stored, bad, stored, deduplicated]);
  // Come twice, as messages may.
  assert.deepEqual(await statuses(puts), [deduplicated, bad, deduplicated, deduplicated]);
  assert.equal(store.has(damaged.key), false);
  const read = await world.complete(store.readChunk(chunkKey(second)));
  assert.deepEqual(read, { ok: true, bytes: second });
  // Until nothing goes in any more: what was there is still deduplicated.
  let refused = 0;
  for (let seed = 10; seed < 400 && refused === 0; seed += 1) {
    const more = [1, 2, 3].map((part) => Buffer.alloc(64 * KiB, `${seed} ${part}`));
    const chunks = [...more.map((bytes) => toPut(bytes)), toPut(first)];
    const answers = await statuses(encodeChunkPuts(chunks, 0));
    assert.equal(answers?.length, 4);
    assert.equal(answers[3], deduplicated);
    for (const [at, bytes] of more.entries()) {
      assert.ok(answers[at] === stored || answers[at] === noSpace);
      assert.equal(store.has(chunkKey(bytes)), answers[at] === stored);
    }
    refused = answers.filter((status) => status === noSpace).length;
  }
  assert.ok(refused > 0);
});

test("slices are read whole once, then alone; each comes with what proves it", async () => {
  const { ask } = await serviceOf(new SimWorld(9));
  const bytes = randomBytes(32 * KiB);
  const key = chunkKey(bytes);
  const small = Buffer.alloc(4096, 3);
  for (const chunk of [bytes, small]) {
    await ask(messageType.chunkPut, encodeChunkPut(chunkKey(chunk), origin, chunk, 0));
  }
  const wishes: SliceWish[] = [
    { key, first: 2, count: 1, withOutline: true },
    { key, first: 6, count: 2, withOutline: false },
    // It ends before that; has no slices; is not there.
    { key, first: 7, count: 2, withOutline: true },
    { key: chunkKey(small), first: 0, count: 1, withOutline: true },
    { key: chunkKey(Buffer.alloc(4096, 4)), first: 0, count: 1, withOutline: true },
  ];
  for (let round = 0; round < 2; round += 1) {
    const results = decodeSliceReply(
      await ask(messageType.chunkSlices, encodeSliceRequest(wishes)),
    );
    const absent = { status: getStatus.absent };
    const found = { status: getStatus.found };
    const slices = (first: number, count: number) =>
      bytes.subarray(first * sliceBytes, (first + count) * sliceBytes);
    const outline = outlineOf(bytes);
    assert.deepEqual(results, [
      { ...found, outline, bytes: slices(2, 1) },
      { ...found, outline: null, bytes: slices(6, 2) },
      absent,
      absent,
      absent,
    ]);
  }
});
