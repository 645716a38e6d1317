import assert from "node:assert/strict";
import { test } from "node:test";
import { SimWorld } from "../../tools/sim/sim-host.ts";
import { ownLevels } from "../feature-level.ts";
import { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import { KiB } from "../units.ts";
import { type Asked, ForwardClient } from "./forward-client.ts";
import {
  decodeForward,
  decodeForwardReply,
  encodeForward,
  encodeForwardFault,
  encodePart,
  type ForwardReply,
  type ForwardRequest,
  forwardBytesMax,
  noPart,
} from "./forward-messages.ts";
import { ForwardService } from "./forward-service.ts";
import type { Gateway } from "./gateway.ts";
import {
  atomicBytesMax,
  compareBytesMax,
  heldReadsBytesMax,
  orBytesMax,
  readBytesMax,
} from "./limits.ts";
import type { Origin, Portal } from "./operation.ts";
import { type VolumeDone, type VolumeFault, type VolumeRead, VolumeTask } from "./volume.ts";

const uuid = "ab".repeat(16);
const portal = 1;
const server = 2;
const epoch = 5;
const nexus = { initiatorPort: "iqn.2026-11.example:a,i,0x00023d000001", targetPort: 9 };
const at = { brick: server, boot: 1, epoch };
const to: Asked = { at, uuid, task: undefined, absences: 0 };
const timeoutMs = 500;
/** Time enough to ask again. */
const longMs = 20_000;

const peers = new Map([
  [portal, "1:1"],
  [server, "2:2"],
]);

interface Arrived {
  kind: string;
  portal: Portal | undefined;
  offsetBytes: number;
  bytes: Buffer;
  task: VolumeTask;
  finish: (result: VolumeDone) => void;
}

/** A portal, and the brick whose gateway serves the volume at `epoch`; writes end when told to. */
class Pair {
  readonly world = new SimWorld(1);
  readonly arrived: Arrived[] = [];
  readonly calls: Calls;
  readonly client: ForwardClient;
  readonly service: ForwardService;
  /** Reads that the gateway has begun. */
  reads = 0;
  /** Whether writes end as soon as they come. */
  prompt = true;
  stands = true;

  constructor(clientMs = timeoutMs) {
    const host = this.world.host(portal);
    host.network.setBoot(1);
    this.calls = new Calls(host);
    this.calls.level = ownLevels.newest;
    const other = this.world.host(server);
    other.network.setBoot(1);
    host.network.setPeers(peers);
    other.network.setPeers(peers);
    const arrive = (kind: string, offsetBytes: number, bytes: Buffer, origin: Origin) =>
      new Promise<VolumeDone>((resolve) => {
        const task = origin.task!;
        const { portal } = origin;
        this.arrived.push({ kind, offsetBytes, bytes, task, portal, finish: resolve });
        if (this.prompt) resolve({ ok: true });
        task.onCancel = () => resolve({ ok: false, fault: { code: "cancelled" } });
      });
    const gateway = {
      // The message's buffer is the network's: what is kept is copied.
      write: (offsetBytes: number, data: Buffer[], origin: Origin) =>
        arrive("write", offsetBytes, Buffer.concat(data), origin),
      writeAtomic: (offsetBytes: number, data: Buffer[], origin: Origin) =>
        arrive("writeAtomic", offsetBytes, Buffer.concat(data), origin),
      orWrite: (offsetBytes: number, data: Buffer[], origin: Origin) =>
        arrive("orWrite", offsetBytes, Buffer.concat(data), origin),
      compareAndWrite: (at: number, compare: Buffer[], data: Buffer[], origin: Origin) =>
        arrive("compareAndWrite", at, Buffer.concat([...compare, ...data]), origin),
      read: (offsetBytes: number, lengthBytes: number) => this.#read(offsetBytes, lengthBytes),
    } as unknown as Gateway;
    this.service = new ForwardService(other, new Calls(other), (asked, askedEpoch) =>
      asked === uuid && askedEpoch === epoch ? gateway : undefined,
    );
    this.client = new ForwardClient({
      host,
      calls: this.calls,
      timeoutMs: clientMs,
      stands: () => this.stands,
    });
  }

  /** Sends one message as a client would, and waits for its answer; null: there is none. */
  ask(type: number, request: ForwardRequest, data: readonly Buffer[] = []) {
    const body = [encodeForward(request), ...data];
    const answer = new Promise<ForwardReply | null>((resolve) => {
      this.calls.call(server, type, body, timeoutMs, (reply) => {
        resolve(reply.ok ? decodeForwardReply(reply.body) : null);
      });
    });
    return answer;
  }

  /** Numbers each reading in its first byte. */
  async #read(offsetBytes: number, lengthBytes: number): Promise<VolumeRead> {
    this.reads += 1;
    const bytes = bytesAt(offsetBytes, lengthBytes);
    bytes[0] = this.reads;
    return { ok: true, buffers: [bytes.subarray(0, 5), bytes.subarray(5)] };
  }

  /** The gateway's brick, which has no attachment any more. */
  restartServer(): void {
    this.world.machine(server).crash();
    const other = this.world.host(server);
    other.network.setBoot(2);
    other.network.setPeers(peers);
    new ForwardService(other, new Calls(other), () => undefined);
  }

  cut(cut: boolean): void {
    if (cut) this.world.network.partition([portal], [server]);
    else this.world.network.heal();
  }
}

