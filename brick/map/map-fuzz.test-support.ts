import { strict as check } from "node:assert";
import { apply, emptyClusterState } from "../../control/cluster-machine.ts";
import type { Command } from "../../control/commands.ts";
import { chainBricks } from "../../control/shard-commands.ts";
import { announcement, facts, uuid } from "../../control/testing.ts";
import { type PlannedChange, planViews, type ShardReport } from "../../control/view-planner.ts";
import { type SimHost, SimWorld } from "../../tools/sim/sim-host.ts";
import { brickOf, type ClusterState, isReachable } from "../cluster-state.ts";
import type { Prng } from "../prng.ts";
import { Calls } from "../rpc/calls.ts";
import { Store } from "../store/store.ts";
import { type BrickNumber, MiB } from "../units.ts";
import type { Entry } from "./entry.ts";
import { type Dials, drawDials } from "./map-fuzz-dials.test-support.ts";
import { FuzzGateway, type FuzzWorld } from "./map-fuzz-gateway.test-support.ts";
import { ShardHistory } from "./map-history.test-support.ts";
import { MapService } from "./map-service-io.ts";
import type { Replica } from "./replica.ts";

const leaseMs = 150;
const downAfterMs = 100;
const gatewayBrick = 11;
/** States that a brick which restarts may have fallen behind by. */
const statesBehindMax = 6;

interface Node {
  readonly brick: BrickNumber;
  readonly host: SimHost;
  readonly store: Store;
  readonly map: MapService;
  /** Tells that its log was cut; else only the replicas' states tell it. */
  readonly cut: boolean;
  /** Of the newest state that it has learnt. */
  version: number;
}

interface Seat {
  node: Node | null;
  leaseEndMs: number;
  silentSinceMs: number;
  frozenUntilMs: number;
  /** It neither hears the control plane nor is heard by it. */
  deafUntilMs: number;
  starting: boolean;
}

/** A cluster under chance, and what must hold of it whatever happens. */
export class MapFuzz implements FuzzWorld {
  readonly world: SimWorld;
  readonly dials: Dials;
  readonly histories: ShardHistory[];
  readonly tag = { next: 0 };
  readonly counts = { crashes: 0, powerCuts: 0, recoveries: 0, views: 0, takeovers: 0 };
  /** Of each seed, the same story. */
  readonly #prng: Prng;
  #states: ClusterState[] = [];
  readonly #seats = new Map<BrickNumber, Seat>();
  readonly #recovering = new Set<number>();
  readonly #gateways: FuzzGateway[] = [];
  readonly #gatewayHost: SimHost;
  readonly #gatewayCalls: Calls;
  #faults = true;
  #ended = false;

