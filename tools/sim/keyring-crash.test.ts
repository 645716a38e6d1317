import assert from "node:assert/strict";
import { test } from "node:test";
import { Keyring, WrongMasterKeyError } from "../../brick/crypt/keyring-io.ts";
import type { Disk, DiskFile } from "../../brick/host.ts";
import { Prng } from "../../brick/prng.ts";
import { SimWorld } from "./sim-host.ts";

/** A brick's keyring, with the power cut before every call that it makes of its disk. */

const clusterId = "0123456789abcdef".repeat(2);
const oldKey = new Prng(1).fill(Buffer.alloc(64));
const newKey = new Prng(2).fill(Buffer.alloc(64));
const never = new Promise<never>(() => {});

/** Runs `cut` instead of the call with that number; nothing comes after it. */
function cutting(
  disk: Disk,
  callsMax: number,
  cut: () => void,
): { disk: Disk; calls: () => number } {
  let calls = 0;
  const meet = <T>(act: () => Promise<T>): Promise<T> => {
    calls += 1;
    if (calls <= callsMax) return act();
    if (calls === callsMax + 1) cut();
    return never;
  };
  const fileOf = (file: DiskFile): DiskFile => ({
    read: (...args) => meet(() => file.read(...args)),
    write: (...args) => meet(() => file.write(...args)),
    sync: () => meet(() => file.sync()),
    sizeBytes: () => meet(() => file.sizeBytes()),
    truncate: (...args) => meet(() => file.truncate(...args)),
    close: () => meet(() => file.close()),
  });
  const wrapped: Disk = {
    open: (...args) => meet(async () => fileOf(await disk.open(...args))),
    list: (...args) => meet(() => disk.list(...args)),
    remove: (...args) => meet(() => disk.remove(...args)),
    rename: (...args) => meet(() => disk.rename(...args)),
    syncFolder: (...args) => meet(() => disk.syncFolder(...args)),
    freeBytes: () => disk.freeBytes(),
    openKv: (folder) => disk.openKv(folder),
  };
  return { disk: wrapped, calls: () => calls };
}

function open(disk: Disk, masterKey = Buffer.alloc(32, 5)): Promise<Keyring> {
  const prng = new Prng(9);
  return Keyring.open({ disk, clusterId, masterKey, random: (n) => prng.fill(Buffer.alloc(n)) });
}

/** One run: a keyring with key 1, the act with the power cut before call `callsMax` + 1, a new start. */
async function run(seed: number, callsMax: number, act: (keyring: Keyring) => Promise<void>) {
  const world = new SimWorld(seed);
  const machine = world.machine(1);
  const before = await world.complete(open(world.host(1).disk), 1_000);
  await world.complete(before.put(1, Buffer.from(oldKey)), 1_000);
  machine.crash();
  const host = world.host(1);
  let whole = false;
  const { disk, calls } = cutting(host.disk, callsMax, () => machine.crash());
  const keyring = open(disk);
  keyring.then(act).then(() => {
    whole = true;
  });
  await world.runUntil(() => whole || !machine.running, 10_000);
  machine.crash();
  const after = await world.complete(open(world.host(1).disk), 1_000);
  return { whole, calls: calls(), after, world };
}

test("a key that is being kept is there or not, and what was there is", async () => {
  for (let callsMax = 1, whole = false; !whole; callsMax += 1) {
    for (const seed of [1, 2, 3]) {
      const ended = await run(seed, callsMax, (keyring) => keyring.put(2, Buffer.from(newKey)));
      whole = ended.whole;
      const { after } = ended;
      assert.equal(after.damagedFiles, 0, `cut before call ${callsMax + 1}`);
      assert.deepEqual(after.keyOf(1), oldKey);
      const found = after.keyOf(2);
      if (found !== null || whole) assert.deepEqual(found, newKey);
    }
  }
});

test("a key that is being destroyed is there, damaged or gone; and gone after another try", async () => {
  for (let callsMax = 1, whole = false; !whole; callsMax += 1) {
    for (const seed of [1, 2, 3]) {
      const ended = await run(seed, callsMax, (keyring) => keyring.destroy(1));
      whole = ended.whole;
      const { after, world } = ended;
      if (whole) assert.equal(after.has(1), false);
      const found = after.keyOf(1);
      if (found !== null) assert.deepEqual(found, oldKey);
      await world.complete(after.destroy(1), 1_000);
      assert.deepEqual(world.machine(1).disk.paths(), []);
    }
  }
});

test("with another master key nothing is opened, and the file is named", async () => {
  const world = new SimWorld(4);
  const host = world.host(1);
  const keyring = await world.complete(open(host.disk), 1_000);
  await world.complete(keyring.put(12, Buffer.from(oldKey)), 1_000);
  const refused = open(host.disk, Buffer.alloc(32, 6)).then(
    () => null,
    (error: unknown) => error,
  );
  const error = await world.complete(refused, 1_000);
  assert.ok(error instanceof WrongMasterKeyError);
  assert.equal(error.path, "keys/00012.key");
});
