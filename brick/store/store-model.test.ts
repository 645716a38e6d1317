import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { SimWorld } from "../../tools/sim/sim-host.ts";
import { chunkKey } from "../chunk/key.ts";
import type { Host } from "../host.ts";
import { KiB } from "../units.ts";
import { Store } from "./store.ts";

/** A store on a simulated machine against a plain set, through crashes of every kind. */

type Command =
  | { type: "put"; seeds: number[] }
  | { type: "checkpoint" }
  | { type: "drop"; seed: number }
  | { type: "recycle" }
  | { type: "reopen"; how: "close" | "crash" | "kill"; waitMs: number };

const seed = fc.integer({ min: 0, max: 11 });
const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant("put" as const),
      seeds: fc.array(seed, { minLength: 1, maxLength: 5 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("checkpoint" as const) }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant("drop" as const), seed }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("recycle" as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant("reopen" as const),
      how: fc.constantFrom("close" as const, "crash" as const, "kill" as const),
      waitMs: fc.nat(4),
    }),
  },
);

const identity = { clusterId: "00".repeat(16), brick: 1, uuid: "cd".repeat(16) };
const origin = { branch: 1, grain: 2, firstSector: 0, sequence: 3 };

function chunkOf(number: number): Buffer {
  return Buffer.alloc(512 * (1 + number), 17 * number + 1);
}

function openStore(host: Host): Promise<Store> {
  return Store.open(host, {
    capacityBytes: 64 * 16 * KiB,
    segmentBytes: 16 * KiB,
    participants: [],
    identity,
  });
}

/** "kept": answered and not given up; "open": may be there or not. */
type Expected = Map<number, "kept" | "open">;

async function check(world: SimWorld, store: Store, expected: Expected): Promise<void> {
  for (let number = 0; number < 12; number += 1) {
    const read = await world.complete(store.readChunk(chunkKey(chunkOf(number))));
    const want = expected.get(number);
    if (read.ok) assert.ok(want !== undefined && read.bytes.equals(chunkOf(number)));
    else assert.ok(want !== "kept" && read.fault.code === "absent");
  }
}

async function runCommands(worldSeed: number, commands: readonly Command[]): Promise<void> {
  const world = new SimWorld(worldSeed);
  let store = await world.complete(openStore(world.host(1)));
  const expected: Expected = new Map();
  for (const next of commands) {
    if (next.type === "put") {
      for (const number of next.seeds) {
        if (!expected.has(number)) expected.set(number, "open");
        const bytes = chunkOf(number);
        store.put(chunkKey(bytes), bytes, origin, (result) => {
          if (result.ok) expected.set(number, "kept");
        });
      }
    } else if (next.type === "checkpoint") store.checkpoint();
    else if (next.type === "recycle") await world.complete(store.recycle());
    else if (next.type === "drop") {
      await world.runFor(20);
      store.dropChunk(chunkKey(chunkOf(next.seed)));
      if (expected.has(next.seed)) expected.set(next.seed, "open");
    } else {
      if (next.how === "close") await world.complete(store.close());
      else await world.runFor(next.waitMs);
      if (next.how === "crash") world.machine(1).crash();
      else world.machine(1).kill();
      store = await world.complete(openStore(world.host(1)));
      await check(world, store, expected);
    }
  }
  await world.runFor(100);
  await check(world, store, expected);
  assert.deepEqual(
    world.crashes.filter(({ cause }) => cause !== "power"),
    [],
  );
}

test("a store is a set of chunks that survives whatever its machine does", async () => {
  await fc.assert(fc.asyncProperty(fc.nat(), fc.array(command, { maxLength: 40 }), runCommands), {
    numRuns: 60,
  });
});
