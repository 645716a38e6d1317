import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { DiskError, type Message } from "../brick/host.ts";
import { crashExitCode, openRealDisk } from "../brick/host-io.ts";
import { memoryParts, memoryPartsDefault } from "../brick/memory-budget.ts";
import { Prng } from "../brick/prng.ts";
import { encodeRefusal, handshakeRecordBytes } from "../brick/rpc/handshake.ts";
import { openNetwork, type RealNetwork, strangersMax } from "../brick/rpc/network-io.ts";
import { MiB } from "../brick/units.ts";
import { examineDisk, examineNetwork, messageOf } from "./host-suite.ts";

for (const [name, memory] of [
  ["real", memoryPartsDefault],
  ["real, with little memory", memoryParts(256 * MiB)],
] as const) {
  examineDisk(name, async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "endisk-host-"));
    return {
      disk: await openRealDisk(path.join(folder, "data"), { memory }),
      complete: (promise) => promise,
      close: () => rm(folder, { recursive: true }),
    };
  });
}

test("real: host.crash ends the process at once, and what it wrote is still there", async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "endisk-crash-"));
  const program = `
    import { openRealHost } from ${JSON.stringify(new URL("../brick/host-io.ts", import.meta.url))};
    const network = { send() {}, onMessage() {}, setPeers() {} };
    const dataFolder = ${JSON.stringify(folder)};
    const host = await openRealHost({ dataFolder, network, log() {} });
    const kv = await host.disk.openKv("kv");
    kv.write([{ key: Buffer.from("a"), value: Buffer.from("1") }], { sync: false });
    host.clock.soon(() => console.log("still alive"));
    try { host.crash(new Error("the reason")); } finally { console.log("still alive"); }`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program]);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (output += text));
  const [code] = await once(child, "close");
  assert.equal(code, crashExitCode, output);
  assert.match(output, /the reason/);
  assert.doesNotMatch(output, /still alive/);
  const kv = await (await openRealDisk(folder)).openKv("kv");
  assert.equal(kv.get(Buffer.from("a"))?.toString(), "1");
  await assert.rejects((await openRealDisk(folder)).openKv("kv"), DiskError);
  await kv.close();
  await rm(folder, { recursive: true });
});

const secret = Buffer.alloc(32, "s");

function openBrick(
  self: number,
  options: { boot?: number; listen?: string; secret?: Buffer; clusterId?: string } = {},
): Promise<RealNetwork> {
  const usual = { boot: 1, listen: "127.0.0.1:0", clusterId: "cluster", secret };
  return openNetwork({ ...usual, ...options, self, log: () => {} });
}

async function until(holds: () => boolean): Promise<void> {
  for (let round = 0; !holds(); round += 1) {
    assert.ok(round < 2000, "it did not come to pass");
    await sleep(5);
  }
}

examineNetwork("real", async () => {
  const a = await openBrick(1);
  const b = await openBrick(2);
  const open = [a, b];
  a.setPeers(new Map([[2, b.address]]));
  b.setPeers(new Map([[1, a.address]]));
  return {
    a,
    b,
    until,
    restartB: async () => {
      await b.close();
      const next = await openBrick(2, { boot: 2, listen: b.address });
      next.setPeers(new Map([[1, a.address]]));
      open.push(next);
      return next;
    },
    close: async () => {
      for (const network of open) await network.close();
    },
  };
});

