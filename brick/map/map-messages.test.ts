import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Extent } from "./grain.ts";
import * as messages from "./map-messages.ts";

const uint16 = fc.nat(0xffff);
const uint32 = fc.oneof(fc.nat(9), fc.nat(0xffff_ffff));
const uint48 = fc.oneof(fc.nat(9), fc.nat(2 ** 48 - 1));
const exact = fc.oneof(fc.nat(9), fc.nat(Number.MAX_SAFE_INTEGER));
const key = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => {
  const key = Buffer.from(bytes);
  key[7] = 1;
  return key;
});
const holders = fc.array(fc.integer({ min: 1, max: 0xffff }), { maxLength: 8 });
const start = { shard: uint16, view: exact, branch: uint48 };
const range = fc
  .tuple(fc.nat(127), fc.integer({ min: 1, max: 128 }))
  .map(([firstSector, count]) => ({
    firstSector,
    sectorCount: Math.min(count, 128 - firstSector),
  }));

const numbers = { generation: uint32, epoch: exact, sequence: exact, lowWater: exact };
const write: fc.Arbitrary<messages.MapWriteRequest> = fc
  .tuple(
    fc.record({ ...start, ...numbers, grain: uint48, key, holders, gcEpoch: uint32 }),
    range,
    fc.constantFrom("stored", "inline", "part", "unmap", "run"),
    fc.integer({ min: 1, max: 1024 }),
  )
  .map(([request, range, kind, count]) => {
    const whole = { ...request, ...range, grainCount: 0, part: null, inline: null };
    if (kind === "stored") return whole;
    if (kind === "part") {
      const chunkSector = count % (129 - range.sectorCount);
      return { ...whole, part: { chunkSector, chunkSectors: 128 } };
    }
    if (kind === "unmap") return { ...whole, key: null };
    if (kind === "run") {
      const grainCount = Math.min(count, 1024 - (whole.grain % 1024));
      return { ...whole, key: null, firstSector: 0, sectorCount: 0, grainCount };
    }
    const bytes = Buffer.alloc(range.sectorCount * 512, request.key[0]);
    return { ...whole, inline: [bytes.subarray(0, 100), bytes.subarray(100)] };
  });
const lookup = fc.record({
  ...start,
  epoch: exact,
  firstGrain: uint48.map((grain) => Math.min(grain, 2 ** 48 - 1024)),
  grainCount: fc.integer({ min: 1, max: 1024 }),
  owed: fc.boolean(),
});
const fence = fc.record({ ...start, epoch: exact });
const cancel = fc.record({ ...start, epoch: exact, sequence: exact, lowWater: exact });
const rehintNumbers = { generation: uint32, grain: uint48, gcEpoch: uint32 };
const rehint = fc.record({ ...start, ...rehintNumbers, key, holders });
const status = fc.constantFrom<messages.MapStatus>(
  ...(["ok", "not_now", "fenced", "cancelled", "no_space", "refused", "stale"] as const),
);
const reply = fc.record({ status, view: exact, holders });

const extents: fc.Arbitrary<Extent[]> = fc
  .tuple(fc.uniqueArray(fc.nat(127), { maxLength: 8 }), key, holders, fc.nat(127))
  .map(([sectors, key, holders, chunkSector]) =>
    sectors
      .sort((a, b) => a - b)
      .map((firstSector) => ({ firstSector, sectorCount: 1 }))
      .map((range) => ({ ...range, chunkSector, chunkSectors: 128, key, holders })),
  );
const lookupReply: fc.Arbitrary<messages.MapLookupReply> = fc
  .tuple(
    status,
    exact,
    uint48,
    fc.uniqueArray(fc.tuple(fc.nat(99), extents), {
      maxLength: 5,
      selector: ([offset]) => offset,
    }),
  )
  .map(([status, view, grain, found]) => {
    const first = Math.min(grain, 2 ** 48 - 100);
    const inOrder = found.sort((a, b) => a[0] - b[0]);
    const grains = new Map(inOrder.map(([offset, extents]) => [first + offset, extents]));
    return { status, view, coveredCount: 100, grains };
  });

/** One encoding: what comes out is what went in, and other bytes are refused or mean otherwise. */
function examine<T>(
  name: string,
  arbitrary: fc.Arbitrary<T>,
  encode: (message: T) => Buffer[],
  decode: (body: Buffer) => unknown,
  encodeAgain: (decoded: never) => Buffer[],
  expected: (message: T) => unknown = (message) => ({ ...message }),
): void {
  test(`${name}: what is encoded is decoded, and junk is refused`, () => {
    const flips = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(arbitrary, flips, fc.nat(), (message, flips, cut) => {
        const body = Buffer.concat(encode(message));
        assert.deepEqual(decode(body), expected(message));
        assert.equal(decode(body.subarray(0, cut % body.length)), null);
        assert.equal(decode(Buffer.concat([body, Buffer.alloc(1)])), null);
        for (const [at, value] of flips) body[at % Math.min(body.length, 160)] = value;
        const decoded = decode(body);
        if (decoded === null) return;
        assert.deepEqual(Buffer.concat(encodeAgain(decoded as never)), body);
      }),
      { numRuns: 400 },
    );
  });
}

