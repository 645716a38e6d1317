import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeRefusal, Handshake, type HandshakeIdentity, nonceBytes } from "./handshake.ts";

const secret = Buffer.alloc(32, "secret");
const identity = (self: number, other: Partial<HandshakeIdentity> = {}): HandshakeIdentity => ({
  self,
  clusterId: "cluster",
  secret,
  ...other,
});
const nonce = (fill: number) => Buffer.alloc(nonceBytes, fill);

/** Brick 1 dials brick 2; `spoil` may change each record on its way. */
function shake(
  options: { dialer?: Partial<HandshakeIdentity>; peer?: number },
  spoil: (record: Buffer, at: number) => Buffer = (record) => record,
) {
  const dialer = new Handshake(identity(1, options.dialer), nonce(1), options.peer ?? 2);
  const accepter = new Handshake(identity(2), nonce(2), null);
  let record = spoil(Buffer.from(dialer.hello()), 0);
  const ends: { accepter?: string; dialer?: string } = {};
  for (let at = 1; at < 6; at += 1) {
    const who = at % 2 === 1 ? "accepter" : "dialer";
    const next = (who === "accepter" ? accepter : dialer).receive(record);
    if (next.type === "done") ends[who] = `peer ${next.peer}`;
    if (next.type === "refused") ends[who] = `refused ${next.reason}`;
    if (next.record === null) break;
    record = spoil(Buffer.from(next.record), at);
  }
  return ends;
}

test("two bricks of one cluster know each other", () => {
  assert.deepEqual(shake({}), { accepter: "peer 1", dialer: "peer 2" });
});

test("another secret, cluster or number is refused with the reason", () => {
  const cases: [Parameters<typeof shake>[0], string][] = [
    [{ dialer: { secret: Buffer.alloc(32, "guess") } }, "refused proof"],
    [{ dialer: { clusterId: "other" } }, "refused cluster"],
    [{ peer: 3 }, "refused brick"],
    [{ dialer: { self: 2 }, peer: 2 }, "refused brick"],
  ];
  for (const [options, end] of cases) {
    assert.deepEqual(shake(options), { accepter: end, dialer: end });
  }
});

test("two bricks settle on the newest version of frames that both speak", () => {
  const settled = (dialer: [number, number], accepter: [number, number]) => {
    const range = ([oldest, newest]: [number, number]) => ({ frames: { oldest, newest } });
    const one = new Handshake(identity(1, range(dialer)), nonce(1), 2);
    const other = new Handshake(identity(2, range(accepter)), nonce(2), null);
    const challenge = other.receive(Buffer.from(one.hello()));
    if (challenge.type === "refused") {
      const told = one.receive(challenge.record!);
      assert.equal(told.type === "refused" && told.reason, challenge.reason);
      return challenge.reason;
    }
    const proof = one.receive(challenge.record!);
    const welcome = other.receive(proof.record!);
    const done = one.receive(welcome.record!);
    assert.ok(welcome.type === "done" && done.type === "done");
    assert.equal(welcome.frameVersion, done.frameVersion);
    return done.frameVersion;
  };
  assert.equal(settled([1, 1], [1, 1]), 1);
  assert.equal(settled([1, 3], [1, 1]), 1);
  assert.equal(settled([1, 1], [1, 3]), 1);
  assert.equal(settled([2, 4], [1, 3]), 3);
  assert.equal(settled([2, 4], [1, 1]), "version");
  assert.equal(settled([1, 1], [2, 2]), "version");
});

test("who speaks the first version alone says it as it did before there were ranges", () => {
  const hello = new Handshake(identity(1), nonce(1), 2).hello();
  assert.deepEqual(hello.subarray(10, 16), Buffer.alloc(6));
});

test("a range cannot be narrowed on the way", () => {
  const frames = { oldest: 1, newest: 3 };
  for (const at of [0, 1]) {
    const one = new Handshake(identity(1, { frames }), nonce(1), 2);
    const other = new Handshake(identity(2, { frames }), nonce(2), null);
    const narrowed = (record: Buffer, index: number) => {
      const copy = Buffer.from(record);
      if (index === at) copy[15] = 1;
      return copy;
    };
    const challenge = other.receive(narrowed(one.hello(), 0));
    const proof = one.receive(narrowed(challenge.record!, 1));
    const end = other.receive(proof.record!);
    assert.equal(end.type === "refused" && end.reason, "proof");
  }
});

test("no changed bit in any record gets through on both sides", () => {
  for (let at = 0; at < 4; at += 1) {
    for (let byte = 0; byte < 96; byte += 1) {
      const ends = shake({}, (record, index) => {
        if (index === at) record[byte]! ^= 0x10;
        return record;
      });
      // Only the last record can fail after the accepter was satisfied.
      assert.notEqual(ends.dialer, "peer 2", `record ${at}, byte ${byte}`);
      if (at < 3) assert.notEqual(ends.accepter, "peer 1", `record ${at}, byte ${byte}`);
    }
  }
});

test("a proof replayed under another nonce, or reflected, is refused", () => {
  const dialer = new Handshake(identity(1), nonce(1), 2);
  const first = new Handshake(identity(2), nonce(2), null);
  const hello = Buffer.from(dialer.hello());
  const challenge = first.receive(hello);
  assert.equal(challenge.type, "send");
  const proof = dialer.receive(challenge.record!);
  assert.equal(proof.type, "send");
  assert.equal(first.receive(proof.record!).type, "done");

  const second = new Handshake(identity(2), nonce(3), null);
  second.receive(hello);
  const refused = second.receive(proof.record!);
  assert.deepEqual(refused, {
    type: "refused",
    record: encodeRefusal(2, "proof"),
    reason: "proof",
  });

  // Turned into a welcome, the dialer's own proof does not satisfy it.
  const reflected = Buffer.from(proof.record!);
  reflected[5] = 4;
  reflected.writeUInt16BE(2, 6);
  reflected.writeUInt16BE(1, 8);
  assert.deepEqual(dialer.receive(reflected), { type: "refused", record: null, reason: "proof" });
});

test("records out of turn are malformed", () => {
  const accepter = new Handshake(identity(2), nonce(2), null);
  const other = new Handshake(identity(1), nonce(1), 2);
  const hello = Buffer.from(other.hello());
  assert.equal(accepter.receive(hello).type, "send");
  const again = accepter.receive(hello);
  assert.ok(again.type === "refused" && again.reason === "malformed");
});
