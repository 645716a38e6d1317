import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  type CommandOutcome,
  read10,
  type TestInitiator,
  write10,
} from "../initiator.test-double.ts";
import {
  attachTwo,
  expectConflict,
  expectGood,
  expectSense,
  fieldPointer,
  hex,
  initiatorPorts,
  ready,
} from "./commands.test-double.ts";
import { decodeTransportId, encodeTransportId } from "./transport-id.ts";

const keyOne = "1122334455667788";
const keyTwo = "a1a2a3a4a5a6a7a8";
const noKey = "0000000000000000";

function reserveIn(initiator: TestInitiator, action: number, bytes = 0x1000) {
  const cdb = hex("5e 00 00 00 00 00 00 0000 00");
  cdb[1] = action;
  cdb.writeUInt16BE(bytes, 7);
  return initiator.read(cdb, bytes);
}

function reserveOut(
  initiator: TestInitiator,
  action: number,
  type: number,
  list: Buffer,
): Promise<CommandOutcome> {
  const cdb = hex("5f 00 00 00 00 00000000 00");
  cdb[1] = action;
  cdb[2] = type;
  cdb.writeUInt32BE(list.length, 5);
  return initiator.write(cdb, list);
}

/** RESERVATION KEY, SERVICE ACTION RESERVATION KEY, flags. */
function list(key: string, actionKey: string, flags = 0, rest: Buffer = Buffer.alloc(0)): Buffer {
  const head = hex(`${key} ${actionKey} 00000000 00 00 0000`);
  head[20] = flags;
  return Buffer.concat([head, rest]);
}

const register = (initiator: TestInitiator, actionKey: string, key = noKey, flags = 0) =>
  reserveOut(initiator, 0x00, 0, list(key, actionKey, flags));
const reserve = (initiator: TestInitiator, key: string, type: number) =>
  reserveOut(initiator, 0x01, type, list(key, noKey));

test("what PERSISTENT RESERVE IN says of a registration and a reservation", async () => {
  const { first, second } = await attachTwo();
  const empty = (await reserveIn(first, 0)).data.toString("hex");
  assert.equal(empty, "0000000000000000");
  expectGood(await register(first, keyOne));
  expectGood(await register(second, keyTwo));
  const keys = (await reserveIn(second, 0)).data;
  assert.equal(keys.toString("hex"), `0000000200000010${keyOne}${keyTwo}`);
  // Cut, but told whole.
  assert.equal((await reserveIn(second, 0, 12)).data.toString("hex"), `000000020000001011223344`);
  expectGood(await reserve(first, keyOne, 5));
  const reservation = (await reserveIn(second, 1)).data.toString("hex");
  assert.equal(reservation, `0000000200000010${keyOne}0000000000050000`);
  const status = (await reserveIn(second, 3)).data;
  const [one, two] = initiatorPorts.map((port) => encodeTransportId(port).toString("hex"));
  const tail = (holder: string) => `00000000${holder}000000000007`;
  const length = encodeTransportId(initiatorPorts[0]!).length.toString(16).padStart(8, "0");
  assert.equal(
    status.toString("hex", 8),
    `${keyOne}${tail("0105")}${length}${one}${keyTwo}${tail("0000")}${length}${two}`,
  );
  assert.equal(status.readUInt32BE(4), status.length - 8);
});

test("with the all-registrants types the key is zero and everyone holds", async () => {
  const { first, second } = await attachTwo();
  await register(first, keyOne);
  await register(second, keyTwo);
  expectGood(await reserve(first, keyOne, 7));
  assert.equal((await reserveIn(first, 1)).data.toString("hex", 8), `${noKey}0000000000070000`);
  const status = (await reserveIn(first, 3)).data;
  assert.equal(status[8 + 12], 0x01);
  assert.equal(status[8 + 24 + encodeTransportId(initiatorPorts[0]!).length + 12], 0x01);
});

test("a registration at all ports of which one nexus holds is shown port by port", async () => {
  const { first, volume } = await attachTwo();
  volume.portsNow = [7, 8].map((targetPort) => ({ targetPort, state: "optimized" }));
  expectSense(await first.read(ready, 0), "6/2a/06");
  expectGood(await register(first, keyOne, noKey, 0x04));
  const all = (await reserveIn(first, 3)).data;
  assert.equal(all[8 + 12], 0x02, "ALL_TG_PT");
  expectGood(await reserve(first, keyOne, 1));
  const { data } = await reserveIn(first, 3);
  const second = 8 + 24 + encodeTransportId(initiatorPorts[0]!).length;
  assert.deepEqual([data[8 + 12], data.readUInt16BE(8 + 18)], [0x01, 7]);
  assert.deepEqual([data[second + 12], data.readUInt16BE(second + 18)], [0x00, 8]);
});

