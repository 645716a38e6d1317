import assert from "node:assert/strict";
import { test } from "node:test";
import { SimWorld } from "../../tools/sim/sim-host.ts";
import { encodeChunkHasReply } from "../chunk/chunk-messages.ts";
import type { ClusterState } from "../cluster-state.ts";
import { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { ChunkContext } from "./chunk-context.ts";
import { guardChunk } from "./chunk-guard.ts";

const key = Buffer.alloc(32, 7);

function stateOf(...reachable: readonly number[]): ClusterState {
  const brick = (number: number) => {
    const isReachable = reachable.includes(number);
    return { number, status: isReachable ? "up" : "down", reachable: isReachable };
  };
  return { gcEpoch: 3, bricks: { 1: brick(1), 2: brick(2) } } as unknown as ClusterState;
}

test("while every holder is away they are waited for in one round after the other", async () => {
  const world = new SimWorld(1);
  const plain = world.host(9);
  let timers = 0;
  const after: typeof plain.clock.after = (delayMs, action) => {
    timers += 1;
    return plain.clock.after(delayMs, action);
  };
  const host = { ...plain, clock: { ...plain.clock, after } };
  const calls = new Calls(plain);
  for (const brick of [1, 2]) {
    const other = world.host(brick);
    other.network.setPeers(new Map([[9, "sim:9"]]));
    new Calls(other).serve(messageType.chunkMark, (_from, _body, reply) =>
      reply(encodeChunkHasReply([true])),
    );
  }
  host.network.setPeers(new Map([1, 2].map((brick) => [brick, `sim:${brick}`])));
  let reachable: number[] = [];
  const state = () => stateOf(...reachable);
  const context = { host, calls, state, options: { chunkTimeoutMs: 500 } };
  let holders: readonly number[] | null = null;
  guardChunk(context as unknown as ChunkContext, key, [1, 2], (guarded) => {
    holders = guarded.holders;
  });
  await world.runFor(1200);
  assert.equal(holders, null);
  assert.ok(timers > 2 && timers <= 16, `${timers} rounds in 1.2 s`);
  reachable = [1, 2];
  await world.runFor(1000);
  assert.deepEqual(holders, [1, 2]);
});

test("a holder that was away when its turn came, and is back before the others have answered, is asked", async () => {
  const world = new SimWorld(2);
  const host = world.host(9);
  const calls = new Calls(host);
  for (const brick of [1, 2]) {
    const other = world.host(brick);
    other.network.setPeers(new Map([[9, "sim:9"]]));
    new Calls(other).serve(messageType.chunkMark, (_from, _body, reply) =>
      other.clock.after(50, () => reply(encodeChunkHasReply([true]))),
    );
  }
  host.network.setPeers(new Map([1, 2].map((brick) => [brick, `sim:${brick}`])));
  let reachable = [1];
  const state = () => stateOf(...reachable);
  const context = { host, calls, state, options: { chunkTimeoutMs: 500 } };
  let holders: readonly number[] | null = null;
  guardChunk(context as unknown as ChunkContext, key, [1, 2], (guarded) => {
    holders = guarded.holders;
  });
  await world.runFor(20);
  reachable = [1, 2];
  await world.runFor(1000);
  assert.deepEqual(holders, [1, 2]);
});