describe("real: network among strangers", () => {
  /** Two bricks, of which the second may be a stranger; what each received. */
  async function meet(options: Parameters<typeof openBrick>[1]) {
    const a = await openBrick(1);
    const b = await openBrick(2, options);
    const arrivals: Message[] = [];
    a.onMessage((_from, message) => arrivals.push(message));
    b.onMessage((_from, message) => arrivals.push(message));
    const close = async () => {
      await a.close();
      await b.close();
    };
    return { a, b, arrivals, close };
  }

  for (const [what, options] of Object.entries({
    secret: { secret: Buffer.alloc(32, "x") },
    cluster: { clusterId: "another" },
  })) {
    test(`a brick with another ${what} is refused, whoever dials`, async () => {
      const { a, b, arrivals, close } = await meet(options);
      a.setPeers(new Map([[2, b.address]]));
      a.send(2, messageOf(1, 1, Buffer.from("for friends")));
      await until(() => b.stats.refusedConnections > 0 && a.stats.refusedConnections > 0);
      a.setPeers(new Map());
      const refusedByA = a.stats.refusedConnections;
      b.setPeers(new Map([[1, a.address]]));
      b.send(1, messageOf(1, 1, Buffer.from("let me in")));
      await until(() => a.stats.refusedConnections > refusedByA);
      assert.equal(a.stats.connections + b.stats.connections, 0);
      assert.equal(arrivals.length, 0);
      await close();
    });
  }

  /** Sends the bytes to the network and gives all that comes back before it hangs up. */
  function provoke(network: RealNetwork, bytes: Buffer): Promise<Buffer> {
    return new Promise((resolve) => {
      const [host, port] = network.address.split(":");
      const socket = net.connect({ host: host!, port: Number(port) }, () => socket.write(bytes));
      const came: Buffer[] = [];
      socket.on("data", (chunk) => came.push(chunk));
      socket.on("error", () => {});
      socket.on("close", () => resolve(Buffer.concat(came)));
    });
  }

  test("junk gets a refusal and a closed socket, and harms nobody", async () => {
    const { a, b, arrivals, close } = await meet({});
    const prng = new Prng(5);
    for (const length of [96, 97, 5000, 200_000]) {
      const answer = await provoke(a, prng.fill(Buffer.alloc(length)));
      // The refusal may be lost when the socket is closed before all our junk was read.
      if (answer.length > 0) assert.deepEqual(answer, encodeRefusal(1, "malformed"));
      else assert.ok(length > handshakeRecordBytes);
    }
    assert.ok(a.stats.refusedConnections >= 4);
    a.setPeers(new Map([[2, b.address]]));
    a.send(2, messageOf(1, 1));
    await until(() => arrivals.length === 1);
    await close();
  });

  test("who says nothing is closed at the deadline, and a crowd is turned away", async () => {
    const a = await openBrick(1);
    const silent = Array.from({ length: strangersMax + 10 }, () => provoke(a, Buffer.alloc(0)));
    const answers = await Promise.all(silent);
    for (const answer of answers) assert.equal(answer.length, 0);
    assert.equal(a.stats.refusedConnections, strangersMax + 10);
    await a.close();
  });

  test("bricks that dial each other at once end up with one connection that works", async () => {
    const { a, b, arrivals, close } = await meet({});
    // The higher number is told first and given time to dial.
    b.setPeers(new Map([[1, a.address]]));
    b.send(1, messageOf(1, 1));
    await until(() => arrivals.length === 1);
    a.setPeers(new Map([[2, b.address]]));
    a.send(2, messageOf(1, 2));
    await until(() => arrivals.length === 2);
    b.send(1, messageOf(1, 3));
    await until(() => arrivals.length === 3);
    assert.equal(a.stats.connections, 1);
    assert.equal(b.stats.connections, 1);
    await close();
  });

  test("what cannot be sent within the bound is dropped and counted", async () => {
    const a = await openBrick(1);
    // An address where connections are neither accepted nor refused for a while.
    const deaf = net.createServer({ pauseOnConnect: true });
    await new Promise<void>((resolve) => deaf.listen(0, "127.0.0.1", resolve));
    const sockets: net.Socket[] = [];
    deaf.on("connection", (socket) => sockets.push(socket));
    a.setPeers(new Map([[2, `127.0.0.1:${(deaf.address() as net.AddressInfo).port}`]]));
    const body = Buffer.alloc(1 << 20);
    for (let request = 1; request <= 70; request += 1) a.send(2, messageOf(1, request, body));
    assert.equal(a.stats.droppedMessages, 7);
    await a.close();
    for (const socket of sockets) socket.destroy();
    deaf.close();
  });
});
