import assert from "node:assert/strict";
import { test } from "node:test";
import type { Message } from "../host.ts";
import { messageType } from "../rpc/message-types.ts";
import { checkpointKvKey } from "../store/store-keys.ts";
import type { MapCluster } from "./map-cluster.test-support.ts";
import { begin, replaceSecond, verify, writeAll } from "./map-cluster-writes.test-support.ts";
import type { Replica } from "./replica.ts";
import { decodeReplicaHead } from "./replica-messages.ts";

/** Faults that the fuzz found once, each by what it takes to meet it: no chance has to find it again. */

/** Longer than any timer of a shard in which nothing happens. */
const quietMs = 2000;
/** Long enough for the log to have flushed what it was given. */
const healAfterMs = 50;

function replicaOf(cluster: MapCluster, brick: number): Replica {
  const [replica] = cluster.nodes.get(brick)!.map.replicas();
  return replica!;
}

function kindOf({ type, body }: Message) {
  return type === messageType.mapReplica ? decodeReplicaHead(Buffer.concat(body))?.kind : undefined;
}

test("a brick that restarts and is told an older state keeps what it took part in since", async () => {
  const { cluster, expected } = await begin(21);
  replaceSecond(cluster);
  await cluster.complete(3);
  cluster.view({ primary: 1, members: [1, 3], chain: [] });
  const without = cluster.shard;
  await cluster.start(2);
  cluster.view({ primary: 1, members: [1, 3], candidates: [2], transfer: true, chain: [without] });
  await cluster.complete(2);
  cluster.view({ primary: 1, members: [1, 2], chain: [] });
  await writeAll(cluster, expected, 0, 10, 2000);
  const present = cluster.shard;
  cluster.crash(2);
  cluster.shard = without;
  await cluster.start(2);
  cluster.shard = present;
  cluster.tell();
  cluster.crash(1);
  cluster.view({ primary: 2, members: [2], chain: [] });
  await verify(cluster, expected);
});

test("a checkpoint leaves out the entries that no flush has covered", async () => {
  // How much of the log a power cut leaves is the seed's.
  for (const seed of [22, 23, 24]) {
    const { cluster } = await begin(seed);
    const { world } = cluster;
    const { store } = cluster.nodes.get(1)!;
    const { disk } = world.machine(1);
    const stored = () => disk.kv("index")!.get(checkpointKvKey.toString("latin1"));
    const replica = replicaOf(cluster, 1);
    world.network.filter = (_from, _to, message) => {
      if (kindOf(message) !== "prepare") return true;
      world.network.filter = null;
      // Logged since, and not flushed yet.
      world.after(0, () => {
        assert.equal(replica.undurable.first?.op, replica.facts.commitOp + 1);
        store.checkpoint();
        const before = stored();
        // That is on its way already; the flush of the log is to come.
        disk.dials.syncMs = [1000, 1000];
        const look = () => {
          if (stored() === before) world.after(0.1, look);
          else {
            assert.equal(replica.undurable.first?.op, replica.facts.commitOp + 1);
            cluster.crash(1);
            disk.dials.syncMs = [1, 1];
          }
        };
        look();
      });
      return true;
    };
    await assert.rejects(cluster.write(0, 8, 8, 2000), /no answer that counts/);
    assert.ok(!cluster.nodes.has(1));
    await cluster.start(1);
    assert.ok(!replicaOf(cluster, 1).broken);
  }
});

test("a candidate takes no records before it was told to begin with an empty base", async () => {
  const { cluster, expected } = await begin(25);
  const { network } = cluster.world;
  const late: Message[] = [];
  network.filter = (from, _to, message) => {
    if (from !== 1 || kindOf(message) !== "overlay") return true;
    late.push({ ...message, body: [Buffer.concat(message.body)] });
    return false;
  };
  replaceSecond(cluster);
  await cluster.world.runUntil(() => late.length > 0);
  // The records overtake it.
  await cluster.world.runFor(50);
  network.filter = null;
  for (const message of late) cluster.nodes.get(1)!.host.network.send(3, message);
  await cluster.complete(3);
  cluster.crash(1);
  cluster.view({ primary: 3, members: [3], chain: [] });
  await verify(cluster, expected);
});

test("a proposal whose messages were lost is sent again, though nothing else happens", async () => {
  const { cluster, expected } = await begin(26);
  await cluster.world.runFor(quietMs);
  cluster.world.network.partition([1], [2]);
  cluster.world.after(healAfterMs, () => cluster.world.network.heal());
  await writeAll(cluster, expected, 0, 1, 2000);
  await verify(cluster, expected);
});