test("REPORT CAPABILITIES: all types, APTPL as activated", async () => {
  const { first } = await attachTwo();
  assert.equal((await reserveIn(first, 2)).data.toString("hex"), "00081dc0ea010000");
  await register(first, keyOne, noKey, 0x01);
  assert.equal((await reserveIn(first, 2)).data.toString("hex"), "00081dc1ea010000");
  expectSense(await reserveIn(first, 4), "5/24/00");
});

test("reservations come before other unit attentions, and after resets", async () => {
  const { first, second, volume } = await attachTwo();
  await register(first, keyOne);
  await reserve(first, keyOne, 3);
  volume.grow(8 << 20);
  expectConflict(await second.read(read10(0, 1), 512));
  expectSense(await second.read(ready, 0), "6/2a/09");
  expectConflict(await second.read(read10(0, 1), 512));
  expectSense(await first.read(read10(0, 1), 512), "6/2a/09");
  await volume.changeUnit({
    type: "reset",
    nexus: { initiatorPort: initiatorPorts[0]!, targetPort: 7 },
  });
  expectSense(await second.read(read10(0, 1), 512), "6/29/03");
  expectConflict(await second.read(read10(0, 1), 512));
});

test("which commands a reservation of another holds up", async () => {
  const { first, second } = await attachTwo();
  await register(first, keyOne);
  const commands: [string, "always" | "status" | "read" | "write"][] = [
    ["00 00 00 00 00 00", "status"],
    ["03 00 00 00 12 00", "always"],
    ["12 00 00 00 24 00", "always"],
    ["a0 00 00 00 00 00 00 00 00 10 00 00", "always"],
    ["25 00 00 00 00 00 00 00 00 00", "status"],
    ["1a 00 3f 00 ff 00", "status"],
    ["a3 0c 00 00 00 00 00 00 01 00 00 00", "status"],
    ["5e 00 00 00 00 00 00 01 00 00", "status"],
    ["1b 00 00 00 01 00", "status"],
    ["1b 00 00 00 00 00", "write"],
    ["1e 00 00 00 00 00", "always"],
    ["1e 00 00 00 01 00", "write"],
    ["28 00 00 00 00 00 00 00 01 00", "read"],
    ["2f 00 00 00 00 00 00 00 01 00", "read"],
    ["34 00 00 00 00 00 00 00 01 00", "read"],
    ["9e 12 00000000 00000000 00000018 00 00", "read"],
    ["35 00 00 00 00 00 00 00 00 00", "write"],
    ["93 09 00000000 00000000 00000001 00 00", "write"],
  ];
  for (const type of [1, 3, 5, 6, 7, 8]) {
    expectGood(await reserve(first, keyOne, type));
    const othersRead = type === 1 || type === 5 || type === 7;
    for (const [bytes, kind] of commands) {
      const { status } = await second.read(hex(bytes), 512);
      const stopped = kind === "write" || (kind === "read" && !othersRead);
      assert.equal(status, stopped ? 0x18 : 0, `${bytes} under type ${type}`);
    }
    expectGood(await reserveOut(first, 0x02, type, list(keyOne, noKey)));
    await second.read(hex("03 00 00 00 12 00"), 18);
  }
});

test("RESERVE(6) holds up all but a few, and its release by another is nothing", async () => {
  const { first, second } = await attachTwo();
  expectGood(await first.read(hex("16 00 00 00 00 00"), 0));
  expectGood(await first.read(hex("16 00 00 00 00 00"), 0));
  expectConflict(await second.read(hex("16 00 00 00 00 00"), 0));
  expectGood(await second.read(hex("17 00 00 00 00 00"), 0));
  expectConflict(await second.read(ready, 0));
  expectConflict(await second.read(hex("1a 00 3f 00 ff 00"), 255));
  expectGood(await second.read(hex("12 00 00 00 24 00"), 36));
  expectGood(await second.read(hex("1e 00 00 00 00 00"), 0));
  expectConflict(await reserveIn(second, 0));
  expectGood(await first.write(write10(0, 1), Buffer.alloc(512)));
  expectSense(await first.read(hex("16 10 00 00 00 00"), 0), "5/24/00");
  expectGood(await first.read(hex("17 00 00 00 00 00"), 0));
  expectGood(await second.write(write10(0, 1), Buffer.alloc(512)));
});

test("PERSISTENT RESERVE OUT lists and fields that cannot be", async () => {
  const { first } = await attachTwo();
  await register(first, keyOne);
  expectSense(await reserveOut(first, 0x01, 5, list(keyOne, noKey).subarray(0, 23)), "5/1a/00");
  expectSense(await reserveOut(first, 0x01, 5, list(keyOne, noKey, 0, hex("00"))), "5/1a/00");
  const scope = await reserveOut(first, 0x01, 0x25, list(keyOne, noKey));
  expectSense(scope, "5/24/00");
  assert.equal(fieldPointer(scope), "c2.7");
  for (const type of [0, 2, 4, 9, 15]) {
    const outcome = await reserveOut(first, 0x01, type, list(keyOne, noKey));
    expectSense(outcome, "5/24/00");
    assert.equal(fieldPointer(outcome), "c2.3");
  }
  const ignoring = await reserveOut(first, 0x06, 0, list(noKey, keyOne, 0x08, hex("00000000")));
  expectSense(ignoring, "5/26/00");
  assert.equal(fieldPointer(ignoring), "p20.3");
  expectSense(await reserveOut(first, 0x08, 0, list(keyOne, noKey)), "5/24/00");
  const cdb = hex("5f 00 00 00 00 00100000 00");
  expectSense(await first.write(cdb, list(noKey, keyOne)), "5/1a/00");
  await reserve(first, keyOne, 5);
  expectSense(await reserveOut(first, 0x02, 3, list(keyOne, noKey)), "5/26/04");
});

