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

/** Brick 9 asks bricks 1 and 2, both of which have the chunk and take so long to say so. */
function begin({ seed, answerMs }: { seed: number; answerMs: number }) {
  const world = new SimWorld(seed);
  const plain = world.host(9);
  const scene = {
    world,
    reachable: [] as readonly number[],
    timers: 0,
    holders: null as readonly number[] | null,
  };
  const after: typeof plain.clock.after = (delayMs, action) => {
    scene.timers += 1;
    return plain.clock.after(delayMs, action);
  };
  const host = { ...plain, clock: { ...plain.clock, after } };
  const calls = new Calls(plain);
  for (const brick of [1, 2]) {
    const other = world.host(brick);
    other.network.setPeers(new Map([[9, "sim:9"]]));
    new Calls(other).serve(messageType.chunkMark, (_from, _body, reply) =>
      other.clock.after(answerMs, () => reply(encodeChunkHasReply([true]))),
    );
  }
  host.network.setPeers(new Map([1, 2].map((brick) => [brick, `sim:${brick}`])));
  const state = () => stateOf(...scene.reachable);
  const context = { host, calls, state, options: { chunkTimeoutMs: 500 } };
  guardChunk(context as unknown as ChunkContext, key, [1, 2], (guarded) => {
    scene.holders = guarded.holders;
  });
  return scene;
}

test("while every holder is away they are waited for in one round after the other", async () => {
  const scene = begin({ seed: 1, answerMs: 0 });
  await scene.world.runFor(1200);
  assert.equal(scene.holders, null);
  const { timers } = scene;
  assert.ok(timers > 2 && timers <= 16, `${timers} rounds in 1.2 s`);
  scene.reachable = [1, 2];
  await scene.world.runFor(1000);
  assert.deepEqual(scene.holders, [1, 2]);
});

test("a holder that was away when its turn came, and is back before the others have answered, is asked", async () => {
  const scene = begin({ seed: 2, answerMs: 50 });
  scene.reachable = [1];
  await scene.world.runFor(20);
  scene.reachable = [1, 2];
  await scene.world.runFor(1000);
  assert.deepEqual(scene.holders, [1, 2]);
});