/** What the volume holds, byte by byte. */
function bytesAt(offsetBytes: number, lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  for (let at = 0; at < lengthBytes; at += 1) bytes[at] = ((offsetBytes + at) * 0x9e3779b1) >>> 23;
  return bytes;
}

function requestOf(sequence: number, more: Partial<ForwardRequest> = {}): ForwardRequest {
  const lengthBytes = 4 * KiB;
  const place = { uuid, epoch, offsetBytes: 0, lengthBytes, sequence, lowWater: 1, runsMax: 0 };
  return { ...place, nexus: null, noticeNext: 0, absences: 0, ...more };
}

const data = [Buffer.alloc(4 * KiB, 7)];

test("a change that comes twice is done once, and answered twice", async () => {
  const pair = new Pair();
  pair.prompt = false;
  const first = pair.ask(messageType.volumeWrite, requestOf(1), data);
  const second = pair.ask(messageType.volumeWrite, requestOf(1), data);
  await pair.world.runFor(50);
  assert.equal(pair.arrived.length, 1);
  pair.arrived[0]!.finish({ ok: true });
  for (const answer of [first, second]) {
    assert.equal((await pair.world.complete(answer))?.ok, true);
  }
  const third = pair.ask(messageType.volumeWrite, requestOf(1), data);
  assert.equal((await pair.world.complete(third))?.ok, true);
  assert.equal(pair.arrived.length, 1);
});

test("a change below the low-water mark is not done again", async () => {
  const pair = new Pair();
  await pair.world.complete(pair.ask(messageType.volumeWrite, requestOf(1), data));
  const next = requestOf(2, { lowWater: 2 });
  await pair.world.complete(pair.ask(messageType.volumeWrite, next, data));
  const again = pair.ask(messageType.volumeWrite, requestOf(1), data);
  assert.equal(await pair.world.complete(again), null);
  assert.equal(pair.arrived.length, 2);
});

test("a change whose cancel came before it never lands", async () => {
  const pair = new Pair();
  const cancel = await pair.world.complete(pair.ask(messageType.volumeCancel, requestOf(1)));
  assert.deepEqual(cancel, { ok: false, fault: { code: "cancelled" } });
  const write = await pair.world.complete(pair.ask(messageType.volumeWrite, requestOf(1), data));
  assert.deepEqual(write, { ok: false, fault: { code: "cancelled" } });
  assert.equal(pair.arrived.length, 0);
});

