import assert from "node:assert/strict";
import { test } from "node:test";
import { VolumeCipher } from "../crypt/volume-cipher.ts";
import { dataKeyBytes, Xts } from "../crypt/xts.ts";
import type { Extent } from "../map/grain.ts";
import { Prng } from "../prng.ts";
import { sectorBytes, sectorsPerGrain } from "../units.ts";
import { contentOf, planGrain } from "./grain-plan.ts";

const options = { chunksMin: 4, wasteSectorsMin: 64 };
const keyDomain = 3;

function extent(
  firstSector: number,
  sectorCount: number,
  chunk: number,
  rest: Partial<Extent> = {},
): Extent {
  const key = Buffer.alloc(32, chunk);
  const whole = { chunkSector: 0, chunkSectors: sectorCount, holders: [1, 2] };
  return { firstSector, sectorCount, key, ...whole, ...rest };
}

const row = (count: number, sectors = 8) =>
  Array.from({ length: count }, (_, at) => extent(at * sectors, sectors, at + 1));

test("a grain in as many chunks as are asked for becomes one", () => {
  assert.equal(planGrain(row(3), options), null);
  assert.deepEqual(planGrain(row(4), options), {
    firstSector: 0,
    sectorCount: 32,
    runs: [{ firstSector: 0, sectorCount: 32 }],
    keyDomain: undefined,
  });
});

test("a chunk that many extents name counts once, and alone stays", () => {
  const same = row(8).map((one) => ({ ...one, key: Buffer.alloc(32, 1) }));
  assert.equal(planGrain(same, options), null);
  assert.equal(planGrain([], options), null);
  assert.equal(planGrain(row(1), options), null);
});

test("a grain in few chunks becomes one when they are kept for what nothing reads", () => {
  const cut = (sectors: number) => [
    extent(0, sectors, 1, { chunkSectors: 128 }),
    extent(sectors, 128 - sectors, 2),
  ];
  assert.equal(planGrain(cut(65), options), null, "63 sectors of waste");
  assert.ok(planGrain(cut(64), options) !== null, "64 sectors of waste");
});

test("what is unmapped stays so, and too much of it keeps the grain as it is", () => {
  const holed = [...row(4), extent(40, 8, 9), extent(48, 8, 10)];
  const plan = planGrain(holed, options)!;
  assert.deepEqual(plan.runs, [
    { firstSector: 0, sectorCount: 32 },
    { firstSector: 40, sectorCount: 16 },
  ]);
  assert.equal(plan.sectorCount, 56);
  assert.equal(planGrain([...row(4), extent(64, 8, 9)], options), null);
});

test("keys of several domains do not meet in one chunk", () => {
  const mixed = row(5).map((one, at) => (at === 2 ? { ...one, keyDomain } : one));
  assert.equal(planGrain(mixed, options), null);
});

test("the content is what the extents say, and zeros where they say nothing", () => {
  const prng = new Prng(1);
  const chunks = new Map<number, Buffer>();
  for (const chunk of [1, 2, 3, 4]) {
    chunks.set(chunk, prng.fill(Buffer.alloc(16 * sectorBytes)));
  }
  const extents = [1, 2, 3, 4].map((chunk) =>
    extent(10 + chunk * 10, chunk === 2 ? 8 : 10, chunk, { chunkSector: chunk, chunkSectors: 16 }),
  );
  const plan = planGrain(extents, options)!;
  const content = contentOf(plan, extents, (key) => chunks.get(key[0]!)!)!;
  assert.equal(content.length, 40 * sectorBytes);
  for (const { firstSector, sectorCount, chunkSector, key } of extents) {
    const at = (firstSector - plan.firstSector) * sectorBytes;
    const from = chunkSector * sectorBytes;
    const wanted = chunks.get(key[0]!)!.subarray(from, from + sectorCount * sectorBytes);
    assert.ok(content.subarray(at, at + wanted.length).equals(wanted));
  }
  assert.ok(content.subarray(18 * sectorBytes, 20 * sectorBytes).every((byte) => byte === 0));
  const short = (key: Buffer) => chunks.get(key[0]!)!.subarray(sectorBytes);
  assert.equal(contentOf(plan, extents, short), null, "a chunk of another length than is named");
});

/** Writes of an encrypted grain, one after the other; what is planned must be read as was written. */
test("ciphertext of one chunk is read as the many that it was made of, or is not made", () => {
  const xts = new Xts(new Prng(keyDomain).fill(Buffer.alloc(dataKeyBytes)));
  const cipher = new VolumeCipher(keyDomain, xts);
  const grain = 1000;
  let planned = 0;
  let left = 0;
  for (let seed = 1; seed <= 400; seed += 1) {
    const prng = new Prng(seed);
    const unit = prng.pick([1, 8, 8, 8]);
    const plain: (Buffer | null)[] = new Array(sectorsPerGrain).fill(null);
    const owner: number[] = new Array(sectorsPerGrain).fill(-1);
    const chunks: { from: number; count: number; bytes: Buffer }[] = [];
    const writes = prng.between(4, 30);
    for (let write = 0; write < writes; write += 1) {
      const from = write === 0 ? 0 : unit * Math.floor(prng.unit() * (sectorsPerGrain / unit));
      const most = (sectorsPerGrain - from) / unit;
      // Small writes into a grain that was written as a whole before.
      const units = write === 0 ? most : 1 + Math.floor(prng.unit() * Math.min(5, most));
      const data = prng.fill(Buffer.alloc(units * unit * sectorBytes));
      const bytes = xts.encrypt(grain * sectorsPerGrain + from, [data]);
      for (let at = 0; at < data.length / sectorBytes; at += 1) {
        plain[from + at] = data.subarray(at * sectorBytes, (at + 1) * sectorBytes);
        owner[from + at] = chunks.length;
      }
      chunks.push({ from, count: data.length / sectorBytes, bytes });
    }
    const extents: Extent[] = [];
    for (let at = 0; at < sectorsPerGrain; at += 1) {
      const chunk = owner[at]!;
      if (chunk < 0) continue;
      const { from, count } = chunks[chunk]!;
      const last = extents.at(-1);
      if (last?.key[0] === chunk && last.firstSector + last.sectorCount === at) {
        extents[extents.length - 1] = { ...last, sectorCount: last.sectorCount + 1 };
        continue;
      }
      const place = { chunkSector: at - from, chunkSectors: count, keyDomain };
      extents.push(extent(at, 1, chunk, place));
    }
    const plan = planGrain(extents, { chunksMin: 2, wasteSectorsMin: 64 });
    if (plan === null) {
      left += 1;
      continue;
    }
    planned += 1;
    const content = contentOf(plan, extents, (key) => chunks[key[0]!]!.bytes)!;
    for (const run of plan.runs) {
      const part = { chunkSector: run.firstSector - plan.firstSector, keyDomain };
      const made = extent(run.firstSector, run.sectorCount, 99, {
        ...part,
        chunkSectors: plan.sectorCount,
      });
      const wanted = { firstSector: run.firstSector, endSector: run.firstSector + run.sectorCount };
      const opened = cipher.open(grain, made, wanted, content, 0)!;
      const written = plain.slice(wanted.firstSector, wanted.endSector) as Buffer[];
      assert.ok(opened.equals(Buffer.concat(written)), `seed ${seed}`);
    }
  }
  assert.ok(planned > 50 && left > 50, `${planned} planned, ${left} left`);
});
