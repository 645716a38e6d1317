import assert from "node:assert/strict";
import { test } from "node:test";
import { grainBytes, sectorBytes } from "../units.ts";
import { bytesOf, makeBench, makeCluster } from "../volume/gateway-bench.ts";
import { fillWith } from "../volume/sector-model.ts";

/** Parts of chunks: slices are counted from the chunk's start, units from the volume's. */

const sealed = { keyDomain: 3, keyCheck: "0".repeat(32) };
const noCache = { chunkCacheBytes: 0, mapCacheGrainsMax: 50, mapCacheCellsMax: 600 };

test("any part of a chunk that lies anywhere is read, also where later writes have cut it", async () => {
  for (const startSector of [0, 1, 3, 8, 13]) {
    const bench = makeBench(makeCluster(3, sealed), noCache);
    const { cluster, gateway } = bench;
    const first = (1000 * grainBytes) / sectorBytes + startSector;
    const model = fillWith(9, 96);
    const write = (sector: number, bytes: Buffer) =>
      cluster.time.until(gateway.write((first + sector) * sectorBytes, [Buffer.from(bytes)]));
    assert.deepEqual(await write(0, model), { ok: true });
    for (const cut of [21, 44]) {
      const piece = fillWith(50 + cut, 1);
      piece.copy(model, cut * sectorBytes);
      assert.deepEqual(await write(cut, piece), { ok: true });
    }
    for (const count of [1, 3, 8, 9]) {
      for (let sector = 0; sector + count <= 96; sector += 5) {
        const at = (first + sector) * sectorBytes;
        const read = await cluster.time.until(gateway.read(at, count * sectorBytes));
        const wanted = model.subarray(sector * sectorBytes, (sector + count) * sectorBytes);
        assert.ok(bytesOf(read).equals(wanted), `${count} at ${sector} from ${startSector}`);
      }
    }
  }
});