test("under another epoch, or of another volume, nothing is done: elsewhere", async () => {
  const pair = new Pair();
  for (const [asked, id] of [
    [{ ...at, epoch: epoch + 1 }, uuid],
    [{ ...at, epoch: epoch - 1 }, uuid],
    [at, "cd".repeat(16)],
  ] as const) {
    const write = pair.client.write({ ...to, at: asked, uuid: id }, 0, data);
    assert.equal(await pair.world.complete(write), "elsewhere");
    const read = pair.client.read({ ...to, at: asked, uuid: id }, 0, 4 * KiB);
    assert.equal(await pair.world.complete(read), "elsewhere");
  }
  assert.equal(pair.arrived.length, 0);
});

test("a long write travels in pieces and comes together", async () => {
  const pair = new Pair();
  const bytes = Buffer.alloc(2 * forwardBytesMax + 4 * KiB, "abcdefg");
  const parts = [bytes.subarray(0, 1000), bytes.subarray(1000)];
  const done = pair.client.write(to, 8 * KiB, parts);
  assert.deepEqual(await pair.world.complete(done), { ok: true });
  const landed = Buffer.alloc(bytes.length);
  for (const piece of pair.arrived) piece.bytes.copy(landed, piece.offsetBytes - 8 * KiB);
  assert.ok(landed.equals(bytes));
  assert.equal(pair.arrived.length, 3);
});

async function readLong(pair: Pair, offsetBytes: number, lengthBytes: number): Promise<Buffer> {
  const read = await pair.world.complete(pair.client.read(to, offsetBytes, lengthBytes));
  assert.ok(read !== "elsewhere" && read.ok);
  return Buffer.concat(read.buffers);
}

test("a long read is read once, as one, and travels in parts", async () => {
  const pair = new Pair();
  const lengthBytes = 11 * forwardBytesMax + 1536;
  const found = await readLong(pair, 4 * KiB, lengthBytes);
  const expected = bytesAt(4 * KiB, lengthBytes);
  expected[0] = 1;
  assert.ok(found.equals(expected));
  assert.equal(pair.reads, 1);
  await pair.world.runFor(50);
  assert.equal(pair.service.longReads.bytes, 0, "nothing is kept for who has it");
  await readLong(pair, 0, forwardBytesMax + 512);
  assert.equal(pair.reads, 2, "another read is another reading");
});

test("while there may be older bricks a long read is many short ones", async () => {
  const pair = new Pair();
  pair.calls.level = 1;
  const types: number[] = [];
  pair.world.network.filter = (_from, _to, { type }) => {
    types.push(type);
    return true;
  };
  const lengthBytes = 10 * forwardBytesMax + 512;
  const found = await readLong(pair, 0, lengthBytes);
  const expected = bytesAt(0, lengthBytes);
  for (let at = 0; at < lengthBytes; at += forwardBytesMax) expected[at] = found[at]!;
  assert.ok(found.equals(expected));
  assert.equal(pair.reads, 11);
  assert.ok(types.every((type) => type === messageType.volumeRead));
});

test("a long read that was forgotten half fetched is begun again, and is of one reading", async () => {
  const pair = new Pair();
  const { network } = pair.world;
  let parts = 0;
  network.filter = (from, _to, { type, reply }) => {
    if (from !== server || type !== messageType.volumeReadPart || !reply) return true;
    parts += 1;
    // The third part is late; meanwhile somebody says that its reader has everything.
    if (parts !== 3) return true;
    const request = requestOf(1, { lengthBytes: 10 * forwardBytesMax });
    pair.calls.tell(server, messageType.volumeReadPart, [
      encodeForward(request),
      encodePart(noPart),
    ]);
    return true;
  };
  const found = await readLong(pair, 0, 10 * forwardBytesMax);
  const expected = bytesAt(0, 10 * forwardBytesMax);
  expected[0] = pair.reads;
  assert.ok(pair.reads > 1, "it was not forgotten");
  assert.ok(found.equals(expected));
});

