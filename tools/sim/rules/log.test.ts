import assert from "node:assert/strict";
import { test } from "node:test";
import { chunkKey } from "../../../brick/chunk/key.ts";
import { type PutResult, Store } from "../../../brick/store/store.ts";
import { KiB, MiB } from "../../../brick/units.ts";
import { SimWorld } from "../sim-host.ts";

/** What a brick may say of its own log. docs/simulation.md names the rules. */

const identity = { clusterId: "00".repeat(16), brick: 1, uuid: "11".repeat(16) };
const origin = { branch: 1, grain: 0, firstSector: 0, sequence: 0 };

/** One brick's store on a machine that dies at will. */
class LogScene {
  readonly world = new SimWorld(1);
  store!: Store;

  static async begin(): Promise<LogScene> {
    const scene = new LogScene();
    await scene.start();
    // The log's space is prepared.
    await scene.world.runFor(1000);
    return scene;
  }

  async start(): Promise<void> {
    const sizes = { capacityBytes: 64 * MiB, segmentBytes: 1 * MiB };
    const opened = Store.open(this.world.host(1), { ...sizes, participants: [], identity });
    this.store = await this.world.complete(opened);
  }

  /** null until it is answered. */
  put(bytes: Buffer): { result: PutResult | null } {
    const put: { result: PutResult | null } = { result: null };
    this.store.put(chunkKey(bytes), bytes, origin, (result) => {
      put.result = result;
    });
    return put;
  }

  get machine() {
    return this.world.machine(1);
  }
}

test("what a killed process had not flushed is durable before its next boot answers", async () => {
  const scene = await LogScene.begin();
  const bytes = Buffer.alloc(64 * KiB, "written and not flushed");
  scene.machine.disk.dials.slowness = 100;
  const first = scene.put(bytes);
  await scene.world.runFor(12);
  scene.machine.kill();
  scene.machine.disk.dials.slowness = 1;
  await scene.start();
  const again = scene.put(bytes);
  await scene.world.runUntil(() => again.result !== null);
  assert.deepEqual([first.result, again.result], [null, { ok: true, deduplicated: true }]);
  scene.machine.crash();
  await scene.start();
  assert.ok(scene.store.has(chunkKey(bytes)));
});

test("each start has a boot number that none before it had, whatever ends it", async () => {
  const scene = await LogScene.begin();
  const boots = [scene.store.superblock.boot];
  for (const end of ["crash", "kill", "crash", "crash"] as const) {
    scene.machine[end]();
    await scene.start();
    boots.push(scene.store.superblock.boot);
  }
  assert.deepEqual(boots, [1, 2, 3, 4, 5]);
});

test("a failed flush ends the brick, and what waited for it is not answered", async () => {
  const scene = await LogScene.begin();
  const put = scene.put(Buffer.alloc(64 * KiB, "never durable"));
  // That of the segment that is written, and none of those that are made ready for later.
  scene.machine.disk.fault = (call, path) =>
    call === "sync" && path === "log/segment-00000001" ? "EIO" : null;
  await scene.world.runFor(1000);
  assert.deepEqual([put.result, scene.machine.running], [null, false]);
});
