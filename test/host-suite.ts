import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  type Disk,
  DiskError,
  type Kv,
  type KvChange,
  type Message,
  type Network,
} from "../brick/host.ts";
import { Prng } from "../brick/prng.ts";
import { giveBack } from "../brick/rpc/lent-memory.ts";
import { KiB, MiB } from "../brick/units.ts";

/** One examination for the real machine and the simulated one: what code above may rely on. */

export interface DiskRig {
  disk: Disk;
  /** Lets time pass until the promise has settled. */
  complete<T>(promise: Promise<T>): Promise<T>;
  close(): Promise<void>;
}

export interface NetworkRig {
  /** Bricks 1 and 2, which know each other. */
  a: Network;
  b: Network;
  /** Lets time pass until it holds, or fails. */
  until(holds: () => boolean): Promise<void>;
  /** Ends brick 2's process and starts it again, under the next boot number. */
  restartB(): Promise<Network>;
  close(): Promise<void>;
}

export function examineDisk(name: string, open: () => Promise<DiskRig>): void {
  const examine = (what: string, body: (disk: Disk) => Promise<void>) =>
    test(what, async () => {
      const rig = await open();
      try {
        await rig.complete(body(rig.disk));
      } finally {
        await rig.close();
      }
    });

  describe(`${name}: disk`, () => {
    examine("what was written is read, and reads end with the file", async (disk) => {
      const file = await disk.open("segments/0001", { create: true });
      await file.write(1000, [Buffer.from("abc"), Buffer.alloc(0), Buffer.from("defg")]);
      await file.sync();
      assert.equal(await file.sizeBytes(), 1007);
      assert.deepEqual(await file.read(1000, 7), Buffer.from("abcdefg"));
      assert.deepEqual(await file.read(998, 4), Buffer.from("\0\0ab"));
      assert.deepEqual(await file.read(1005, 100), Buffer.from("fg"));
      assert.equal((await file.read(5000, 10)).length, 0);
      assert.equal((await file.read(0, 0)).length, 0);
      await file.close();
    });

    examine("random writes leave what a plain buffer holds", async (disk) => {
      const prng = new Prng(7);
      const model = Buffer.alloc(300 * KiB);
      let sizeBytes = 0;
      let atOnce = 0;
      const file = await disk.open("random", { create: true });
      for (let round = 0; round < 60; round += 1) {
        const parts = [1, 2, 3].map(() => prng.fill(Buffer.alloc(prng.between(0, 20 * KiB))));
        const bytes = Buffer.concat(parts);
        const at = prng.between(0, model.length - bytes.length);
        await file.write(at, parts);
        bytes.copy(model, at);
        sizeBytes = Math.max(sizeBytes, at + bytes.length);
        if (prng.chance(0.2)) await file.sync();
        if (prng.chance(0.1)) {
          sizeBytes = prng.between(0, model.length);
          await file.truncate(sizeBytes);
          model.fill(0, sizeBytes);
        }
        const from = prng.between(0, model.length);
        const length = prng.between(0, 50 * KiB);
        const expected = model.subarray(from, Math.max(from, Math.min(from + length, sizeBytes)));
        assert.ok((await file.read(from, length)).equals(expected));
        const now = file.readNow?.(from, length) ?? null;
        if (now === null) continue;
        // On the spot there is all that was asked for, or nothing.
        assert.ok(now.equals(expected) && now.length === length);
        if (length > 0) atOnce += 1;
      }
      assert.ok(atOnce > 0, "nothing was ever to be had on the spot");
      assert.equal(await file.sizeBytes(), sizeBytes);
      await file.close();
    });

    examine("a gathered write may have thousands of parts", async (disk) => {
      const parts = Array.from({ length: 3000 }, (_, at) => Buffer.from(`part ${at};`));
      const file = await disk.open("many", { create: true });
      await file.write(3, parts);
      const whole = Buffer.concat(parts);
      assert.ok((await file.read(3, whole.length + 1)).equals(whole));
      await file.close();
    });

    examine("names: list, rename over, remove", async (disk) => {
      assert.deepEqual(await disk.list("nowhere"), []);
      for (const path of ["d/b", "d/a", "d/e/c"]) {
        const file = await disk.open(path, { create: true });
        await file.write(0, [Buffer.from(path)]);
        await file.close();
      }
      assert.deepEqual(await disk.list("d"), ["a", "b", "e"]);
      await disk.rename("d/a", "d/b");
      await disk.syncFolder("d");
      assert.deepEqual(await disk.list("d"), ["b", "e"]);
      const renamed = await disk.open("d/b");
      assert.deepEqual(await renamed.read(0, 10), Buffer.from("d/a"));
      await renamed.close();
      await disk.remove("d/b");
      assert.deepEqual(await disk.list("d"), ["e"]);
      assert.deepEqual(await disk.list(""), ["d"]);
    });

    examine("what is not there is ENOENT", async (disk) => {
      const isAbsent = (error: unknown) => error instanceof DiskError && error.code === "ENOENT";
      await assert.rejects(disk.open("absent"), isAbsent);
      await assert.rejects(disk.remove("absent"), isAbsent);
      await assert.rejects(disk.rename("absent", "other"), isAbsent);
      assert.ok((await disk.freeBytes()) > 0);
    });

    examine(
      "no path leads out of the data directory, no file is used after its end",
      async (disk) => {
        await assert.rejects(disk.open("../outside", { create: true }));
        const file = await disk.open("closed", { create: true });
        await file.close();
        await assert.rejects(async () => file.write(0, [Buffer.from("x")]));
      },
    );
  });

  describe(`${name}: key-value store`, () => {
    const put = (key: string, value: string): KvChange => ({
      key: Buffer.from(key),
      value: Buffer.from(value),
    });

    examine("get, getMany, remove, empty values", async (disk) => {
      const kv = await disk.openKv("index");
      kv.write([put("a", "1"), put("b", ""), put("c", "3")], { sync: false });
      kv.write([{ key: Buffer.from("a"), value: null }, put("d", "4"), put("d", "5")], {
        sync: true,
      });
      kv.write([], { sync: true });
      assert.equal(kv.get(Buffer.from("a")), undefined);
      assert.deepEqual(kv.get(Buffer.from("b")), Buffer.alloc(0));
      const found = kv.getMany(["d", "x", "c", "d"].map((key) => Buffer.from(key)));
      assert.deepEqual(found, [Buffer.from("5"), undefined, Buffer.from("3"), Buffer.from("5")]);
      assert.deepEqual(kv.getMany([]), []);
      await kv.close();
    });

    examine("ranges are in the order of bytes, from start to before end", async (disk) => {
      const kv = await disk.openKv("index");
      const keys = ["", "00", "0001", "01", "7f", "80", "ff", "ffff"].slice(1);
      kv.write(
        keys.map((key) => ({ key: Buffer.from(key, "hex"), value: Buffer.from(key) })),
        { sync: false },
      );
      const range = (start: string, end: string, limit = 100) =>
        kv.range(Buffer.from(start, "hex"), Buffer.from(end, "hex"), limit).map(([key, value]) => {
          assert.equal(value.toString(), key.toString("hex"));
          return key.toString("hex");
        });
      assert.deepEqual(range("00", "ffffff"), keys);
      assert.deepEqual(range("0001", "80"), ["0001", "01", "7f"]);
      assert.deepEqual(range("02", "ff", 2), ["7f", "80"]);
      assert.deepEqual(range("80", "80"), []);
      assert.deepEqual(range("ff", "00"), []);
      assert.deepEqual(range("00", "ff", 0), []);
      await kv.close();
    });

    examine("the store copies what it is given and lends nothing it keeps", async (disk) => {
      const kv = await disk.openKv("index");
      const key = Buffer.from("key");
      const value = Buffer.from("value");
      kv.write([{ key, value }], { sync: false });
      key.fill(0);
      value.fill(0);
      kv.get(Buffer.from("key"))!.fill(1);
      assert.equal(kv.get(Buffer.from("key"))!.toString(), "value");
      await kv.close();
    });

    examine(
      "a batch is written while others go on: reads find all of it or nothing",
      async (disk) => {
        const kv = await disk.openKv("index");
        kv.write([put("k00500", "before"), put("gone", "before")], { sync: true });
        const batch = Array.from({ length: 1000 }, (_, number) => {
          return put(`k${String(number).padStart(5, "0")}`, `value ${number}`);
        });
        const gone = { key: Buffer.from("gone"), value: null };
        let isDone = false;
        const done = new Promise<Error | null>((resolve) => {
          kv.writeLater([...batch, gone], (failure) => {
            isDone = true;
            resolve(failure);
          });
        });
        assert.equal(isDone, false);
        assert.throws(() => kv.write([], { sync: true }), /being written/);
        assert.throws(() => kv.writeLater([], () => {}), /being written/);
        const [start, end] = [Buffer.from("k"), Buffer.from("l")];
        const found = kv.range(start, end, 10_000).length;
        assert.ok(found === 1 || found === 1000, `${found} keys`);
        for (const { key, value } of batch) {
          key.fill(0);
          value!.fill(0);
        }
        assert.equal(await done, null);
        const pairs = kv.range(start, end, 10_000);
        assert.equal(pairs.length, 1000);
        for (const [number, [, value]] of pairs.entries()) {
          assert.equal(value.toString(), `value ${number}`);
        }
        assert.equal(kv.get(Buffer.from("gone")), undefined);
        kv.write([put("k00500", "after")], { sync: true });
        assert.equal(kv.get(Buffer.from("k00500"))!.toString(), "after");
        await kv.close();
      },
    );

    examine("random batches leave what a plain map holds, also when opened again", async (disk) => {
      const prng = new Prng(11);
      const model = new Map<string, string>();
      let kv = await disk.openKv("kv/random");
      for (let round = 0; round < 300; round += 1) {
        const batch = randomBatch(prng, model);
        kv.write(batch, { sync: prng.chance(0.02) });
        if (round % 20 === 0) compareRange(kv, model, prng);
        if (round % 100 === 49) {
          kv.reopen();
          assert.equal(kv.hasFailed(), false);
        }
        if (round % 100 === 99) {
          await kv.close();
          kv = await disk.openKv("kv/random");
        }
      }
      const all = kv.range(Buffer.alloc(0), Buffer.alloc(9, 0xff), 1_000_000);
      assert.equal(all.length, model.size);
      for (const [key, value] of model) {
        assert.equal(kv.get(Buffer.from(key, "hex"))?.toString(), value);
      }
      await kv.close();
      assert.throws(() => kv.get(Buffer.from("a")));
    });
  });
}