  constructor(seed: number) {
    this.world = new SimWorld(seed);
    this.#prng = this.world.prng.fork();
    const dials = drawDials(this.#prng.fork());
    this.dials = dials;
    this.histories = Array.from({ length: dials.shards }, (_, shard) => new ShardHistory(shard));
    let { state } = apply(emptyClusterState, {
      type: "initCluster",
      clusterId: "00".repeat(16),
      shardCount: dials.shards,
      ...facts(1, 1),
    });
    const run = (command: Command) => {
      const applied = apply(state, command);
      check.ok(applied.result.ok, JSON.stringify(applied.result));
      state = applied.state;
    };
    for (let brick = 2; brick <= dials.bricks; brick += 1) {
      const id = `token-${brick}`;
      run({ type: "addJoinToken", id, hash: "a".repeat(64), lifeMs: 60_000 });
      run({ type: "joinBrick", tokenId: id, tokenHash: "a".repeat(64), ...facts(brick, 0) });
    }
    const volume = { name: "one", uuid: uuid(77), sizeBytes: 2 ** 30, degradedWrites: true };
    run({ type: "createVolume", ...volume, copies: dials.copies });
    this.#states.push(state);
    for (const brick of this.#bricks()) this.#seats.set(brick, newSeat());
    this.#gatewayHost = this.world.host(gatewayBrick);
    this.#gatewayHost.network.setBoot(1);
    this.#gatewayHost.network.setPeers(new Map(this.#bricks().map((one) => [one, `sim:${one}`])));
    this.#gatewayCalls = new Calls(this.#gatewayHost);
    this.world.isBug = ({ cause }) => cause !== "power";
  }

  get state(): ClusterState {
    return this.#states.at(-1)!;
  }

  primaryOf(shard: number): { brick: BrickNumber; view: number } {
    const { primary, view } = this.state.shards[shard]!;
    const brick = this.#prng.chance(0.1) ? this.#prng.pick(this.#bricks()) : primary;
    return { brick, view };
  }

  /** The whole story: trouble for a while, then all is put right, and looked at. */
  async run(troubleMs: number): Promise<void> {
    for (const brick of this.#bricks()) this.#start(brick);
    this.#every(15, () => this.#control());
    await this.world.runUntil(() => [...this.#seats.values()].every((seat) => seat.node !== null));
    this.#takeOver();
    this.#beginFaults();
    await this.world.runFor(troubleMs);
    await this.#putRight();
    this.#ended = true;
  }

  #bricks(): BrickNumber[] {
    return Array.from({ length: this.dials.bricks }, (_, at) => at + 1);
  }

  #every(everyMs: number, action: () => void): void {
    if (everyMs === Number.POSITIVE_INFINITY) return;
    this.world.after(everyMs * (0.5 + this.#prng.unit()), () => {
      if (this.#ended) return;
      action();
      this.#every(everyMs, action);
    });
  }

  // Bricks.

  #start(brick: BrickNumber): void {
    const seat = this.#seats.get(brick)!;
    if (seat.node !== null || seat.starting || this.world.machine(brick).running) return;
    seat.starting = true;
    const host = this.world.host(brick);
    this.#open(brick, host).then(
      (node) => {
        seat.starting = false;
        seat.node = node;
        seat.silentSinceMs = 0;
        const behind = this.#prng.between(0, statesBehindMax);
        this.#tell(node, this.#states[Math.max(0, this.#states.length - 1 - behind)]!);
        this.#tellLater(node);
      },
      (error: unknown) => {
        this.world.clock.failure ??= { error };
      },
    );
  }

  async #open(brick: BrickNumber, host: SimHost): Promise<Node> {
    const all = [...this.#bricks(), gatewayBrick];
    host.network.setPeers(new Map(all.map((one) => [one, `sim:${one}`])));
    const calls = new Calls(host);
    const map = new MapService(host, calls, brick);
    map.onCommit.push((replica, entry) => this.#committed(replica, entry));
    const store = await Store.open(host, {
      capacityBytes: 128 * MiB,
      segmentBytes: 4 * MiB,
      participants: [map],
      identity: { clusterId: "00".repeat(16), brick, uuid: uuid(brick) },
    });
    host.network.setBoot(store.superblock.boot);
    // A batch torn by the power cut cannot be told from one that went bad later.
    const { cut } = store;
    check.ok(!store.damaged, `brick ${brick} has found a hole in its log`);
    await map.attach(store);
    for (const replica of map.replicas()) {
      check.ok(!replica.broken, `brick ${brick} cannot follow its log`);
    }
    return { brick, host, store, map, cut: cut && this.#prng.chance(0.5), version: 0 };
  }

  #crash(brick: BrickNumber): void {
    const seat = this.#seats.get(brick)!;
    const machine = this.world.machine(brick);
    if (!machine.running) return;
    this.counts.crashes += 1;
    if (this.#prng.chance(0.2)) machine.kill();
    else machine.crash();
    seat.node = null;
    seat.starting = false;
    seat.frozenUntilMs = 0;
    const restartMs = this.#prng.between(1, this.dials.restartMsMax);
    this.world.after(restartMs, () => this.#start(brick));
  }

  /** Everything that is said to a brick is said in its own time: a frozen one learns it late. */
  #inBrick(node: Node, delayMs: number, action: () => void): void {
    node.host.clock.after(delayMs, action);
  }

  #tell(node: Node, state: ClusterState): void {
    if (state.version <= node.version) return;
    node.version = state.version;
    node.map.onState(state);
  }

  #tellLater(node: Node): void {
    const { state } = this;
    if (this.world.clock.nowMs < this.#seats.get(node.brick)!.deafUntilMs) return;
    this.#inBrick(node, this.#prng.unit() * this.dials.stateDelayMsMax, () =>
      this.#tell(node, state),
    );
  }

  // The control plane: the product's rules, decided at once.

  #isHeard(seat: Seat): boolean {
    const { nowMs } = this.world.clock;
    return seat.node !== null && nowMs >= seat.frozenUntilMs && nowMs >= seat.deafUntilMs;
  }

  #control(): void {
    for (const [brick, seat] of this.#seats) this.#watch(brick, seat);
    for (let changed = true; changed; ) {
      changed = false;
      for (const change of this.#plan()) if (this.#carryOut(change)) changed = true;
    }
  }

  #watch(brick: BrickNumber, seat: Seat): void {
    const nowMs = this.world.clock.nowMs;
    const record = brickOf(this.state, brick)!;
    if (!this.#isHeard(seat)) {
      if (seat.silentSinceMs === 0) seat.silentSinceMs = nowMs;
      const gone = nowMs - seat.silentSinceMs >= downAfterMs && nowMs >= seat.leaseEndMs;
      if (gone && isReachable(record)) {
        this.#decide({ type: "brickDown", number: brick, boot: record.boot });
      }
      return;
    }
    seat.silentSinceMs = 0;
    const node = seat.node!;
    const { boot } = node.store.superblock;
    if (record.boot !== boot) this.#decide(announcement(brick, boot, { cut: node.cut }));
    else if (!isReachable(record)) this.#decide({ type: "brickUp", number: brick, boot });
    if (node.version < this.state.version) {
      this.#tellLater(node);
      return;
    }
    seat.leaseEndMs = nowMs + leaseMs;
    node.map.setLease(node.host.clock.nowMs() + leaseMs);
  }

  #plan(): PlannedChange[] {
    const heard = new Set<BrickNumber>();
    const reports = new Map<number, ShardReport>();
    const damaged: [number, BrickNumber][] = [];
    for (const [brick, seat] of this.#seats) {
      if (!this.#isHeard(seat)) continue;
      if (brickOf(this.state, brick)!.boot !== seat.node!.store.superblock.boot) continue;
      heard.add(brick);
      for (const status of seat.node!.map.shardStatus()) {
        const shard = this.state.shards[status.shard]!;
        if (status.view !== shard.view) continue;
        if (status.damaged && !shard.damaged?.includes(brick)) damaged.push([status.shard, brick]);
        const leads = brick === shard.primary;
        const known = reports.get(status.shard);
        const complete = status.complete && shard.candidates.includes(brick) ? [brick] : [];
        reports.set(status.shard, {
          view: shard.view,
          complete: [...(known?.complete ?? []), ...complete],
          released:
            (known?.released ?? false) ||
            (leads && (status.released === true || status.damaged === true)),
          empty: (known?.empty ?? false) || (leads && status.empty === true),
        });
      }
    }
    for (const [shard, brick] of damaged) {
      const { view } = this.state.shards[shard]!;
      this.#decide({ type: "markDamaged", shard, view, brick });
    }
    const { transferAfterMs } = this.dials;
    const nowMs = Math.floor(this.world.clock.nowMs);
    return planViews(this.state, {
      nowMs,
      transferAfterMs,
      heard,
      reports,
      standing: new Set<string>(),
      calm: false,
    });
  }

  #carryOut(change: PlannedChange): boolean {
    if (change.type === "release") {
      const seat = this.#seats.get(change.primary)!;
      const { node } = seat;
      if (node !== null && this.#isHeard(seat)) {
        this.#inBrick(node, this.#prng.unit() * 10, () =>
          node.map.release(change.shard, change.view),
        );
      }
      return false;
    }
    if (change.type === "recover") {
      this.#recover(change.shard, change.view, change.bricks);
      return false;
    }
    return this.#decide(change);
  }

  #decide(command: Command): boolean {
    const timed = apply(this.state, {
      type: "advanceTime",
      toMs: Math.floor(this.world.clock.nowMs),
    });
    const { state, result } = apply(timed.state, command);
    if (!result.ok || state === timed.state) return false;
    if (command.type === "changeView") this.counts.views += 1;
    this.#states.push(state);
    for (const { node } of this.#seats.values()) if (node !== null) this.#tellLater(node);
    return true;
  }

  // Recovery, as the Raft leader goes about it.

  #recover(shard: number, view: number, bricks: readonly BrickNumber[]): void {
    if (this.#recovering.has(shard)) return;
    this.#recovering.add(shard);
    this.#tryRecovery(shard, view, bricks).finally(() => {
      this.world.after(this.#prng.between(5, 60), () => this.#recovering.delete(shard));
    });
  }

  async #tryRecovery(shard: number, view: number, bricks: readonly BrickNumber[]): Promise<void> {
    const reports = new Map<BrickNumber, Buffer>();
    await Promise.all(
      bricks.map(async (brick) => {
        const report = await this.#askBrick(brick, 300, (map) => map.report(shard, view + 1));
        if (report) reports.set(brick, report);
      }),
    );
    const record = this.state.shards[shard]!;
    if (record.view !== view || reports.size === 0) return;
    const everyoneReported = chainBricks(record).every((brick) => reports.has(brick));
    const chain = [...record.chain, record];
    const planner = [...this.#seats.values()].find((seat) => seat.node !== null)?.node;
    const plan = planner?.map.planUnion({ chain, reports, everyoneReported });
    if (plan === undefined || !plan.ok) {
      check.ok(
        !everyoneReported || plan === undefined,
        `no union of all: ${!plan?.ok && plan?.reason}`,
      );
      return;
    }
    const primary = plan.brick;
    const made = await this.#askBrick(primary, 1000, (map) =>
      map.assemble(shard, view + 1, plan.plan),
    );
    if (made !== true) return;
    const candidates = chainBricks(this.state.shards[shard]!).filter(
      (brick) => brick !== primary && isReachable(brickOf(this.state, brick)),
    );
    const done = this.#decide({
      type: "changeView",
      shard,
      expect: view,
      primary,
      members: [primary],
      candidates,
      transfer: true,
      completed: [],
      released: false,
      recovery: true,
    });
    if (done) this.counts.recoveries += 1;
  }

  /** null: no answer in time. The request may be carried out all the same, even later. */
  #askBrick<T>(
    brick: BrickNumber,
    timeoutMs: number,
    ask: (map: MapService) => Promise<T>,
  ): Promise<T | null> {
    return new Promise((resolve) => {
      this.world.after(timeoutMs, () => resolve(null));
      const seat = this.#seats.get(brick)!;
      const { node } = seat;
      if (node === null || this.world.clock.nowMs < seat.deafUntilMs) return;
      const slow = this.#prng.chance(0.1) ? 500 : 5;
      this.#inBrick(node, this.#prng.unit() * slow, () => {
        ask(node.map).then((answer) => {
          this.#inBrick(node, this.#prng.unit() * slow, () => resolve(answer));
        });
      });
    });
  }

  // Trouble.

  #beginFaults(): void {
    const { dials } = this;
    const { lossChance, duplicateChance, reorderChance } = dials;
    const all = [...this.#bricks(), gatewayBrick];
    this.world.network.setAll(all, { lossChance, duplicateChance, reorderChance });
    const every = (everyMs: number, action: () => void) =>
      this.#every(everyMs, () => {
        if (this.#faults) action();
      });
    every(dials.crashEveryMs, () => this.#crash(this.#prng.pick(this.#bricks())));
    every(dials.powerCutEveryMs, () => {
      this.counts.powerCuts += 1;
      for (const brick of this.#bricks()) this.#crash(brick);
    });
    every(dials.freezeEveryMs, () => this.#freeze(this.#prng.pick(this.#bricks())));
    every(dials.cutEveryMs, () => {
      const [from, to] = [this.#prng.pick(all), this.#prng.pick(all)];
      if (from === to) return;
      this.world.network.set(from, to, { cut: true });
      this.world.after(this.#prng.between(10, 400), () =>
        this.world.network.set(from, to, { cut: false }),
      );
    });
    every(dials.deafEveryMs, () => {
      const seat = this.#seats.get(this.#prng.pick(this.#bricks()))!;
      seat.deafUntilMs = this.world.clock.nowMs + this.#prng.between(10, 800);
    });
    every(dials.membersLostEveryMs, () => {
      for (const brick of this.#prng.pick(this.state.shards).members) {
        this.world.after(this.#prng.unit() * 20, () => this.#crash(brick));
      }
    });
    every(dials.strandEveryMs, () => this.#strand(this.#prng.between(0, dials.shards - 1)));
    every(dials.checkpointEveryMs, () => this.#checkpoint(this.#prng.pick(this.#bricks())));
    every(dials.takeoverEveryMs, () => this.#takeOver());
  }

  /** Made right before a power cut, it shows whether it was ahead of the log. */
  #checkpoint(brick: BrickNumber): void {
    const { node } = this.#seats.get(brick)!;
    if (node === null) return;
    this.#inBrick(node, 0, () => {
      node.store.checkpoint();
      if (!this.#prng.chance(0.1)) return;
      this.world.after(this.#prng.unit(), () => {
        if (this.#faults) this.#crash(brick);
      });
    });
  }

  /**
   * A primary whose entries reach nobody, or some only, gathers a log of its own before it falls;
   * and when others have gone on without it, they fall too.
   */
  #strand(shard: number): void {
    const brick = this.state.shards[shard]!.primary;
    for (const other of this.#bricks()) {
      if (other === brick || this.#prng.chance(0.2)) continue;
      this.world.network.set(brick, other, { cut: true });
      this.world.after(500, () => this.world.network.set(brick, other, { cut: false }));
    }
    this.world.after(this.#prng.between(20, 200), () => {
      if (!this.#faults) return;
      this.#crash(brick);
      this.world.after(this.#prng.between(150, 500), () => {
        if (!this.#faults) return;
        for (const member of this.state.shards[shard]!.members) this.#crash(member);
      });
    });
  }

  #freeze(brick: BrickNumber): void {
    const seat = this.#seats.get(brick)!;
    if (seat.node === null || !this.#isHeard(seat)) return;
    const durationMs = this.#prng.between(10, 500);
    this.world.machine(brick).freeze(durationMs);
    seat.frozenUntilMs = this.world.clock.nowMs + durationMs;
  }

  #takeOver(): void {
    for (const gateway of this.#gateways) gateway.superseded = true;
    this.counts.takeovers += 1;
    const prng = this.#prng.fork();
    const epoch = this.#gateways.length + 1;
    const gateway = new FuzzGateway(this, this.#gatewayHost, this.#gatewayCalls, prng, epoch);
    this.#gateways.push(gateway);
  }

  async #putRight(): Promise<void> {
    this.#faults = false;
    for (const seat of this.#seats.values()) seat.deafUntilMs = 0;
    const all = [...this.#bricks(), gatewayBrick];
    const calm = { lossChance: 0, duplicateChance: 0, reorderChance: 0, cut: false };
    this.world.network.setAll(all, calm);
    for (const brick of this.#bricks()) this.#start(brick);
    const gateway = this.#gateways.at(-1)!;
    await this.world.runFor(300);
    gateway.issuing = false;
    await this.world
      .runUntil(() => gateway.idle && this.#isSettled(), 30_000)
      .catch((error) => {
        throw new Error(`it does not settle: ${this.#describe()}`, { cause: error });
      });
    for (const shard of this.histories.keys()) this.#examine(shard);
  }

  /** Every shard is whole, and all its replicas have committed all there is. */
  #isSettled(): boolean {
    return this.state.shards.every((record, shard) => {
      if (record.chain.length > 0 || record.candidates.length > 0) return false;
      return record.members.every((brick) => {
        const replica = this.#replica(brick, shard);
        return replica?.facts.commitOp === this.histories[shard]!.lastOp;
      });
    });
  }

  #replica(brick: BrickNumber, shard: number): Replica | undefined {
    const replicas = this.#seats.get(brick)!.node?.map.replicas() ?? [];
    return [...replicas].find((replica) => replica.shard === shard);
  }

  #describe(): string {
    const shards = this.state.shards.map((record, shard) => {
      const replicas = this.#bricks().map((brick) => {
        const replica = this.#replica(brick, shard);
        if (replica === undefined) return `${brick}: none`;
        const { facts: of, role, view } = replica;
        const ops = `${of.baseOp}/${of.overlayFrom}/${of.commitOp}/${of.lastOp}`;
        return `${brick}: ${role.is} view ${view?.view} promised ${of.promised} accepted ${of.accepted} ops ${ops}`;
      });
      return `${JSON.stringify(record)} ${replicas.join("; ")}; last ${this.histories[shard]!.lastOp}`;
    });
    return shards.join("\n");
  }

  #examine(shard: number): void {
    for (const brick of this.state.shards[shard]!.members) {
      const replica = this.#replica(brick, shard)!;
      check.equal(replica.facts.overlayFrom, 0, `member ${brick} is not complete`);
      this.histories[shard]!.examine(this.#seats.get(brick)!.node!.map, replica);
    }
  }

  /** At the first commit, every brick of the view has the chunk, durably. */
  #committed(replica: Replica, entry: Entry): void {
    const first = this.histories[replica.shard]!.commit(replica, entry);
    if (!first || entry.inlineBytes === 0) return;
    check.equal(replica.role.is, "primary", "somebody else has committed before the primary");
    for (const brick of [...replica.view!.members, ...replica.view!.candidates]) {
      const { node } = this.#seats.get(brick)!;
      check.ok(node === null || node.store.has(entry.key!), `brick ${brick} lacks the chunk`);
    }
  }
}

function newSeat(): Seat {
  return {
    node: null,
    leaseEndMs: 0,
    silentSinceMs: 0,
    frozenUntilMs: 0,
    deafUntilMs: 0,
    starting: false,
  };
}