test("what nobody fetches is not kept for ever, and what does not fit waits", async () => {
  const pair = new Pair();
  const lengthBytes = readBytesMax;
  const askPart = (sequence: number) =>
    pair.ask(messageType.volumeReadPart, requestOf(sequence, { lengthBytes }), [encodePart(0)]);
  const fit = heldReadsBytesMax / readBytesMax;
  for (let sequence = 1; sequence <= fit; sequence += 1) {
    assert.equal((await pair.world.complete(askPart(sequence)))?.ok, true);
  }
  assert.equal(pair.service.longReads.bytes, heldReadsBytesMax);
  const late = askPart(fit + 1);
  await pair.world.runFor(timeoutMs / 2);
  assert.equal(pair.reads, fit, "it is read though there is no room");
  const over = encodePart(noPart);
  pair.calls.tell(server, messageType.volumeReadPart, [
    encodeForward(requestOf(1, { lengthBytes })),
    over,
  ]);
  assert.equal((await pair.world.complete(late))?.ok, true);
  assert.equal(pair.service.longReads.bytes, heldReadsBytesMax);
  await pair.world.runFor(15_000);
  assert.equal(pair.service.longReads.bytes, 0);
});

test("a part that is none, or of another read under the same number, gets no answer", async () => {
  const pair = new Pair();
  const lengthBytes = 2 * forwardBytesMax;
  const ask = (more: Partial<ForwardRequest>, part: Buffer) =>
    pair.world.complete(
      pair.ask(messageType.volumeReadPart, requestOf(1, { lengthBytes, ...more }), [part]),
    );
  assert.equal((await ask({}, encodePart(1)))?.ok, true);
  assert.equal(await ask({}, encodePart(2)), null);
  assert.equal(await ask({}, Buffer.alloc(5)), null);
  assert.equal(await ask({ offsetBytes: 512 }, encodePart(0)), null);
  assert.equal(await ask({ lengthBytes: readBytesMax + 512 }, encodePart(0)), null);
  assert.equal(pair.reads, 1);
});

for (const lost of ["the request", "the answer"]) {
  test(`${lost} of a read or a write is lost: it is asked for again long before its time is over`, async () => {
    const pair = new Pair(longMs);
    const { network } = pair.world;
    const from = lost === "the request" ? portal : server;
    const types = new Set<number>();
    // The first message of each kind.
    network.filter = (sender, _to, { type }) => {
      if (sender !== from || types.has(type)) return true;
      types.add(type);
      return false;
    };
    const startMs = pair.world.clock.nowMs;
    const lengthBytes = 3 * forwardBytesMax;
    const results = [
      pair.client.read(to, 4096, 4096),
      pair.client.read(to, 4096, lengthBytes),
      pair.client.write(to, 0, data),
      pair.client.compareAndWrite(to, 0, data, data),
    ];
    for (const result of await pair.world.complete(Promise.all(results))) {
      assert.ok(result !== "elsewhere" && result.ok, JSON.stringify(result));
    }
    assert.equal(types.size, 4);
    assert.ok(pair.world.clock.nowMs - startMs < longMs / 10);
    const kinds = pair.arrived.map(({ kind }) => kind);
    assert.deepEqual(kinds.sort(), ["compareAndWrite", "write"], "each change is done once");
  });
}

test("what is not answered is asked for a few times, and no more once nobody waits", async () => {
  const pair = new Pair(longMs);
  const { network } = pair.world;
  let sent = 0;
  network.filter = (_from, _to, { type }) => {
    if (type !== messageType.volumeRead && type !== messageType.volumeWrite) return true;
    sent += 1;
    return false;
  };
  const read = pair.client.read(to, 0, 4096);
  assert.equal(await pair.world.complete(read), "elsewhere");
  assert.ok(sent > 2 && sent <= 6, `${sent} times`);
  sent = 0;
  const task = new VolumeTask();
  const write = pair.client.write({ ...to, task }, 0, data);
  await pair.world.runFor(100);
  task.cancel();
  const result = await pair.world.complete(write);
  assert.deepEqual(result, { ok: false, fault: { code: "cancelled" } });
  const other = pair.client.read(to, 0, 4096);
  pair.stands = false;
  pair.client.onState();
  assert.equal(await pair.world.complete(other), "elsewhere");
  await pair.world.runFor(2 * longMs);
  assert.equal(sent, 2);
});

