import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../prng.ts";
import { KiB } from "../units.ts";
import { epochsKept, Stamps, slotBytes } from "./stamps.ts";

const segmentBytes = 64 * KiB;

test("stamps agree with a plain map, whatever epochs pass and whichever segments are recycled", () => {
  const prng = new Prng(4);
  const stamps = new Stamps(segmentBytes);
  const model = new Map<string, number>();
  const uses = new Map<number, number>();
  const slots = segmentBytes / slotBytes;
  const place = () => {
    const segment = prng.between(1, 3);
    const offsetBytes = prng.between(0, slots - 1) * slotBytes + prng.between(0, slotBytes - 1);
    return { segment, epoch: uses.get(segment) ?? 1, offsetBytes };
  };
  const nameOf = ({ segment, epoch, offsetBytes }: ReturnType<typeof place>) =>
    `${segment}/${epoch}/${Math.floor(offsetBytes / slotBytes)}`;
  const expected = (name: string) => {
    const epoch = model.get(name);
    return epoch !== undefined && epoch > stamps.clock - epochsKept ? epoch : null;
  };
  let found = 0;
  for (let step = 0; step < 200_000; step += 1) {
    const dice = prng.unit();
    const one = place();
    if (dice < 0.5) {
      stamps.stamp(one);
      model.set(nameOf(one), stamps.clock);
    } else if (dice < 0.6) {
      const other = place();
      const epoch = expected(nameOf(one));
      stamps.carry(one, other);
      if (epoch !== null) model.set(nameOf(other), epoch);
    } else if (dice < 0.605) stamps.reach(stamps.clock + prng.between(-2, 4));
    else if (dice < 0.606) {
      stamps.forget(one.segment);
      uses.set(one.segment, one.epoch + 1);
    } else {
      if (expected(nameOf(one)) !== null) found += 1;
      assert.equal(stamps.epochOf(one), expected(nameOf(one)));
    }
  }
  assert.ok(found > 5000, `only ${found} stamps were found again`);
});

test("the stamps of a segment take 1/2048 of its size", () => {
  const stamps = new Stamps(64 * 1024 * KiB);
  stamps.stamp({ segment: 1, epoch: 1, offsetBytes: 0 });
  assert.equal(stamps.memoryBytes, (64 * 1024 * KiB) / 2048);
});

test("small chunks that share a long slot are protected as long as any of them", () => {
  const stamps = new Stamps(64 * 1024 * KiB, 4 * KiB);
  const at = (offsetBytes: number) => ({ segment: 1, epoch: 1, offsetBytes });
  stamps.reach(5);
  stamps.stamp(at(4 * KiB));
  stamps.reach(6);
  stamps.stamp(at(6 * KiB));
  assert.equal(stamps.epochOf(at(4 * KiB)), 6);
  assert.equal(stamps.epochOf(at(2 * KiB)), null);
  assert.equal(stamps.epochOf(at(8 * KiB)), null);
  stamps.stamp(at(64 * 1024 * KiB - 512));
  assert.equal(stamps.memoryBytes, 4096);
});