const received = (request: messages.MapWriteRequest) => ({
  ...request,
  inline: request.inline && [Buffer.concat(request.inline)],
});
const { encodeMapWrite, decodeMapWrite } = messages;
examine("write", write, encodeMapWrite, decodeMapWrite, encodeMapWrite, received);
const { encodeMapLookup, decodeMapLookup } = messages;
examine("look-up", lookup, encodeMapLookup, decodeMapLookup, encodeMapLookup);
const { encodeMapFence, decodeMapFence } = messages;
examine("fence", fence, encodeMapFence, decodeMapFence, encodeMapFence);
const { encodeMapCancel, decodeMapCancel } = messages;
examine("cancel", cancel, encodeMapCancel, decodeMapCancel, encodeMapCancel);
const { encodeMapRehint, decodeMapRehint } = messages;
examine("rehint", rehint, encodeMapRehint, decodeMapRehint, encodeMapRehint);
const { encodeMapReply, decodeMapReply } = messages;
examine("reply", reply, encodeMapReply, decodeMapReply, encodeMapReply);
const { encodeLookupReply, decodeLookupReply } = messages;
examine("look-up reply", lookupReply, encodeLookupReply, decodeLookupReply, encodeLookupReply);

const goldenWrite: messages.MapWriteRequest = {
  shard: 0x0102,
  view: 0x0a,
  branch: 0x0304,
  generation: 0x05,
  epoch: 0x0b,
  sequence: 0x0c,
  lowWater: 0x0d,
  grain: 0x0607,
  grainCount: 0,
  firstSector: 8,
  sectorCount: 1,
  key: Buffer.alloc(32, 0xcd),
  part: null,
  holders: [1, 2],
  inline: [Buffer.alloc(512, 0xee)],
  gcEpoch: 0x0e,
};

test("the formats stay", () => {
  const hex = (body: Buffer[]) => Buffer.concat(body).toString("hex");
  const bytes = (...parts: string[]) => parts.join("").replaceAll(" ", "");
  const head = "0102 000000000000000a 000000000304";
  const twoHolders = "0001 0002 0000 0000 0000 0000 0000 0000";
  const key = "cd".repeat(32);
  assert.equal(
    hex(encodeMapWrite(goldenWrite)),
    bytes(
      `01 03 ${head} 000000000607 00000005 0000 08 01`,
      "000000000000000b 000000000000000c 000000000000000d 00 00 0000 0000000e",
      twoHolders + key + "ee".repeat(512),
    ),
  );
  const part = { chunkSector: 0x10, chunkSectors: 0x40 };
  assert.equal(
    hex(encodeMapWrite({ ...goldenWrite, inline: null, part })),
    bytes(
      `01 05 ${head} 000000000607 00000005 0000 08 01`,
      "000000000000000b 000000000000000c 000000000000000d 00 00 0000 0000000e",
      `${twoHolders + key}10 40 000000000000`,
    ),
  );
  const run = {
    key: null,
    inline: null,
    holders: [],
    grainCount: 3,
    firstSector: 0,
    sectorCount: 0,
  };
  assert.equal(
    hex(encodeMapWrite({ ...goldenWrite, ...run })),
    bytes(
      `01 00 ${head} 000000000607 00000005 0003 00 00`,
      "000000000000000b 000000000000000c 000000000000000d 00 00 0000 0000000e",
      "00".repeat(48),
    ),
  );
  const { shard, view, branch, epoch, sequence, lowWater, generation, grain, holders } =
    goldenWrite;
  const common = { shard, view, branch, epoch };
  assert.equal(
    hex(encodeMapLookup({ ...common, firstGrain: grain, grainCount: 0x400, owed: false })),
    bytes(`01 00 ${head} 000000000607 000000000000000b 00000400 00000000`),
  );
  assert.equal(hex(encodeMapFence(common)), bytes(`01 00 ${head} 000000000000 000000000000000b`));
  assert.equal(
    hex(encodeMapCancel({ ...common, sequence, lowWater })),
    bytes(`01 00 ${head} 000000000000 000000000000000b 000000000000000c 000000000000000d`),
  );
  const chunk = { key: Buffer.alloc(32, 0xcd), holders };
  assert.equal(
    hex(encodeMapRehint({ shard, view, branch, generation, grain, ...chunk, gcEpoch: 0x0f })),
    bytes(`01 00 ${head} 000000000607 00000005 0000000f`, twoHolders, key),
  );
  assert.equal(
    hex(encodeMapReply({ status: "no_space", view, holders })),
    bytes("01 04 0000 000000000000000a", twoHolders),
  );
  const place = { firstSector: 2, sectorCount: 3, chunkSector: 4, chunkSectors: 8 };
  const grains = new Map([[grain, [{ ...place, ...chunk }]]]);
  assert.equal(
    hex(encodeLookupReply({ status: "ok", view, coveredCount: 2, grains })),
    bytes(
      "01 00 0000 000000000000000a 00000002 00000001",
      "000000000607 0001 02 03 04 08 00 00 0000",
      twoHolders + key,
    ),
  );
});