test("SPEC_I_PT registers the ports that are named, by port or by the one port of a name", async () => {
  const { first, second } = await attachTwo();
  const named = encodeTransportId("iqn.2026-11.test:other,i,0x400001370000");
  const length = Buffer.alloc(4);
  length.writeUInt32BE(named.length, 0);
  const whole = list(noKey, keyOne, 0x08, Buffer.concat([length, named]));
  expectGood(await reserveOut(first, 0x00, 0, whole));
  const { data } = await reserveIn(second, 0);
  assert.equal(data.toString("hex", 4), `00000010${keyOne}${keyOne}`);
  // Two ports of this name are logged in: it names neither.
  const name = hex(`05 00 001c ${Buffer.from("iqn.2026-11.test:initiator").toString("hex")} 0000`);
  length.writeUInt32BE(name.length, 0);
  const unclear = list(noKey, keyTwo, 0x08, Buffer.concat([length, name]));
  const refused = await reserveOut(second, 0x00, 0, unclear);
  expectSense(refused, "5/26/00");
  assert.equal(fieldPointer(refused), "p28");
  length.writeUInt32BE(name.length + 4, 0);
  const longer = list(noKey, keyTwo, 0x08, Buffer.concat([length, name]));
  expectSense(await reserveOut(second, 0x00, 0, longer), "5/1a/00");
});

test("REGISTER AND MOVE gives the reservation to the nexus that it names", async () => {
  const { first, second, volume } = await attachTwo();
  volume.portsNow = [{ targetPort: 7, state: "optimized" }];
  expectSense(await first.read(ready, 0), "6/2a/06");
  expectSense(await second.read(ready, 0), "6/2a/06");
  await register(first, keyOne);
  await reserve(first, keyOne, 1);
  const move = (port: number, unregister: number, to = initiatorPorts[1]!) => {
    const id = encodeTransportId(to);
    const head = hex(`${keyOne} ${keyTwo} 00 00 0000 00000000`);
    head[17] = unregister;
    head.writeUInt16BE(port, 18);
    head.writeUInt32BE(id.length, 20);
    return reserveOut(first, 0x07, 0, Buffer.concat([head, id]));
  };
  const elsewhere = await move(9, 0);
  expectSense(elsewhere, "5/26/00");
  assert.equal(fieldPointer(elsewhere), "p18");
  expectGood(await move(7, 0x02));
  const { data } = await reserveIn(first, 1);
  assert.equal(data.toString("hex", 8), `${keyTwo}0000000000010000`);
  assert.equal((await reserveIn(first, 0)).data.toString("hex", 8), keyTwo);
  expectConflict(await first.write(write10(0, 1), Buffer.alloc(512)));
  expectGood(await second.write(write10(0, 1), Buffer.alloc(512)));
});

test("TransportIDs are read back as written, and nothing else is", () => {
  fc.assert(
    fc.property(
      fc.stringMatching(/^iqn\.[a-z0-9.:-]{1,200}$/),
      fc.stringMatching(/^[0-9a-f]{12}$/),
      (name, isid) => {
        const bytes = encodeTransportId(`${name},i,0x${isid}`);
        const decoded = decodeTransportId(Buffer.concat([bytes, hex("ffff")]));
        assert.equal(decoded?.lengthBytes, bytes.length);
        assert.deepEqual(decoded?.id, { kind: "port", initiatorPort: `${name},i,0x${isid}` });
      },
    ),
  );
  const good = encodeTransportId("iqn.2026-11.a:b,i,0x000000000001");
  assert(decodeTransportId(good) !== null);
  const changes: [number, number][] = [
    [0, 0x46],
    [0, 0x85],
    [1, 0x01],
    [3, good.length - 3],
    [3, good.length],
    [good.length - 1, 0x20],
    [4 + "iqn.2026-11.a:b".length, 0x2e],
    [4 + "iqn.2026-11.a:b,i,0x".length, 0x67],
  ];
  for (const [at, byte] of changes) {
    const bad = Buffer.from(good);
    bad[at] = byte;
    assert.equal(decodeTransportId(bad), null, `byte ${at}`);
  }
  assert.equal(decodeTransportId(good.subarray(0, good.length - 1)), null);
});
