import assert from "node:assert/strict";
import { connect } from "node:net";
import { test } from "node:test";
import {
  status as grpcStatus,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  type sendUnaryData,
} from "@grpc/grpc-js";
import type { ChapRecord } from "../brick/cluster-state.ts";
import type {
  AdminBackend,
  AdminReply,
  EventSummary,
  InitiatorSummary,
  JoinDetails,
  VolumeSummary,
} from "./api.ts";
import {
  callAgeMsMax,
  callProof,
  noncesMax,
  openGrant,
  parseJoinToken,
  ReplayWindow,
  sealGrant,
} from "./api-auth.ts";
import { ApiClient, joinCluster } from "./api-client-io.ts";
import { type ApiServer, bytesService, startApiServer } from "./api-server-io.ts";

const secret = Buffer.alloc(32, 7);

function volumeNamed(name: string, sizeBytes: number, copies: number): VolumeSummary {
  return {
    name,
    uuid: "00".repeat(16),
    target: `iqn.2026-11.endisk:${name}`,
    sizeBytes,
    copies,
    status: "ready",
    usedBytes: 5,
    freeBytes: 2 ** 53 - 2 ** 20,
    attachedBrick: 2,
    open: false,
    encrypted: false,
    access: [{ initiator: "iqn.2026-11.example:host", lun: 7 }],
  };
}

function eventAt(sequence: number): EventSummary {
  return {
    sequence,
    wallMs: 1_790_000_000_123,
    clusterMs: 2 ** 40 + 1,
    severity: "warning",
    kind: "brick_down",
    subject: "brick 2",
    text: "brick 2 is down",
    count: 17,
  };
}

/** A backend of one token table and an echo, enough to see what passes the api. */
class EchoBackend implements AdminBackend {
  readonly tokens = new Map<string, string>();
  joined: JoinDetails | null = null;
  calls = 0;

