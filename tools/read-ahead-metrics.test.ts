import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../brick/prng.ts";
import { grainBytes, MiB } from "../brick/units.ts";
import { brickMetrics } from "./brick-metrics.ts";
import { CommandCounters } from "./command-counters.ts";
import { SimCluster } from "./sim/sim-cluster.ts";

const answerMsMax = 60_000;
const roomBytes = 3 * grainBytes;
const readBytes = 2 * grainBytes;

test("a brick keeps what it reads ahead within its part of the memory, and tells of it", async () => {
  const cluster = new SimCluster({
    seed: 1,
    bricks: 3,
    shardCount: 1,
    volumeBytes: 64 * MiB,
    copies: 2,
    memory: { chunkCacheBytes: 0, readAheadBytes: roomBytes },
  });
  const { world } = cluster;
  await cluster.create();
  const volume = cluster.volumeAt(1)!;
  const data = new Prng(1).fill(Buffer.alloc(2 * MiB));
  const written = await world.complete(volume.write(0, [Buffer.from(data)]), answerMsMax);
  assert.ok(written.ok);
  const node = cluster.nodes.get(1)!;
  const commands = new CommandCounters(node.store.stages);
  const metrics = brickMetrics({ node, wire: () => null, commands, latencies: new Map() });
  const ahead = () => {
    const values = metrics.values();
    return {
      asked: values.endisk_read_ahead_bytes_total!,
      used: values.endisk_read_ahead_used_bytes_total!,
      dropped: values.endisk_read_ahead_dropped_bytes_total!,
      held: values.endisk_read_ahead_held_bytes!,
    };
  };
  assert.deepEqual(ahead(), { asked: 0, used: 0, dropped: 0, held: 0 });
  for (let at = 0; at < data.length / 2; at += readBytes) {
    const result = await world.complete(volume.read(at, readBytes), answerMsMax);
    assert.ok(result.ok);
    assert.ok(Buffer.concat(result.buffers).equals(data.subarray(at, at + readBytes)));
    result.release?.();
    assert.ok(ahead().held <= roomBytes, `${ahead().held}`);
  }
  const reading = ahead();
  assert.ok(reading.used >= data.length / 4, `${reading.used}`);
  assert.equal(reading.held, roomBytes);
  assert.deepEqual(reading, { ...reading, asked: reading.used + reading.held, dropped: 0 });
  node.volumes.close();
  assert.deepEqual(ahead(), { ...reading, dropped: roomBytes, held: 0 });
});