test("a write tells the domain of its chunk's key; an unmap has none", () => {
  const body = Buffer.concat(encodeMapWrite({ ...goldenWrite, keyDomain: 0x1234 }));
  assert.equal(body.toString("hex", 58, 60), "1234");
  assert.equal(decodeMapWrite(body)!.keyDomain, 0x1234);
  assert.equal("keyDomain" in decodeMapWrite(Buffer.concat(encodeMapWrite(goldenWrite)))!, false);
  const nothing = { ...goldenWrite, key: null, part: null, inline: null, holders: [], gcEpoch: 0 };
  const unmap = Buffer.concat(encodeMapWrite(nothing));
  assert.notEqual(decodeMapWrite(unmap), null);
  unmap[59] = 1;
  assert.equal(decodeMapWrite(unmap), null);
});

test("a malformed write is refused", () => {
  const body = Buffer.concat(encodeMapWrite(goldenWrite));
  const wrong: [string, number, number][] = [
    ["version", 0, 2],
    ["unknown flag", 1, 7],
    ["inline bytes without a key", 1, 2],
    ["bytes that no flag tells of", 1, 1],
    ["a view beyond exact numbers", 4, 0x20],
    ["whole grains of data", 29, 1],
    ["a range past the grain", 30, 128],
    ["no sectors", 31, 0],
    ["more sectors than bytes", 31, 2],
    ["an epoch beyond exact numbers", 32, 0x20],
    ["codec", 56, 1],
    ["a holder after the end", 79, 1],
  ];
  for (const [what, at, value] of wrong) {
    const bytes = Buffer.from(body);
    bytes[at] = value;
    assert.equal(decodeMapWrite(bytes), null, what);
  }
  const run = {
    key: null,
    inline: null,
    firstSector: 0,
    sectorCount: 0,
    grain: 1000,
    grainCount: 24,
  };
  const unmap = Buffer.concat(encodeMapWrite({ ...goldenWrite, ...run }));
  assert.notEqual(decodeMapWrite(unmap), null);
  unmap[29] = 25;
  assert.equal(decodeMapWrite(unmap), null, "grains of two shard runs");
});

test("a malformed part of a chunk is refused", () => {
  const part = { chunkSector: 3, chunkSectors: 4 };
  const body = Buffer.concat(encodeMapWrite({ ...goldenWrite, inline: null, part }));
  assert.deepEqual(decodeMapWrite(body)?.part, part);
  const wrong: [string, number, number][] = [
    ["of an unmap", 1, 4],
    ["with the chunk's bytes", 1, 7],
    ["past the end of the chunk", 112, 4],
    ["of a chunk of no sectors", 113, 0],
    ["of a chunk longer than a grain", 113, 129],
    ["reserve", 119, 1],
  ];
  for (const [what, at, value] of wrong) {
    const bytes = Buffer.from(body);
    bytes[at] = value;
    assert.equal(decodeMapWrite(bytes), null, what);
  }
});

test("inline bytes are not copied", () => {
  const inline = Buffer.alloc(512, 7);
  assert.equal(encodeMapWrite({ ...goldenWrite, inline: [inline] })[1], inline);
  const body = Buffer.concat(encodeMapWrite(goldenWrite));
  assert.equal(decodeMapWrite(body)!.inline![0]!.buffer, body.buffer);
});

test("a look-up reply names grains in order, inside what it covers", () => {
  const place = { firstSector: 0, sectorCount: 1, chunkSector: 0, chunkSectors: 1 };
  const extents = [{ ...place, key: Buffer.alloc(32, 1), holders: [] }];
  const grains = new Map([7, 9].map((grain) => [grain, extents]));
  const body = Buffer.concat(encodeLookupReply({ status: "ok", view: 1, coveredCount: 3, grains }));
  assert.notEqual(decodeLookupReply(body), null);
  const second = 20 + 64 + 5;
  for (const [at, value] of [
    [second, 10],
    [second, 7],
    [15, 1],
    [19, 1],
    [19, 3],
  ] as const) {
    const wrong = Buffer.from(body);
    wrong[at] = value;
    assert.equal(decodeLookupReply(wrong), null, `byte ${at} = ${value}`);
  }
});