test("a write whose gateway started anew before it answered may have landed", async () => {
  const pair = new Pair(longMs);
  pair.prompt = false;
  const swap = pair.client.compareAndWrite(to, 0, data, data);
  await pair.world.runFor(100);
  assert.equal(pair.arrived.length, 1);
  // Nothing is left of what it knew, and it serves nothing under that epoch.
  pair.restartServer();
  const result = await pair.world.complete(swap);
  assert.ok(result !== "elsewhere" && !result.ok);
  assert.equal(result.fault.code, "unavailable");
});

test("a write that was lost on its way is known to be over before its client answers", async () => {
  const pair = new Pair();
  pair.cut(true);
  let ended = false;
  const write = pair.client.write(to, 0, data).finally(() => {
    ended = true;
  });
  await pair.world.runFor(10_000);
  assert.equal(ended, false);
  pair.cut(false);
  const result = await pair.world.complete(write);
  assert.ok(result !== "elsewhere" && !result.ok);
  assert.equal(result.fault.code, "unavailable");
  const late = await pair.world.complete(pair.ask(messageType.volumeWrite, requestOf(1), data));
  assert.deepEqual(late, { ok: false, fault: { code: "cancelled" } });
  assert.equal(pair.arrived.length, 0);
});

test("a write that landed, but whose answer was lost, is done", async () => {
  const pair = new Pair();
  const { network } = pair.world;
  network.filter = (from) => from !== server;
  const write = pair.client.write(to, 0, data);
  await pair.world.runFor(5000);
  network.filter = null;
  assert.deepEqual(await pair.world.complete(write), { ok: true });
  assert.equal(pair.arrived.length, 1);
});

test("without an answer, and the gateway gone, a write may have landed: unavailable", async () => {
  const pair = new Pair();
  pair.cut(true);
  const write = pair.client.write(to, 0, data);
  await pair.world.runFor(2000);
  pair.stands = false;
  const result = await pair.world.complete(write);
  assert.ok(result !== "elsewhere" && !result.ok);
  assert.equal(result.fault.code, "unavailable");
});

test("nobody waits for a gateway of which the state says that it is gone", async () => {
  const pair = new Pair();
  pair.cut(true);
  const startMs = pair.world.clock.nowMs;
  const write = pair.client.write(to, 0, data);
  const read = pair.client.read(to, 0, 4 * KiB);
  await pair.world.runFor(timeoutMs / 5);
  pair.client.onState();
  await pair.world.runFor(timeoutMs / 5);
  // It stands still: both go on waiting.
  pair.stands = false;
  pair.client.onState();
  assert.equal(await pair.world.complete(read), "elsewhere");
  const result = await pair.world.complete(write);
  assert.ok(result !== "elsewhere" && !result.ok && result.fault.code === "unavailable");
  assert.ok(pair.world.clock.nowMs - startMs < timeoutMs);
});

test("a cancelled task cancels what is under way at the gateway", async () => {
  const pair = new Pair();
  pair.prompt = false;
  const task = new VolumeTask();
  const write = pair.client.write({ ...to, task }, 0, data);
  await pair.world.runFor(50);
  task.cancel();
  const result = await pair.world.complete(write);
  assert.deepEqual(result, { ok: false, fault: { code: "cancelled" } });
  assert.equal(pair.arrived[0]!.task.cancelled, true);
});

