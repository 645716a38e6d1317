import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type CommandResult, Initiator, transferCdb } from "../tools/load/initiator-io.ts";
import { RealCluster, targetOf } from "../tools/real-cluster-io.ts";

/** Persistent reservations outlive the brick they were made at, and with APTPL the whole cluster. */

const goodStatus = 0x00;
const checkCondition = 0x02;
const reservationConflict = 0x18;
/** SPC-4 §6.16, table 216; §6.15, table 200. */
const serviceAction = { register: 0, reserve: 1, release: 2 } as const;
const readKeys = 0;
const readReservation = 1;
const writeExclusiveRegistrantsOnly = 5;
const key = Buffer.from("00000000c0ffee01", "hex");
const noKey = Buffer.alloc(8);

class Host {
  readonly #cluster: RealCluster;
  readonly #name: string;
  readonly #volume: string;

  constructor(cluster: RealCluster, name: string, volume: string) {
    this.#cluster = cluster;
    this.#name = `iqn.2026-11.endisk.test:${name}`;
    this.#volume = volume;
  }

  /** Runs `work` in a session at one portal: always the same initiator port. */
  async at<T>(portal: number, work: (session: Initiator) => Promise<T>): Promise<T> {
    const [host, port] = this.#cluster.portal(portal).split(":");
    const session = await Initiator.connect({
      host: host!,
      port: Number(port),
      target: targetOf(this.#volume),
      initiator: this.#name,
      isid: 1,
    });
    try {
      return await work(session);
    } finally {
      await session.logout();
    }
  }
}

/** Unit attentions are heard and put aside; what cannot be done yet is asked again. */
async function ask(
  session: Initiator,
  cdb: Buffer,
  transfer: { readBytes?: number; write?: Buffer },
): Promise<CommandResult> {
  for (let attempt = 1; ; attempt += 1) {
    const result = await session.command(cdb, transfer);
    const passing = result.status === checkCondition && /^[26]\//.test(result.sense);
    if (!passing || attempt >= 50) return result;
  }
}

function reserveOut(
  session: Initiator,
  action: keyof typeof serviceAction,
  fields: { key: Buffer; actionKey?: Buffer; type?: number; aptpl?: boolean },
): Promise<CommandResult> {
  const cdb = Buffer.alloc(10);
  cdb[0] = 0x5f;
  cdb[1] = serviceAction[action];
  cdb[2] = fields.type ?? 0;
  cdb.writeUInt32BE(24, 5);
  const flags = Buffer.from([0, 0, 0, 0, fields.aptpl ? 1 : 0, 0, 0, 0]);
  const write = Buffer.concat([fields.key, fields.actionKey ?? noKey, flags]);
  return ask(session, cdb, { write });
}

/** What follows the header of eight bytes: keys, or the reservation. */
async function reserveIn(session: Initiator, action: number): Promise<Buffer> {
  const cdb = Buffer.alloc(10);
  cdb[0] = 0x5e;
  cdb[1] = action;
  cdb.writeUInt16BE(256, 7);
  const result = await ask(session, cdb, { readBytes: 256 });
  assert.equal(result.status, goodStatus, result.sense);
  return result.data.subarray(8, 8 + result.data.readUInt32BE(4));
}

async function write(session: Initiator): Promise<number> {
  return (await ask(session, transferCdb("write", 0, 512), { write: Buffer.alloc(512, 1) })).status;
}

async function registerAndReserve(session: Initiator, aptpl: boolean): Promise<void> {
  const registered = await reserveOut(session, "register", { key: noKey, actionKey: key, aptpl });
  assert.equal(registered.status, goodStatus, registered.sense);
  const type = writeExclusiveRegistrantsOnly;
  const reserved = await reserveOut(session, "reserve", { key, type });
  assert.equal(reserved.status, goodStatus, reserved.sense);
}

async function assertReserved(session: Initiator): Promise<void> {
  assert.deepEqual(await reserveIn(session, readKeys), key);
  const reservation = await reserveIn(session, readReservation);
  assert.deepEqual(reservation.subarray(0, 8), key);
  // SPC-4 §6.15.3: scope in the upper four bits, type in the lower ones.
  assert.equal(reservation[13], writeExclusiveRegistrantsOnly);
}

describe("a persistent reservation made at portal 1", () => {
  const cluster = new RealCluster({ restart: false, volumes: ["kept:1GiB", "lost:1GiB"] });
  const holder = new Host(cluster, "holder", "kept");
  const other = new Host(cluster, "other", "kept");
  before(() => cluster.start());
  after(() => cluster.dispose());

  test("holds at every portal", async () => {
    await holder.at(1, (session) => registerAndReserve(session, true));
    await other.at(2, assertReserved);
    assert.equal(await other.at(3, write), reservationConflict);
    assert.equal(await holder.at(1, write), goodStatus);
  });

  test("holds when brick 1 has died", async () => {
    cluster.kill(1);
    await other.at(2, assertReserved);
    assert.equal(await other.at(3, write), reservationConflict);
    // The holder's registration is that of its nexus with portal 1 (SPC-4 §5.13.4.1).
    assert.equal(await holder.at(2, write), reservationConflict);
    cluster.startAgain(1);
    await cluster.waitHealthy(1);
    assert.equal(await holder.at(1, write), goodStatus);
  });

  test("holds over the death of all bricks with APTPL, and not without", async () => {
    const fleeting = new Host(cluster, "holder", "lost");
    await fleeting.at(1, (session) => registerAndReserve(session, false));
    await fleeting.at(2, assertReserved);
    await cluster.killAll([1, 2, 3]);
    await cluster.start();
    await other.at(2, assertReserved);
    assert.equal(await other.at(3, write), reservationConflict);
    assert.equal(await holder.at(1, write), goodStatus);
    assert.equal((await fleeting.at(2, (session) => reserveIn(session, readKeys))).length, 0);
    assert.equal(await fleeting.at(2, write), goodStatus);
  });

  test("is released by its holder, for everybody", async () => {
    const type = writeExclusiveRegistrantsOnly;
    const released = await holder.at(1, (session) => reserveOut(session, "release", { key, type }));
    assert.equal(released.status, goodStatus, released.sense);
    assert.equal(await other.at(3, write), goodStatus);
  });
});
