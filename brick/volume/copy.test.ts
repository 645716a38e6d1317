import assert from "node:assert/strict";
import { test } from "node:test";
import { chunkKey } from "../chunk/key.ts";
import { shardOf } from "../cluster-state.ts";
import { newUnit, reservationType } from "../unit/unit-record.ts";
import { GiB, grainBytes, MiB, sectorBytes } from "../units.ts";
import { readAt, scribble, until } from "./copy-scene.test-support.ts";
import { type Bench, makeBench, makeCluster } from "./gateway-bench.ts";
import { renewalsMax } from "./gateway-writes.ts";
import { copyBytesMax } from "./limits.ts";
import { fillWith } from "./sector-model.ts";
import { type VolumeDone, VolumeTask } from "./volume.ts";

const noCache = { chunkCacheBytes: 0, mapCacheGrainsMax: 50, mapCacheCellsMax: 600 };
const otherUuid = "e".repeat(32);

function own({ cluster }: Bench, offsetBytes: number) {
  return { uuid: cluster.volume.uuid, offsetBytes };
}

function codeOf(result: VolumeDone): string {
  return result.ok ? "ok" : result.fault.code;
}

/** A second volume, whose gateway is at another brick (or nowhere). */
function withOther(bench: Bench, epoch: number | null): Bench {
  const { cluster } = bench;
  const other = { ...cluster.volume, name: "other", uuid: otherUuid, branch: 9, family: 9 };
  cluster.setState({
    volumes: { ...cluster.state.volumes, other },
    attachments: epoch === null ? {} : { [otherUuid]: { brick: 2, boot: 1, epoch } },
  });
  return makeBench(cluster, noCache, epoch ?? 0, 2, "other");
}

test("a copy reads as its source, moves no bytes, and does not change with it", async () => {
  const bench = makeBench(makeCluster(1), noCache);
  const { gateway, cluster, stats } = bench;
  const model = Buffer.alloc(20 * grainBytes);
  // Across the border of two shard runs.
  const from = 1020 * grainBytes;
  await scribble(bench, from, model);
  const puts = () => [...cluster.bricks.values()].reduce((sum, brick) => sum + brick.puts, 0);
  const before = puts();
  const inline = stats.piecesInline;
  for (const [at, shift] of [
    [0, 0],
    [3000 * grainBytes, 0],
    [5000 * grainBytes, 5],
    [1050 * grainBytes, 127],
  ] as const) {
    const to = at + shift * sectorBytes;
    const copied = gateway.copyFrom(own(bench, from), to, model.length);
    assert.deepEqual(await until(bench, copied), { ok: true });
    assert.ok((await readAt(bench, to, model.length)).equals(model));
    gateway.map.clear();
    assert.ok((await readAt(bench, to, model.length)).equals(model));
  }
  assert.deepEqual([puts(), stats.piecesInline], [before, inline]);
  assert.ok(stats.piecesReferenced > 0 && stats.copies === 4);
  await until(bench, gateway.write(from, [fillWith(7, 20 * 128)]));
  assert.ok((await readAt(bench, 0, model.length)).equals(model));
  assert.deepEqual(cluster.violations, []);
  assert.equal(gateway.ranges.heldCount, 0);
});

/** The chunks of a grain of the bench's volume become one; what they were is swept everywhere. */
function compact({ cluster }: Bench, grain: number): void {
  const { branch, family } = cluster.volume;
  const sectors = cluster.shards[shardOf(cluster.state, family, grain)]!.grains.get(
    `${branch}/${grain}`,
  )!;
  const chunks = [...cluster.bricks.values()].map((brick) => brick.chunks);
  const bytesOfKey = (key: Buffer) =>
    chunks.map((kept) => kept.get(key.toString("hex"))).find((bytes) => bytes !== undefined)!;
  const whole = Buffer.concat(
    sectors.map((sector) => {
      const at = sector!.chunkSector * sectorBytes;
      return bytesOfKey(sector!.key).subarray(at, at + sectorBytes);
    }),
  );
  const key = chunkKey(whole);
  for (const sector of sectors) {
    for (const kept of chunks) kept.delete(sector!.key.toString("hex"));
  }
  const holders = [1, 2];
  for (const holder of holders) cluster.brick(holder).chunks.set(key.toString("hex"), whole);
  for (const at of sectors.keys()) {
    sectors[at] = { key, holders, keyDomain: undefined, chunkSector: at, chunkSectors: 128 };
  }
}