function randomBatch(prng: Prng, model: Map<string, string>): KvChange[] {
  const batch: KvChange[] = [];
  for (let left = prng.between(0, 60); left > 0; left -= 1) {
    const key = Buffer.alloc(prng.between(1, 8));
    key.writeUInt8(prng.between(0, 40));
    if (key.length > 1) key.writeUInt8(prng.between(0, 255), key.length - 1);
    const remove = prng.chance(0.4);
    const value = remove ? null : Buffer.from(`value ${prng.uint32()}`);
    batch.push({ key, value });
    if (value === null) model.delete(key.toString("hex"));
    else model.set(key.toString("hex"), value.toString());
  }
  return batch;
}

function compareRange(kv: Kv, model: Map<string, string>, prng: Prng): void {
  const bounds = [prng.between(0, 41), prng.between(0, 41)].sort((a, b) => a - b);
  const [start, end] = bounds.map((bound) => Buffer.from([bound]));
  const limit = prng.between(1, 2000);
  const expected = [...model]
    .filter(([key]) => key >= start!.toString("hex") && key < end!.toString("hex"))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .slice(0, limit);
  const found = kv.range(start!, end!, limit);
  assert.deepEqual(
    found.map(([key, value]) => [key.toString("hex"), value.toString()]),
    expected,
  );
}