test("a compare and write, an or-write and an atomic write are one message each", async () => {
  const pair = new Pair();
  const half = Buffer.alloc(compareBytesMax, 1);
  const other = Buffer.alloc(compareBytesMax, 2);
  const swap = pair.client.compareAndWrite(
    to,
    0,
    [half],
    [other.subarray(0, 9), other.subarray(9)],
  );
  assert.deepEqual(await pair.world.complete(swap), { ok: true });
  const long = Buffer.alloc(orBytesMax, 3);
  assert.deepEqual(await pair.world.complete(pair.client.orWrite(to, 512, [long])), { ok: true });
  const whole = Buffer.alloc(atomicBytesMax, 4);
  const atomic = pair.client.writeAtomic(to, 512, [whole.subarray(0, 9), whole.subarray(9)]);
  assert.deepEqual(await pair.world.complete(atomic), { ok: true });
  assert.deepEqual(
    pair.arrived.map(({ kind, bytes }) => [kind, bytes.length]),
    [
      ["compareAndWrite", 2 * compareBytesMax],
      ["orWrite", orBytesMax],
      ["writeAtomic", atomicBytesMax],
    ],
  );
  assert.ok(pair.arrived[0]!.bytes.equals(Buffer.concat([half, other])));
  for (const refused of [
    pair.client.orWrite(to, 0, [long, half]),
    pair.client.writeAtomic(to, 0, [whole, half]),
    pair.client.compareAndWrite(to, 0, [long], [long]),
    pair.client.compareAndWrite(to, 0, [half], [half, half]),
  ]) {
    const result = await pair.world.complete(refused);
    assert.ok(result !== "elsewhere" && !result.ok && result.fault.code === "unavailable");
  }
  assert.equal(pair.arrived.length, 3);
});

test("who asks travels along", async () => {
  const pair = new Pair();
  const task = new VolumeTask(nexus, 12);
  await pair.world.complete(pair.client.write({ ...to, task, absences: 3 }, 0, data));
  const arrived = pair.arrived[0]!;
  assert.deepEqual(arrived.task.nexus, nexus);
  assert.equal(arrived.task.noticeNext, 12);
  assert.deepEqual(arrived.portal, { brick: portal, boot: 1, absences: 3 });
});

test("a request's bytes, and what is no request", () => {
  const request = { ...requestOf(7, { lowWater: 5, offsetBytes: 512 }), nexus, noticeNext: 12 };
  const bytes = encodeForward({ ...request, absences: 3 });
  assert.equal(
    bytes.toString("hex"),
    "02260009" +
      "00001000" +
      "abababababababababababababababab" +
      "0000000000000005" +
      "0000000000000200" +
      "0000000000000007" +
      "0000000000000005" +
      "0000000000000000" +
      "000000000000000c" +
      "0000000000000003" +
      "69716e2e323032362d31312e6578616d706c653a612c692c3078303030323364303030303031",
  );
  const body = Buffer.concat([bytes, Buffer.from("data")]);
  const decoded = decodeForward(body);
  assert.deepEqual(decoded?.request, { ...request, absences: 3 });
  assert.equal(decoded?.data.toString(), "data");
  assert.equal(decodeForward(bytes.subarray(0, bytes.length - 1)), null);
  for (const [at, value] of [
    [0, 1],
    [1, 0],
    [1, 255],
    [60, 1],
    [24, 0xff],
    [64, 0xff],
    [72, 0xff],
  ] as const) {
    const wrong = Buffer.from(bytes);
    wrong[at] = value;
    assert.equal(decodeForward(wrong), null, `byte ${at} = ${value}`);
  }
});

test("faults travel with what they say", () => {
  const faults: VolumeFault[] = [
    { code: "miscompare", offsetBytes: 77 },
    { code: "reservation_conflict" },
    { code: "sanitizing" },
  ];
  for (const fault of faults) {
    const body = Buffer.concat(encodeForwardFault(fault));
    assert.deepEqual(decodeForwardReply(body), { ok: false, fault });
  }
  const bad = Buffer.concat(encodeForwardFault({ code: "miscompare" } as VolumeFault));
  assert.equal(decodeForwardReply(bad), null);
});
