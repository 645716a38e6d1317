import assert from "node:assert/strict";
import { Prng } from "../../brick/prng.ts";
import { grainBytes, KiB, MiB } from "../../brick/units.ts";
import { SimCluster } from "../sim/sim-cluster.ts";

/**
 * What a read of 64 KiB costs by how many chunks its grain is in, and what is left of that once the grain
 * was compacted: `node tools/bench/grain-reads.ts`. Three bricks in one process, on simulated disks and
 * network: the processor's time is real, and that of all of them together.
 */

const grains = 64;
const rounds = 10;
const answerMsMax = 600_000;
const chunkCounts = [1, 2, 4, 8, 16, 32, 128];

async function measure(chunks: number): Promise<string> {
  const cluster = new SimCluster({
    seed: 1,
    bricks: 3,
    shardCount: 1,
    volumeBytes: 64 * MiB,
    copies: 2,
    // What is read comes from holders; the map's records are known.
    memory: { chunkCacheBytes: 0 },
    compactionOptions: { chunksMin: 2, bytesPerSecond: 1024 * MiB, idleMs: 20_000 },
  });
  const { world } = cluster;
  await cluster.create();
  const prng = new Prng(1);
  const pieceBytes = grainBytes / chunks;
  const volume = () => cluster.volumeAt(1)!;
  const all = async (act: (grain: number) => Promise<{ ok: boolean }>) => {
    for (let grain = 0; grain < grains; grain += 1) {
      const result = await world.complete(act(grain), answerMsMax);
      assert.ok(result.ok);
    }
  };
  for (let piece = 0; piece < chunks; piece += 1) {
    await all((grain) => {
      const at = grain * grainBytes + piece * pieceBytes;
      return volume().write(at, [prng.fill(Buffer.alloc(pieceBytes))]);
    });
  }
  const readAll = () => all((grain) => volume().read(grain * grainBytes, grainBytes));
  const cost = async () => {
    await readAll();
    const before = process.cpuUsage();
    for (let round = 0; round < rounds; round += 1) await readAll();
    const { user, system } = process.cpuUsage(before);
    return (user + system) / (rounds * grains);
  };
  const recordBytes = () => {
    const { primary } = cluster.anyNode()!.control.state().shards[0]!;
    const { map } = cluster.nodes.get(primary)!;
    const [replica] = map.replicas();
    const { entries } = map.table.scan("base", 0, replica!.facts.incarnation, null, 1000);
    return entries.reduce((sum, { bytes }) => sum + bytes.length, 0) / entries.length;
  };
  const aged = { us: await cost(), bytes: recordBytes() };
  const compactedGrains = () =>
    [...cluster.nodes.values()].reduce(
      (sum, { compaction }) => sum + compaction.counters.grains,
      0,
    );
  if (chunks > 1) await world.runUntil(() => compactedGrains() === grains, answerMsMax);
  const after = { us: await cost(), bytes: recordBytes() };
  const cells = [chunks, aged.us.toFixed(0), aged.bytes];
  return [...cells, after.us.toFixed(0), after.bytes].map((cell) => `${cell}`.padStart(9)).join("");
}

process.stdout.write(`grains of ${grainBytes / KiB} KiB; us of processor time for one read\n`);
const head = ["chunks", "us", "map B", "us after", "map B"];
process.stdout.write(`${head.map((cell) => cell.padStart(9)).join("")}\n`);
// The first run is slower than any later one: the machine code is not made yet.
await measure(16);
for (const chunks of chunkCounts) process.stdout.write(`${await measure(chunks)}\n`);
