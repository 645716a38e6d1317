import assert from "node:assert/strict";
import { test } from "node:test";
import type { ReserveOut, UnitOutcome } from "../../brick/unit/unit-changes.ts";
import { newUnit } from "../../brick/unit/unit-record.ts";
import { type BrickNumber, MiB } from "../../brick/units.ts";
import { SimCluster } from "./sim-cluster.ts";

/** What persistent reservations live through: a power loss ends them, unless APTPL; nothing else. */

const nexus = { initiatorPort: "iqn.2026-11.example:host,i,0x00023d000001", targetPort: 2 };
const key = "00000000000000aa";
const zero = "0000000000000000";

class Scene {
  readonly cluster: SimCluster;

  constructor(seed: number, bricks: number) {
    const sizes = { shardCount: 2, volumeBytes: 64 * MiB, copies: Math.min(2, bricks) };
    this.cluster = new SimCluster({ seed, bricks, ...sizes });
  }

  async begin(aptpl: boolean): Promise<void> {
    await this.cluster.create();
    assert.equal(await this.out(this.cluster.bricks.at(-1)!, "register", aptpl), "done");
    assert.equal(await this.out(1, "reserve", aptpl), "done");
  }

  /** Asked until it is answered, as an initiator does that is told BUSY. */
  async out(
    through: BrickNumber,
    action: "register" | "reserve",
    aptpl: boolean,
  ): Promise<UnitOutcome> {
    const change: ReserveOut = {
      type: "reserveOut",
      nexus,
      action,
      reservation: action === "reserve" ? 3 : null,
      key: action === "register" ? zero : key,
      actionKey: action === "register" ? key : zero,
      aptpl,
      allTargetPorts: false,
      initiatorPorts: [],
      move: null,
    };
    for (let attempt = 0; attempt < 100; attempt += 1) {
      const asked = this.cluster.volumeAt(through)?.changeUnit(change);
      const changed =
        asked === undefined ? null : await this.cluster.world.complete(asked, 120_000);
      if (changed?.ok) return changed.outcome;
      await this.pass(200);
    }
    throw new Error(`${action} through brick ${through}: no answer`);
  }

  async pass(ms: number): Promise<void> {
    let passed = false;
    this.cluster.world.after(ms, () => {
      passed = true;
    });
    await this.cluster.world.runUntil(() => passed, ms + 1000);
  }

  async restart(...bricks: BrickNumber[]): Promise<void> {
    for (const brick of bricks) this.cluster.crash(brick);
    await this.pass(50);
    for (const brick of bricks) this.cluster.start(brick);
    await this.settled();
  }

  /** Whole, every brick under its present boot: one that starts first knows an older state. */
  async settled(): Promise<void> {
    const { cluster } = this;
    await cluster.world.runUntil(() => {
      const { bricks } = cluster.anyNode()?.control.state() ?? {};
      const nodes = [...cluster.nodes.values()];
      if (nodes.length < cluster.bricks.length) return false;
      return nodes.every(({ number, store }) => bricks?.[number]?.boot === store.superblock.boot);
    }, 120_000);
    await cluster.settled();
  }

  get reservations() {
    const units = this.cluster.anyNode()?.control.state().units ?? {};
    return (Object.values(units)[0] ?? newUnit).reservations;
  }

  isReserved(): boolean {
    return this.reservations.held !== null;
  }
}

for (const bricks of [1, 3]) {
  for (const aptpl of [false, true]) {
    for (const seed of [11, 12, 13]) {
      const kept = aptpl ? "keep" : "end";
      test(`${bricks} bricks without power at once ${kept} reservations, seed ${seed}`, async () => {
        const scene = new Scene(seed, bricks);
        await scene.begin(aptpl);
        await scene.restart(...scene.cluster.bricks);
        assert.equal(scene.isReserved(), aptpl);
        assert.equal(scene.reservations.generation, 0);
        // Another may register now, and what it registers stays.
        const expected = aptpl ? "reservation_conflict" : "done";
        assert.equal(await scene.out(1, "register", aptpl), expected);
        assert.equal(scene.reservations.registrations.length, 1);
      });
    }
  }
}

for (const seed of [21, 22, 23]) {
  test(`restarts one by one, and two at once, end no reservation, seed ${seed}`, async () => {
    const scene = new Scene(seed, 3);
    await scene.begin(false);
    for (const brick of [1, 2, 3, 2, 1]) {
      await scene.restart(brick);
      assert.equal(scene.isReserved(), true, `after brick ${brick}`);
    }
    for (const pair of [
      [1, 2],
      [2, 3],
      [3, 1],
    ]) {
      await scene.restart(...pair);
      assert.equal(scene.isReserved(), true, `after bricks ${pair}`);
    }
  });

  test(`a power loss from which one brick does not return, seed ${seed}`, async () => {
    const scene = new Scene(seed, 3);
    await scene.begin(false);
    for (const brick of scene.cluster.bricks) scene.cluster.crash(brick);
    await scene.pass(50);
    for (const brick of [1, 3]) scene.cluster.start(brick);
    const { world } = scene.cluster;
    await world.runUntil(() => scene.cluster.nodes.size === 2, 60_000);
    assert.equal(await scene.out(3, "register", false), "done");
    assert.equal(scene.isReserved(), false);
    scene.cluster.start(2);
    await scene.settled();
    assert.equal(scene.reservations.registrations.length, 1, "the late one ends nothing more");
  });
}