  async status(): Promise<AdminReply<never>> {
    this.calls += 1;
    return { ok: false, fault: { code: "unavailable", message: "no leader" } };
  }
  async events(since: number) {
    return { ok: true as const, value: { events: [eventAt(since + 1)] } };
  }
  async brickShow(number: number): Promise<AdminReply<never>> {
    this.calls += 1;
    return { ok: false, fault: { code: "not_found", message: `no brick ${number}` } };
  }
  brickDrain = this.brickShow;
  brickRemove = this.brickShow;
  brickUse = this.brickShow;
  mode = "";
  async rebalance(mode: string) {
    this.mode = mode;
    return { ok: true as const, value: null };
  }
  async volumeCreate(name: string, sizeBytes: number, copies: number) {
    this.calls += 1;
    return { ok: true as const, value: volumeNamed(name, sizeBytes, copies) };
  }
  async volumeShow(name: string) {
    return { ok: true as const, value: volumeNamed(name, 2 ** 20, 2) };
  }
  async volumeResize(name: string, sizeBytes: number) {
    return { ok: true as const, value: volumeNamed(name, sizeBytes, 2) };
  }
  volumeDelete = this.volumeShow;
  volumeAllow = this.volumeShow;
  volumeDeny = this.volumeShow;
  volumeOpen = this.volumeShow;
  initiators: { name: string; chap: ChapRecord | null }[] = [];
  async initiatorList() {
    const initiators = this.initiators.map((one) => this.#summary(one));
    return { ok: true as const, value: { initiators } };
  }
  async initiatorShow(name: string): Promise<AdminReply<InitiatorSummary>> {
    return { ok: true, value: this.#summary({ name, chap: null }) };
  }
  async initiatorSet(name: string, chap: ChapRecord | null) {
    this.initiators.push({ name, chap });
    return { ok: true as const, value: this.#summary({ name, chap }) };
  }
  async initiatorRemove(): Promise<AdminReply<null>> {
    return { ok: true, value: null };
  }
  discovery: ChapRecord | null | undefined;
  async discoveryChap(chap: ChapRecord | null): Promise<AdminReply<null>> {
    this.discovery = chap;
    return { ok: true, value: null };
  }
  #summary({ name, chap }: { name: string; chap: ChapRecord | null }): InitiatorSummary {
    return {
      name,
      user: chap?.user ?? "",
      weakest: chap?.weakest ?? "",
      mutualUser: chap?.mutual?.user ?? "",
      volumes: [{ name: "disk", lun: -1 }],
    };
  }
  async tokenAdd(id: string, hash: string): Promise<AdminReply<null>> {
    this.tokens.set(id, hash);
    return { ok: true, value: null };
  }
  async tokenHash(id: string): Promise<AdminReply<string>> {
    const hash = this.tokens.get(id);
    if (hash === undefined) return { ok: false, fault: { code: "refused", message: "no token" } };
    return { ok: true, value: hash };
  }
  async join(tokenId: string, details: JoinDetails) {
    this.tokens.delete(tokenId);
    this.joined = details;
    const peers = [{ number: 1, peerAddress: "127.0.0.1:1", apiAddress: "127.0.0.1:2" }];
    return { ok: true as const, value: { clusterId: "ab".repeat(16), number: 4, peers } };
  }
}

const details: JoinDetails = {
  uuid: "12".repeat(16),
  peerAddress: "127.0.0.1:3303",
  portalAddress: "127.0.0.1:3263",
  apiAddress: "127.0.0.1:3283",
  domain: "rack-2",
  spare: true,
  capacityBytes: 2 ** 40,
};

async function withServer(
  run: (address: string, backend: EchoBackend, server: ApiServer) => Promise<void>,
): Promise<void> {
  const backend = new EchoBackend();
  const server = await startApiServer({
    host: "127.0.0.1",
    port: 0,
    backend,
    secret,
    wallMs: () => Date.now(),
    metrics: async () => "endisk_up 1\n",
    health: () => ({ ready: true, facts: { brick: 1 } }),
    log: () => {},
  });
  try {
    await run(`127.0.0.1:${server.port}`, backend, server);
  } finally {
    await server.close();
  }
}

function clientOf(address: string, key = secret): ApiClient {
  return new ApiClient({ addresses: [address], secret: key, wallMs: () => Date.now() });
}

test("a member's call passes values both ways, 53-bit sizes included", async () => {
  await withServer(async (address) => {
    const reply = await clientOf(address).volumeCreate("disk1", 2 ** 53 - 2 ** 20, 2);
    assert.deepEqual(reply, { ok: true, value: volumeNamed("disk1", 2 ** 53 - 2 ** 20, 2) });
  });
});

test("events after a sequence pass with their numbers and times whole", async () => {
  await withServer(async (address) => {
    const since = 2 ** 53 - 2;
    const reply = await clientOf(address).events(since);
    assert.deepEqual(reply, { ok: true, value: { events: [eventAt(since + 1)] } });
    const stranger = await clientOf(address, Buffer.alloc(32, 8)).events(0);
    assert.equal(!stranger.ok && stranger.fault.code, "refused");
  });
});

test("faults pass as values", async () => {
  await withServer(async (address) => {
    assert.deepEqual(await clientOf(address).brickShow(9), {
      ok: false,
      fault: { code: "not_found", message: "no brick 9" },
    });
    const reply = await clientOf(address).status();
    assert.equal(!reply.ok && reply.fault.code, "unavailable");
  });
});

test("the server checks what the client could have sent unchecked", async () => {
  await withServer(async (address, backend) => {
    for (const [name, size, copies] of [
      ["Disk", 2 ** 20, 2],
      ["disk", 2 ** 20 + 1, 2],
      ["disk", 0, 2],
      ["disk", 2 ** 20, 9],
    ] as const) {
      const reply = await clientOf(address).volumeCreate(name, size, copies);
      assert.equal(!reply.ok && reply.fault.code, "invalid");
    }
    assert.equal(backend.calls, 0);
  });
});

test("credentials pass sealed, as a record or none", async () => {
  await withServer(async (address, backend) => {
    const client = clientOf(address);
    const name = "iqn.2026-11.example:host";
    const seal = (digit: string) => ({ sealed: digit.repeat(88), fingerprint: digit.repeat(32) });
    const chap: ChapRecord = {
      user: "user",
      secret: seal("a"),
      weakest: "sha1",
      mutual: { user: "target", secret: seal("b") },
    };
    const set = await client.initiatorSet(name, chap);
    const volumes = [{ name: "disk", lun: -1 }];
    const shown = { name, user: "user", weakest: "sha1", mutualUser: "target", volumes };
    assert.deepEqual(set, { ok: true, value: shown });
    await client.initiatorSet(name, null);
    await client.initiatorSet(name, { ...chap, mutual: null });
    assert.deepEqual(backend.initiators, [
      { name, chap },
      { name, chap: null },
      { name, chap: { ...chap, mutual: null } },
    ]);
    const list = await client.initiatorList();
    assert.equal(list.ok && list.value.initiators.length, 3);
    assert.equal((await client.discoveryChap(chap)).ok, true);
    assert.deepEqual(backend.discovery, chap);
    assert.equal((await client.discoveryChap(null)).ok, true);
    assert.equal(backend.discovery, null);
  });
});

test("names, LUNs and credentials of a wrong form reach nothing", async () => {
  await withServer(async (address, backend) => {
    const client = clientOf(address);
    const name = "iqn.2026-11.example:host";
    const clear = { sealed: "a secret in clear", fingerprint: "0".repeat(32) };
    const chap = { user: "u", secret: clear, weakest: "md5", mutual: null } as const;
    for (const asked of [
      client.initiatorSet("IQN.2026-11.example:host", null),
      client.initiatorSet("host", null),
      client.initiatorSet(name, chap),
      client.volumeAllow("disk", name, 256),
      client.volumeAllow("Disk", name, 0),
      client.volumeDeny("disk", "host"),
    ]) {
      const reply = await asked;
      assert.equal(!reply.ok && reply.fault.code, "invalid");
    }
    assert.deepEqual(backend.initiators, []);
    assert.equal((await client.volumeAllow("disk", name, -1)).ok, true);
  });
});

test("a caller with another secret is refused and reaches nothing", async () => {
  await withServer(async (address, backend) => {
    const reply = await clientOf(address, Buffer.alloc(32, 8)).volumeCreate("disk1", 2 ** 20, 2);
    assert.equal(!reply.ok && reply.fault.code, "refused");
    assert.equal(backend.calls, 0);
  });
});

test("a call made before the brick was started, or by a clock that is wrong, is made again", async () => {
  const startedMs = Date.now();
  await withServer(async (address, backend) => {
    for (const offMs of [-1, -60_000, -86_400_000, 86_400_000]) {
      const wallMs = () => startedMs + offMs;
      const client = new ApiClient({ addresses: [address], secret, wallMs });
      assert.equal((await client.volumeCreate("disk1", 2 ** 20, 2)).ok, true, `${offMs} ms`);
    }
    assert.equal(backend.calls, 4);
  });
});

test("who does not know the secret cannot have a call made again", async () => {
  const stranger = new Server();
  let calls = 0;
  const metadata = new Metadata();
  metadata.set("endisk-time", String(Date.now()));
  metadata.set("endisk-proof", "00".repeat(32));
  const { VolumeShow } = bytesService();
  stranger.addService({ VolumeShow } as ServiceDefinition, {
    VolumeShow: (_call: unknown, done: sendUnaryData<Buffer>) => {
      calls += 1;
      done({ code: grpcStatus.UNAUTHENTICATED, details: "stale", metadata });
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    const credentials = ServerCredentials.createInsecure();
    stranger.bindAsync("127.0.0.1:0", credentials, (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  const reply = await clientOf(`127.0.0.1:${port}`).volumeShow("disk0");
  stranger.forceShutdown();
  assert.equal(!reply.ok && reply.fault.code, "refused");
  assert.equal(calls, 1);
});

test("a dead address is passed over", async () => {
  await withServer(async (address) => {
    const client = new ApiClient({
      addresses: ["127.0.0.1:1", address],
      secret,
      wallMs: () => Date.now(),
    });
    assert.equal((await client.volumeShow("disk0")).ok, true);
  });
});

test("a token lets one brick in, once", async () => {
  await withServer(async (address, backend) => {
    const made = await clientOf(address).token(0);
    assert.ok(made.ok);
    const token = parseJoinToken(made.value.token);
    assert.ok(token);
    const grant = await joinCluster(address, token, details);
    assert.ok(grant.ok);
    assert.deepEqual(grant.value.secret, secret);
    assert.equal(grant.value.number, 4);
    assert.equal(grant.value.peers[0]?.apiAddress, "127.0.0.1:2");
    assert.deepEqual({ ...backend.joined }, details);
    const again = await joinCluster(address, token, details);
    assert.equal(!again.ok && again.fault.code, "refused");
  });
});

test("a join with a wrong secret part is refused and does not spend the token", async () => {
  await withServer(async (address, backend) => {
    const made = await clientOf(address).token(60_000);
    assert.ok(made.ok);
    const token = parseJoinToken(made.value.token)!;
    const forged = await joinCluster(address, { id: token.id, hash: "00".repeat(32) }, details);
    assert.equal(!forged.ok && forged.fault.code, "refused");
    assert.equal(backend.tokens.size, 1);
    assert.equal((await joinCluster(address, token, details)).ok, true);
  });
});

test("metrics and health are served as plain HTTP on the same port", async () => {
  await withServer(async (address) => {
    const metrics = await fetch(`http://${address}/metrics`);
    assert.equal(await metrics.text(), "endisk_up 1\n");
    const health = await fetch(`http://${address}/health`);
    assert.deepEqual(await health.json(), { status: "ok", brick: 1 });
    assert.equal((await fetch(`http://${address}/volumes`)).status, 404);
    assert.equal((await fetch(`http://${address}/metrics`, { method: "POST" })).status, 405);
  });
});

test("a client that sends its first bytes one at a time is still understood", async () => {
  await withServer(async (address) => {
    const [host, port] = address.split(":");
    const socket = connect(Number(port), host);
    socket.setNoDelay(true);
    const text = await new Promise<string>((resolve) => {
      let received = "";
      socket.on("data", (bytes) => {
        received += bytes;
      });
      socket.on("close", () => resolve(received));
      const request = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
      let at = 0;
      const next = () => {
        if (at === request.length) return;
        socket.write(request[at++]!, () => setImmediate(next));
      };
      socket.on("connect", next);
    });
    assert.match(text, /^HTTP\/1\.1 200 /);
  });
});

test("a call is admitted once, within its time, and not from before the start", () => {
  const window = new ReplayWindow(1_000_000);
  const stamp = { timeMs: 1_000_500, nonce: "aa" };
  assert.equal(window.admit(1_000_500, stamp), "admitted");
  assert.equal(window.admit(1_000_600, stamp), "refused");
  assert.equal(window.admit(1_000_600, { timeMs: 999_999, nonce: "bb" }), "stale");
  const old = { timeMs: 1_000_600, nonce: "cc" };
  assert.equal(window.admit(1_000_600 + callAgeMsMax + 1, old), "stale");
  assert.equal(window.admit(2_000_000, { timeMs: Number.NaN, nonce: "dd" }), "stale");
});

test("a nonce is remembered for as long as its call could be played again", () => {
  const window = new ReplayWindow(0);
  const stamp = { timeMs: 2 * callAgeMsMax, nonce: "late" };
  assert.equal(window.admit(callAgeMsMax, stamp), "admitted");
  for (let at = callAgeMsMax; at <= 3 * callAgeMsMax; at += 1000) {
    assert.notEqual(window.admit(at, stamp), "admitted");
    window.admit(at, { timeMs: at, nonce: `n${at}` });
  }
});

test("the window is bounded", () => {
  const window = new ReplayWindow(0);
  for (let n = 0; n < noncesMax; n += 1) window.admit(1, { timeMs: 1, nonce: `n${n}` });
  assert.equal(window.admit(1, { timeMs: 1, nonce: "one more" }), "refused");
  assert.equal(window.admit(callAgeMsMax, { timeMs: callAgeMsMax, nonce: "later" }), "refused");
  const later = 3 * callAgeMsMax;
  assert.equal(window.admit(later, { timeMs: later, nonce: "after the turn" }), "admitted");
});

test("a proof covers method, time, nonce and body", () => {
  const stamp = { timeMs: 1, nonce: "aa" };
  const proofs = [
    callProof(secret, "Status", stamp, Buffer.from("x")),
    callProof(secret, "Token", stamp, Buffer.from("x")),
    callProof(secret, "Status", { ...stamp, timeMs: 2 }, Buffer.from("x")),
    callProof(secret, "Status", { ...stamp, nonce: "ab" }, Buffer.from("x")),
    callProof(secret, "Status", stamp, Buffer.from("y")),
    callProof(Buffer.alloc(32, 8), "Status", stamp, Buffer.from("x")),
  ];
  assert.equal(new Set(proofs.map((proof) => proof.toString("hex"))).size, proofs.length);
});

test("a sealed grant opens only for its token and request, unchanged", () => {
  const hash = "11".repeat(32);
  const nonce = Buffer.alloc(32, 1);
  const sealed = sealGrant(hash, nonce, Buffer.alloc(12, 2), Buffer.from("grant"));
  assert.equal(openGrant(hash, nonce, sealed)?.toString(), "grant");
  assert.equal(openGrant("12".repeat(32), nonce, sealed), null);
  assert.equal(openGrant(hash, Buffer.alloc(32, 3), sealed), null);
  for (let at = 0; at < sealed.length; at += 1) {
    const bent = Buffer.from(sealed);
    bent[at]! ^= 1;
    assert.equal(openGrant(hash, nonce, bent), null);
  }
  assert.equal(openGrant(hash, nonce, Buffer.alloc(5)), null);
});
