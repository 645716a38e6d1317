import assert from "node:assert/strict";
import net from "node:net";
import { type TestContext, test } from "node:test";
import type { Clock } from "../brick/host.ts";
import { Prng } from "../brick/prng.ts";
import { TestAuthority } from "./authority.test-double.ts";
import { ManualClock } from "./initiator.test-double.ts";
import { loginsInProgressMax, pingAfterIdleMs, pingAnswerMs } from "./limits.ts";
import { MemoryVolume, memoryDirectory } from "./memory-volume.test-double.ts";
import { Outbox } from "./outbox.ts";
import {
  asyncMessage,
  common,
  decode,
  loginRequest,
  loginResponse,
  logoutRequest,
  logoutResponse,
  reject,
} from "./pdu.ts";
import { type Pdu, PduStream } from "./pdu-stream.ts";
import { startPortal } from "./portal.ts";
import { encodeText } from "./text-keys.ts";

async function openPortal(context: TestContext, clock?: Clock) {
  const directory = memoryDirectory([new MemoryVolume("disk", 1 << 20)]);
  const portal = await startPortal({
    listen: "127.0.0.1:0",
    announce: "127.0.0.1:3260",
    tag: 1,
    directory,
    authority: new TestAuthority(directory),
    log: () => {},
    ...(clock !== undefined && { clock }),
  });
  context.after(() => portal.close());
  return portal;
}

/** A socket to the portal, and what comes out of it, PDU by PDU. */
class Client {
  readonly socket: net.Socket;
  readonly closed: Promise<void>;
  readonly #stream = new PduStream();
  readonly #pdus: Pdu[] = [];
  #wake = () => {};

  constructor(address: string, localAddress = "127.0.0.1") {
    const [host, port] = address.split(":");
    this.socket = net.connect({ host: host!, port: Number(port), localAddress });
    this.socket.on("error", () => {});
    this.closed = new Promise((resolve) => this.socket.once("close", () => resolve()));
    this.socket.on("data", (chunk) => {
      this.#stream.push(chunk);
      for (let event = this.#stream.next(); event?.ok; event = this.#stream.next()) {
        this.#pdus.push(event.pdu);
      }
      this.#wake();
    });
  }

  async next(opcode: number): Promise<Buffer> {
    while (this.#pdus.length === 0) await new Promise<void>((resolve) => (this.#wake = resolve));
    const { bhs } = this.#pdus.shift()!;
    assert.equal(common.opcode.get(bhs), opcode);
    return bhs;
  }

  async login(target: string, isid = "00000001"): Promise<number> {
    const outbox = new Outbox();
    const text = encodeText([
      ["InitiatorName", "iqn.2026-11.test:portal"],
      ["TargetName", target],
    ]);
    const stages = { transit: true, currentStage: 1, nextStage: 3 };
    const values = { immediate: true, ...stages, isid: Buffer.from(`8000${isid}`, "hex") };
    outbox.pdu(loginRequest, values, [text], text.length);
    this.socket.write(Buffer.concat(outbox.take()));
    const answer = decode(loginResponse, await this.next(loginResponse.opcode));
    return (answer.statusClass << 8) | answer.statusDetail;
  }
}

const target = "iqn.2026-11.endisk:disk";

test("login, session list, drain, logout, close", async (context) => {
  const portal = await openPortal(context);
  const client = new Client(portal.address);
  assert.equal(await client.login(target), 0);
  const [summary] = portal.sessions();
  assert.equal(summary?.targetName, target);
  assert.equal(summary?.initiatorName, "iqn.2026-11.test:portal");
  portal.drain();
  const message = decode(asyncMessage, await client.next(asyncMessage.opcode));
  assert.equal(message.event, 1);
  assert.equal(await new Client(portal.address).login(target), 0x0301);
  const outbox = new Outbox();
  outbox.pdu(logoutRequest, { immediate: true, initiatorTaskTag: 5 });
  client.socket.write(Buffer.concat(outbox.take()));
  await client.next(logoutResponse.opcode);
  await client.closed;
  assert.deepEqual(portal.sessions(), []);
});

test("garbage closes its own connection and leaves the others alone", async (context) => {
  const portal = await openPortal(context);
  const witness = new Client(portal.address);
  assert.equal(await witness.login(target), 0);
  const prng = new Prng(7);
  for (let round = 0; round < 20; round += 1) {
    const client = new Client(portal.address);
    // Never the opcode of a Login Request.
    const garbage = prng.fill(Buffer.alloc(4096));
    garbage[0] = 0x41;
    garbage[4] = 0;
    garbage.fill(0, 5, 8);
    client.socket.write(garbage);
    await client.closed;
  }
  assert.equal(portal.sessions().length, 1);
  await portal.close();
  await witness.closed;
});

test("4096 logins that are begun and left do not keep a right one out", async (context) => {
  const portal = await openPortal(context);
  const idlers: Client[] = [];
  context.after(() => {
    for (const idler of idlers) idler.socket.destroy();
  });
  const header = Buffer.alloc(20, 0);
  header[0] = 0x43;
  for (let at = 0; at < 4096; at += 1) {
    const idler = new Client(portal.address, `127.0.1.${1 + (at % 8)}`);
    // The beginning of a Login Request, and no more.
    idler.socket.write(header);
    idlers.push(idler);
    if (at % 64 === 63) await new Promise((resolve) => idler.socket.once("connect", resolve));
    if (at % 512 === 511) {
      for (const from of ["127.0.0.1", "127.0.1.1"]) {
        const client = new Client(portal.address, from);
        assert.equal(await client.login(target), 0);
        client.socket.destroy();
        await client.closed;
      }
    }
  }
  await Promise.all(idlers.slice(0, 4096 - loginsInProgressMax).map(({ closed }) => closed));
  const open = idlers.filter(({ socket }) => !socket.destroyed);
  assert(open.length <= loginsInProgressMax, `${open.length} are open`);
});

test("a data segment of 16 MiB is refused by its header", async (context) => {
  const portal = await openPortal(context);
  const client = new Client(portal.address);
  assert.equal(await client.login(target), 0);
  const header = Buffer.alloc(48);
  header[0] = 0x40;
  common.dataLength.set(header, 0xff_ffff);
  client.socket.write(header);
  assert.equal((await client.next(reject.opcode))[2], 0x04);
  await client.closed;
});

test("sessions of byte-by-byte senders end like those of silent ones", async (context) => {
  const clock = new ManualClock();
  const portal = await openPortal(context, clock);
  const slow = new Client(portal.address);
  assert.equal(await slow.login(target), 0);
  const witness = new Client(portal.address);
  assert.equal(await witness.login(target, "00000002"), 0);
  const pong = Buffer.alloc(48);
  pong[0] = 0x40;
  pong[1] = 0x80;
  pong.fill(0xff, 16, 20);
  for (let second = 0; second < (pingAfterIdleMs + pingAnswerMs) / 1000 + 3; second += 1) {
    slow.socket.write(Buffer.alloc(1));
    witness.socket.write(pong);
    await new Promise((resolve) => setTimeout(resolve, 2));
    clock.advance(1000);
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(portal.sessions().length, 1);
  await slow.closed;
});
