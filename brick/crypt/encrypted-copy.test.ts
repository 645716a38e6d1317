import assert from "node:assert/strict";
import { test } from "node:test";
import { grainBytes, sectorBytes } from "../units.ts";
import { readAt, scribble, until } from "../volume/copy-scene.test-support.ts";
import { makeBench, makeCluster } from "../volume/gateway-bench.ts";
import { fillWith } from "../volume/sector-model.ts";

/** EXTENDED COPY where the source, the destination or both are encrypted: bytes, not references. */

const noCache = { chunkCacheBytes: 0, mapCacheGrainsMax: 50, mapCacheCellsMax: 600 };
const otherUuid = "e".repeat(32);
const sealedBy = (keyDomain: number) => ({ keyDomain, keyCheck: "0".repeat(32) });

test("inside an encrypted volume, overlapping either way, it reads as the source did", async () => {
  for (const shift of [-130, -128, -5, 5, 128, 131, 64 * 128 + 3, 3000 * 128]) {
    const bench = makeBench(makeCluster(2, sealedBy(3)), noCache);
    const { gateway, cluster, stats } = bench;
    const from = 1000 * grainBytes + 700 * sectorBytes;
    const length = 70 * grainBytes;
    const model = Buffer.alloc(length);
    await scribble(bench, from, model);
    const to = from + shift * sectorBytes;
    const source = { uuid: cluster.volume.uuid, offsetBytes: from };
    const copied = await until(bench, gateway.copyFrom(source, to, length));
    assert.deepEqual(copied, { ok: true });
    assert.ok((await readAt(bench, to, length)).equals(model), `shift ${shift}`);
    gateway.map.clear();
    assert.ok((await readAt(bench, to, length)).equals(model), `shift ${shift}, looked up`);
    assert.equal(stats.piecesReferenced, 0);
    assert.deepEqual(cluster.violations, []);
    assert.equal(gateway.ranges.heldCount, 0);
  }
});

for (const [sourceKey, targetKey] of [
  [undefined, 3],
  [3, undefined],
  [3, 4],
]) {
  test(`from a volume of key ${sourceKey} to one of key ${targetKey}`, async () => {
    const cluster = makeCluster(4, targetKey === undefined ? {} : sealedBy(targetKey));
    const bench = makeBench(cluster, noCache, 3);
    const { keyDomain: _domain, keyCheck: _check, ...plain } = cluster.volume;
    const key = sourceKey === undefined ? {} : sealedBy(sourceKey);
    const other = { ...plain, ...key, name: "other", uuid: otherUuid, branch: 9, family: 9 };
    cluster.setState({
      volumes: { ...cluster.state.volumes, other },
      attachments: { [otherUuid]: { brick: 2, boot: 1, epoch: 5 } },
    });
    const there = makeBench(cluster, noCache, 5, 2, "other");
    const model = Buffer.alloc(9 * grainBytes);
    await scribble(there, 3 * sectorBytes, model);
    await until(bench, bench.gateway.write(2 * grainBytes, [fillWith(5, 9 * 128)]));
    const source = { uuid: otherUuid, offsetBytes: 3 * sectorBytes };
    const copied = bench.gateway.copyFrom(source, 2 * grainBytes, model.length);
    assert.deepEqual(await until(bench, copied), { ok: true });
    assert.ok((await readAt(bench, 2 * grainBytes, model.length)).equals(model));
    assert.ok((await readAt(there, 3 * sectorBytes, model.length)).equals(model));
    assert.deepEqual(cluster.violations, []);
  });
}

test("what is not of the volume's key is never given out: none, or another's", async () => {
  const written = fillWith(9, 256);
  for (const [first, then] of [
    [undefined, 3],
    [3, undefined],
    [3, 4],
  ]) {
    const cluster = makeCluster(6, first === undefined ? {} : sealedBy(first));
    const before = makeBench(cluster, noCache, 1);
    await until(before, before.gateway.write(0, [written]));
    // As no command of the control plane does it: the map is older than the key.
    const { keyDomain: _domain, keyCheck: _check, ...plain } = cluster.volume;
    const disk = { ...plain, ...(then !== undefined && sealedBy(then)) };
    cluster.setState({ volumes: { disk } });
    const after = makeBench(cluster, noCache, 2);
    const read = await until(after, after.gateway.read(0, written.length));
    assert.equal(read.ok ? "ok" : read.fault.code, "unavailable");
  }
});