test("what is rewritten and swept behind the look-up is looked up once more", async () => {
  const bench = makeBench(makeCluster(11), noCache);
  const { gateway, cluster } = bench;
  const model = Buffer.concat([1, 2, 3, 4].map((seed) => fillWith(seed, 32)));
  for (const at of [0, 1, 2, 3]) {
    const offsetBytes = at * 32 * sectorBytes;
    const bytes = model.subarray(offsetBytes, offsetBytes + 32 * sectorBytes);
    assert.deepEqual(await until(bench, gateway.write(offsetBytes, [bytes])), { ok: true });
  }
  cluster.heldLookups = [];
  const copied = gateway.copyFrom(own(bench, 0), 64 * MiB + sectorBytes, grainBytes);
  await cluster.time.run(50);
  compact(bench, 0);
  const held = cluster.heldLookups;
  cluster.heldLookups = null;
  for (const release of held) release();
  assert.deepEqual(await until(bench, copied), { ok: true });
  assert.ok((await readAt(bench, 64 * MiB + sectorBytes, grainBytes)).equals(model));
  assert.deepEqual(cluster.violations, []);
  assert.equal(gateway.ranges.heldCount, 0);
});

test("what the copy may have written over is not looked up once more", async () => {
  const bench = makeBench(makeCluster(12), noCache);
  const { gateway, cluster } = bench;
  assert.deepEqual(await until(bench, gateway.write(0, [fillWith(1, 128)])), { ok: true });
  for (const { chunks } of cluster.bricks.values()) chunks.clear();
  const { mapLookups } = cluster;
  const copied = gateway.copyFrom(own(bench, 0), sectorBytes, grainBytes);
  assert.equal(codeOf(await until(bench, copied)), "unavailable");
  assert.equal(cluster.mapLookups - mapLookups, 1);
});

test("a chunk that the map goes on naming, and nobody has, is looked up a few times", async () => {
  const bench = makeBench(makeCluster(13), noCache);
  const { gateway, cluster } = bench;
  assert.deepEqual(await until(bench, gateway.write(0, [fillWith(1, 128)])), { ok: true });
  for (const { chunks } of cluster.bricks.values()) chunks.clear();
  const { mapLookups } = cluster;
  const copied = gateway.copyFrom(own(bench, 0), 64 * MiB, grainBytes);
  assert.equal(codeOf(await until(bench, copied)), "unavailable");
  assert.equal(cluster.mapLookups - mapLookups, 1 + renewalsMax);
  await cluster.time.run(1000);
  assert.equal(gateway.ranges.heldCount, 0);
});

test("ranges that overlap read as before the copy, either way", async () => {
  for (const shift of [-130, -128, -5, 5, 128, 131, 64 * 128 + 3]) {
    const bench = makeBench(makeCluster(2), noCache);
    const { gateway } = bench;
    const from = 1000 * grainBytes + 700 * sectorBytes;
    const length = 70 * grainBytes;
    const model = Buffer.alloc(length);
    await scribble(bench, from, model);
    const to = from + shift * sectorBytes;
    const copied = await until(bench, gateway.copyFrom(own(bench, from), to, length));
    assert.deepEqual(copied, { ok: true });
    assert.ok((await readAt(bench, to, length)).equals(model), `shift ${shift}`);
  }
});

test("a copy of nothing removes what was there, and logs nothing where nothing was", async () => {
  const bench = makeBench(makeCluster(3), noCache);
  const { gateway, cluster } = bench;
  await until(bench, gateway.write(5 * MiB, [fillWith(1, 8)]));
  const writes = cluster.mapWrites;
  const copied = gateway.copyFrom(own(bench, 512 * MiB), 0, 64 * MiB);
  assert.deepEqual(await until(bench, copied), { ok: true });
  assert.ok((await readAt(bench, 5 * MiB, 4096)).equals(Buffer.alloc(4096)));
  assert.ok(cluster.mapWrites - writes <= 16, `${cluster.mapWrites - writes} map operations`);
});

for (const epoch of [null, 5]) {
  test(`from another volume, ${epoch === null ? "served nowhere" : "served elsewhere"}`, async () => {
    const bench = makeBench(makeCluster(4), noCache, 3);
    const other = withOther(bench, epoch);
    const model = Buffer.alloc(9 * grainBytes);
    await scribble(other, 3 * sectorBytes, model);
    const source = { uuid: otherUuid, offsetBytes: 3 * sectorBytes };
    const copied = bench.gateway.copyFrom(source, 2 * grainBytes, model.length);
    assert.deepEqual(await until(bench, copied), { ok: true });
    assert.ok((await readAt(bench, 2 * grainBytes, model.length)).equals(model));
    assert.ok((await readAt(other, 3 * sectorBytes, model.length)).equals(model));
    assert.deepEqual(bench.cluster.violations, []);
  });
}

