import assert from "node:assert/strict";
import net from "node:net";
import { type TestContext, test } from "node:test";
import { Prng } from "../brick/prng.ts";
import { TestAuthority } from "./authority.test-double.ts";
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
} from "./pdu.ts";
import { type Pdu, PduStream } from "./pdu-stream.ts";
import { startPortal } from "./portal.ts";
import { encodeText } from "./text-keys.ts";

async function openPortal(context: TestContext) {
  const directory = memoryDirectory([new MemoryVolume("disk", 1 << 20)]);
  const portal = await startPortal({
    listen: "127.0.0.1:0",
    announce: "127.0.0.1:3260",
    tag: 1,
    directory,
    authority: new TestAuthority(directory),
    log: () => {},
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

  constructor(address: string) {
    const [host, port] = address.split(":");
    this.socket = net.connect({ host: host!, port: Number(port) });
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

  async login(target: string): Promise<number> {
    const outbox = new Outbox();
    const text = encodeText([
      ["InitiatorName", "iqn.2026-11.test:portal"],
      ["TargetName", target],
    ]);
    const stages = { transit: true, currentStage: 1, nextStage: 3 };
    outbox.pdu(loginRequest, { immediate: true, ...stages }, [text], text.length);
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