export function messageOf(type: number, request: number, ...body: Buffer[]): Message {
  return { type, request, reply: false, boot: 0, body };
}

export function examineNetwork(name: string, open: () => Promise<NetworkRig>): void {
  const examine = (what: string, body: (rig: NetworkRig) => Promise<void>) =>
    test(what, async () => {
      const rig = await open();
      try {
        await body(rig);
      } finally {
        await rig.close();
      }
    });
  interface Arrival {
    from: number;
    message: Message;
  }
  const collect = (network: Network): Arrival[] => {
    const arrivals: Arrival[] = [];
    network.onMessage((from, message) => arrivals.push({ from, message }));
    return arrivals;
  };

  describe(`${name}: network`, () => {
    examine("messages arrive whole, both ways, with their facts", async ({ a, b, until }) => {
      const atA = collect(a);
      const atB = collect(b);
      a.send(2, messageOf(300, 0xffffffff, Buffer.from("to"), Buffer.alloc(0), Buffer.from(" b")));
      b.send(1, { type: 5, request: 9, reply: true, boot: 0, body: [] });
      await until(() => atA.length === 1 && atB.length === 1);
      const { from, message } = atB[0]!;
      assert.equal(from, 1);
      const { release: _, ...facts } = message;
      assert.deepEqual(
        { ...facts, boot: 0 },
        { type: 300, request: 0xffffffff, reply: false, boot: 0, body: [Buffer.from("to b")] },
      );
      assert.ok(message.boot > 0);
      assert.equal(atA[0]!.from, 2);
      assert.equal(atA[0]!.message.reply, true);
      assert.deepEqual(atA[0]!.message.body, [Buffer.alloc(0)]);
    });

    examine("many messages of all sizes arrive in order", async ({ a, b, until }) => {
      const prng = new Prng(3);
      const atB = collect(b);
      const sent: Buffer[] = [];
      for (let request = 1; request <= 2000; request += 1) {
        const large = prng.chance(0.02);
        const bytes = prng.fill(Buffer.alloc(prng.between(0, large ? 40 * KiB : 300)));
        const cut = prng.between(0, bytes.length);
        sent.push(bytes);
        a.send(2, messageOf(1, request, bytes.subarray(0, cut), bytes.subarray(cut)));
        if (request % 200 === 0) await until(() => atB.length === request);
      }
      await until(() => atB.length === sent.length);
      for (const [at, { message }] of atB.entries()) {
        assert.equal(message.request, at + 1);
        assert.ok(message.body.length === 1 && message.body[0]!.equals(sent[at]!));
      }
    });

    examine("bodies of a mebibyte arrive, and stay what they were", async ({ a, b, until }) => {
      const atB = collect(b);
      const bodies = [1, 2, 3, 4, 5].map((seed) => new Prng(seed).fill(Buffer.alloc(MiB)));
      for (const [at, body] of bodies.entries()) a.send(2, messageOf(1, at, body));
      await until(() => atB.length === bodies.length);
      for (const [at, { message }] of atB.entries()) {
        assert.ok(message.body[0]!.equals(bodies[at]!));
      }
    });

    examine("a message to oneself comes on a later tick", async ({ a, until }) => {
      const atA = collect(a);
      a.send(1, messageOf(7, 1, Buffer.from("me"), Buffer.from("!")));
      assert.equal(atA.length, 0);
      await until(() => atA.length === 1);
      assert.equal(atA[0]!.from, 1);
      assert.deepEqual(Buffer.concat(atA[0]!.message.body), Buffer.from("me!"));
    });

    examine("memory is released once: when it has left, when it is dropped", async (rig) => {
      const { a, b, until } = rig;
      const atB = collect(b);
      let released = 0;
      const lent = (to: number, body: Buffer) => {
        const release = () => {
          released += 1;
          giveBack(body);
        };
        a.send(to, { ...messageOf(1, 1, Buffer.from("head"), body), release });
      };
      const bodies = [1, 2, 3].map((seed) => new Prng(seed).fill(Buffer.alloc(MiB)));
      const sent = bodies.map((body) => Buffer.concat([Buffer.from("head"), body]));
      for (const body of bodies) lent(2, body);
      assert.equal(released, 0);
      await until(() => released === bodies.length);
      await until(() => atB.length === bodies.length);
      for (const [at, { message }] of atB.entries()) {
        assert.ok(message.body[0]!.equals(sent[at]!));
        // Long ones are lent: given back, they are empty, and no other body is.
        message.release!();
        assert.equal(message.body[0]!.length, 0);
      }
      lent(77, Buffer.alloc(MiB));
      assert.equal(released, bodies.length + 1);
    });

    examine("what is sent to oneself is released by whoever handles it", async ({ a, until }) => {
      const atA = collect(a);
      let released = 0;
      const release = () => {
        released += 1;
      };
      const body = Buffer.alloc(MiB, 7);
      a.send(1, { ...messageOf(1, 1, Buffer.from("head"), body), release });
      await until(() => atA.length === 1);
      assert.equal(released, 0);
      assert.equal(atA[0]!.message.body[1]!.buffer, body.buffer);
      atA[0]!.message.release!();
      assert.equal(released, 1);
    });

    examine("what is sent to nobody is dropped, a body beyond the limit is a bug", async (rig) => {
      const atB = collect(rig.b);
      rig.a.send(77, messageOf(1, 1, Buffer.from("x")));
      assert.throws(() => rig.a.send(2, messageOf(1, 1, Buffer.alloc(2 * MiB))));
      assert.throws(() => rig.a.send(2, messageOf(0, 1)));
      rig.a.send(2, messageOf(1, 2));
      await rig.until(() => atB.length === 1);
      assert.equal(atB[0]!.message.request, 2);
    });

    examine("who has called is answered by one who was not told of it", async (rig) => {
      const atA = collect(rig.a);
      const atB = collect(rig.b);
      rig.b.send(1, messageOf(1, 1));
      await rig.until(() => atA.length === 1);
      rig.a.setPeers(new Map());
      rig.a.send(2, messageOf(1, 1));
      let request = 1;
      await rig.until(() => {
        rig.b.send(1, messageOf(1, (request += 1)));
        return atA.length > 1;
      });
      assert.equal(atB.length, 0);
      rig.a.send(2, messageOf(1, 2));
      await rig.until(() => atB.length === 1);
      assert.equal(atB[0]!.message.request, 2);
      // Until it has called again after a start it is as unknown as before.
      const arrivedAtA = atA.length;
      const b = await rig.restartB();
      const next = collect(b);
      rig.a.send(2, messageOf(1, 3));
      await rig.until(() => {
        b.send(1, messageOf(1, (request += 1)));
        return atA.length > arrivedAtA;
      });
      rig.a.send(2, messageOf(1, 4));
      await rig.until(() => next.length > 0);
      assert.equal(next[0]!.message.request, 4);
    });

    examine("after the other side restarts, messages flow again both ways", async (rig) => {
      const atA = collect(rig.a);
      let atB = collect(rig.b);
      rig.a.send(2, messageOf(1, 1));
      rig.b.send(1, messageOf(1, 1));
      await rig.until(() => atA.length === 1 && atB.length === 1);
      const bootBefore = atA[0]!.message.boot;
      const b = await rig.restartB();
      atB = collect(b);
      let request = 1;
      await rig.until(() => {
        // As the layer above does: what gets no answer is sent again.
        rig.a.send(2, messageOf(1, (request += 1)));
        b.send(1, messageOf(1, request));
        return atA.length > 1 && atB.length > 0;
      });
      assert.ok(atA.at(-1)!.message.boot > bootBefore);
      assert.ok(atB[0]!.message.request > 1);
    });
  });
}