test("when the source moves meanwhile, it is looked up under its new attachment", async () => {
  const bench = makeBench(makeCluster(5), noCache, 3);
  const { cluster } = bench;
  const other = withOther(bench, 5);
  await until(other, other.gateway.write(0, [fillWith(1, 8)]));
  // Another gateway has fenced the shard, and this brick has not heard of it.
  const heir = makeBench(cluster, noCache, 6, 3, "other");
  await until(heir, heir.gateway.write(0, [fillWith(2, 8)]));
  const copied = bench.gateway.copyFrom({ uuid: otherUuid, offsetBytes: 0 }, 0, 4096);
  await cluster.time.run(200);
  assert.equal(bench.stats.copies, 0);
  cluster.setState({ attachments: { [otherUuid]: { brick: 3, boot: 1, epoch: 6 } } });
  assert.deepEqual(await until(bench, copied), { ok: true });
  assert.ok((await readAt(bench, 0, 4096)).equals(fillWith(2, 8)));
});

test("writes to either range come before or after a copy inside a volume", async () => {
  const bench = makeBench(makeCluster(6), noCache);
  const { gateway, cluster } = bench;
  const length = 4 * grainBytes;
  await until(bench, gateway.write(0, [fillWith(1, 4 * 128)]));
  cluster.heldLookups = [];
  const copied = gateway.copyFrom(own(bench, 0), 64 * MiB, length);
  const source = gateway.write(0, [fillWith(2, 4 * 128)]);
  const target = gateway.write(64 * MiB, [fillWith(3, 8)]);
  const back = gateway.copyFrom(own(bench, 64 * MiB), 0, length);
  await cluster.time.run(50);
  const held = cluster.heldLookups;
  cluster.heldLookups = null;
  for (const release of held) release();
  for (const result of await until(bench, Promise.all([copied, source, target, back]))) {
    assert.deepEqual(result, { ok: true });
  }
  const expected = Buffer.concat([fillWith(3, 8), fillWith(1, 4 * 128 - 8)]);
  assert.ok((await readAt(bench, 64 * MiB, length)).equals(expected));
  assert.ok((await readAt(bench, 0, length)).equals(expected));
  assert.equal(gateway.ranges.heldCount, 0);
});

test("a cancel ends a copy, and what has landed has", async () => {
  const bench = makeBench(makeCluster(7), { ...noCache, piecesUnderWayMax: 4 });
  const { gateway, cluster } = bench;
  await until(bench, gateway.write(0, [fillWith(1, 200 * 128)]));
  const task = new VolumeTask();
  const copied = gateway.copyFrom(own(bench, 0), 512 * MiB, 200 * grainBytes, { task });
  await cluster.time.run(20);
  task.cancel();
  assert.deepEqual(await until(bench, copied), { ok: false, fault: { code: "cancelled" } });
  assert.equal(gateway.ranges.heldCount, 0);
  assert.equal(gateway.operationCount, 0);
});

test("a copy obeys what both volumes' initiators have reserved", async () => {
  const bench = makeBench(makeCluster(8), noCache, 3);
  const other = withOther(bench, 5);
  const { cluster, gateway } = bench;
  await until(other, other.gateway.write(0, [fillWith(1, 8)]));
  const holder = { initiatorPort: "iqn.2026-11.example:a,i,0x00023d000001", targetPort: 1 };
  const stranger = { ...holder, targetPort: 2 };
  const held = { type: reservationType.exclusiveAccess, holder };
  const registrations = [{ nexus: holder, key: "0000000000000001" }];
  const unit = {
    ...newUnit,
    version: 1,
    reservations: { ...newUnit.reservations, registrations, held },
  };
  const source = { uuid: otherUuid, offsetBytes: 0 };
  const copy = async (nexus: typeof holder) =>
    codeOf(
      await until(
        bench,
        gateway.copyFrom(source, 0, 4096, { task: new VolumeTask(nexus, unit.noticeNext) }),
      ),
    );
  for (const uuid of [otherUuid, cluster.volume.uuid]) {
    cluster.setState({ units: { [uuid]: unit } });
    assert.equal(await copy(stranger), "reservation_conflict");
    assert.equal(await copy(holder), "ok");
  }
});

test("what is too long, outside or of no volume is refused", async () => {
  const bench = makeBench(makeCluster(9, { sizeBytes: 2 * GiB }), noCache);
  const { gateway } = bench;
  const copy = async (uuid: string, from: number, to: number, length: number) =>
    codeOf(await until(bench, gateway.copyFrom({ uuid, offsetBytes: from }, to, length)));
  const { uuid } = bench.cluster.volume;
  assert.equal(await copy(uuid, 0, 1 * GiB, copyBytesMax), "ok");
  assert.equal(await copy(uuid, 0, 0, copyBytesMax + 512), "unavailable");
  assert.equal(await copy(uuid, 2 * GiB, 0, 512), "out_of_range");
  assert.equal(await copy(uuid, 0, 2 * GiB, 512), "out_of_range");
  assert.equal(await copy(uuid, 100, 0, 512), "out_of_range");
  assert.equal(await copy(otherUuid, 0, 0, 512), "deleted");
});
