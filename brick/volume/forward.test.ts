import assert from "node:assert/strict";
import { test } from "node:test";
import { SimWorld } from "../../tools/sim/sim-host.ts";
import { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import { KiB } from "../units.ts";
import { ForwardClient } from "./forward-client.ts";
import {
  decodeForwardReply,
  encodeForward,
  type ForwardReply,
  type ForwardRequest,
  forwardBytesMax,
} from "./forward-messages.ts";
import { ForwardService } from "./forward-service.ts";
import type { Gateway } from "./gateway.ts";
import { type VolumeDone, VolumeTask } from "./volume.ts";

const uuid = "ab".repeat(16);
const portal = 1;
const server = 2;
const epoch = 5;
const at = { brick: server, boot: 1, epoch };
const timeoutMs = 500;

interface Arrived {
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
  /** Whether writes end as soon as they come. */
  prompt = true;
  stands = true;

  constructor() {
    const host = this.world.host(portal);
    host.network.setBoot(1);
    this.calls = new Calls(host);
    const other = this.world.host(server);
    other.network.setBoot(1);
    const peers = new Map([
      [portal, "1:1"],
      [server, "2:2"],
    ]);
    host.network.setPeers(peers);
    other.network.setPeers(peers);
    const gateway = {
      write: (offsetBytes: number, data: readonly Buffer[], task: VolumeTask) => {
        return new Promise<VolumeDone>((resolve) => {
          // The message's buffer is the network's: what is kept is copied.
          const bytes = Buffer.concat(data);
          this.arrived.push({ offsetBytes, bytes, task, finish: resolve });
          if (this.prompt) resolve({ ok: true });
          task.onCancel = () => resolve({ ok: false, fault: { code: "cancelled" } });
        });
      },
      read: async (offsetBytes: number, lengthBytes: number) => ({
        ok: true,
        buffers: [Buffer.alloc(lengthBytes, offsetBytes / forwardBytesMax + 1)],
      }),
    } as unknown as Gateway;
    new ForwardService(new Calls(other), (asked, askedEpoch) =>
      asked === uuid && askedEpoch === epoch ? gateway : undefined,
    );
    this.client = new ForwardClient({
      host,
      calls: this.calls,
      timeoutMs,
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

  cut(cut: boolean): void {
    if (cut) this.world.network.partition([portal], [server]);
    else this.world.network.heal();
  }
}

function requestOf(sequence: number, more: Partial<ForwardRequest> = {}): ForwardRequest {
  const lengthBytes = 4 * KiB;
  return { uuid, epoch, offsetBytes: 0, lengthBytes, sequence, lowWater: 1, runsMax: 0, ...more };
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
    const write = pair.client.write(asked, id, 0, data, undefined);
    assert.equal(await pair.world.complete(write), "elsewhere");
    const read = pair.client.read(asked, id, 0, 4 * KiB);
    assert.equal(await pair.world.complete(read), "elsewhere");
  }
  assert.equal(pair.arrived.length, 0);
});

test("a long write and a long read travel in pieces and come together", async () => {
  const pair = new Pair();
  const bytes = Buffer.alloc(2 * forwardBytesMax + 4 * KiB, "abcdefg");
  const parts = [bytes.subarray(0, 1000), bytes.subarray(1000)];
  const done = pair.client.write(at, uuid, 8 * KiB, parts, undefined);
  assert.deepEqual(await pair.world.complete(done), { ok: true });
  const landed = Buffer.alloc(bytes.length);
  for (const piece of pair.arrived) piece.bytes.copy(landed, piece.offsetBytes - 8 * KiB);
  assert.ok(landed.equals(bytes));
  assert.equal(pair.arrived.length, 3);
  const read = await pair.world.complete(pair.client.read(at, uuid, 0, 2 * forwardBytesMax));
  assert.ok(read !== "elsewhere" && read.ok);
  const expected = [Buffer.alloc(forwardBytesMax, 1), Buffer.alloc(forwardBytesMax, 2)];
  assert.ok(Buffer.concat(read.buffers).equals(Buffer.concat(expected)));
});

test("a write that was lost on its way is known to be over before its client answers", async () => {
  const pair = new Pair();
  pair.cut(true);
  let ended = false;
  const write = pair.client.write(at, uuid, 0, data, undefined).finally(() => {
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
  const write = pair.client.write(at, uuid, 0, data, undefined);
  await pair.world.runFor(5000);
  network.filter = null;
  assert.deepEqual(await pair.world.complete(write), { ok: true });
  assert.equal(pair.arrived.length, 1);
});

test("without an answer, and the gateway gone, a write may have landed: unavailable", async () => {
  const pair = new Pair();
  pair.cut(true);
  const write = pair.client.write(at, uuid, 0, data, undefined);
  await pair.world.runFor(2000);
  pair.stands = false;
  const result = await pair.world.complete(write);
  assert.ok(result !== "elsewhere" && !result.ok);
  assert.equal(result.fault.code, "unavailable");
});

test("a cancelled task cancels what is under way at the gateway", async () => {
  const pair = new Pair();
  pair.prompt = false;
  const task = new VolumeTask();
  const write = pair.client.write(at, uuid, 0, data, task);
  await pair.world.runFor(50);
  task.cancel();
  const result = await pair.world.complete(write);
  assert.deepEqual(result, { ok: false, fault: { code: "cancelled" } });
  assert.equal(pair.arrived[0]!.task.cancelled, true);
});
