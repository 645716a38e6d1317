import type { BrickHealth, ClusterState } from "../brick/cluster-state.ts";
import {
  type LevelRange,
  levelOf,
  levelOfShardSpan,
  levelRefusal,
  levelsBefore,
  ownLevels,
} from "../brick/feature-level.ts";
import type { Host } from "../brick/host.ts";
import type { Calls } from "../brick/rpc/calls.ts";
import { messageType } from "../brick/rpc/message-types.ts";
import type { BrickNumber } from "../brick/units.ts";
import type { CommandResult } from "./command-result.ts";
import { type Command, type CommandId, decodeEnvelope } from "./commands.ts";
import { type EventLog, emptyEventLog } from "./events.ts";
import type { GarbageReport } from "./gc-planner.ts";
import { decodeKeepalive, encodeAnswer, type KeepaliveAnswer } from "./keepalive.ts";
import { KeepaliveSender } from "./keepalive-io.ts";
import { Leadership } from "./leader-io.ts";
import { isLeaseValid, noLease, reachVersion, takeGrant } from "./lease.ts";
import { levelTooLow } from "./levels.ts";
import type { MapControl } from "./map-control.ts";
import { defaultTiming, type MembershipTiming } from "./membership.ts";
import { peersOf } from "./peers.ts";
import { readPeers, writePeers } from "./peers-io.ts";
import { Proposals } from "./proposals-io.ts";
import type { OpenRaft, RaftPort } from "./raft-port.ts";
import { Recoveries, serveRecovery } from "./recovery-io.ts";
import {
  applyEnvelope,
  decodeSnapshot,
  emptyMachine,
  encodeSnapshot,
} from "./replicated-machine.ts";
import { Submitter } from "./submit-io.ts";
import { earlyRefusal } from "./unit-commands.ts";

export interface ControlOptions {
  readonly host: Host;
  readonly calls: Calls;
  readonly superblock: {
    readonly clusterId: string;
    readonly brick: BrickNumber;
    readonly uuid: string;
    readonly boot: number;
  };
  readonly addresses: { readonly peer: string; readonly portal: string; readonly api: string };
  readonly domain?: string;
  /** Begins a cluster: this brick is its first. Harmless when it has begun already. */
  readonly bootstrap?: Bootstrap;
  /** Where other bricks are reached, as the joining brick was told; later starts know by themselves. */
  readonly seeds?: ReadonlyMap<BrickNumber, string>;
  /** The store lost the tail of its log: its replicas may lack what they acknowledged. */
  readonly cut: boolean;
  readonly map: MapControl;
  /** Feature levels that this brick knows, when not all that the build does. */
  readonly levels?: LevelRange;
  space(): { capacityBytes: number; usedBytes: number; full: boolean };
  /** What there is to say of garbage; see Keepalive. */
  garbage?(): GarbageReport | undefined;
  /** What this brick has to say of its own state. */
  health?(): BrickHealth;
  /** After each change; network peers are set already. */
  onState(state: ClusterState): void;
  /** The leader has said that this brick was removed, which its own state may never show. */
  onRemoved?(): void;
  /** The lease became longer: until this moment of the host's clock the brick may act. */
  onLease(untilMs: number): void;
  readonly timing?: Partial<MembershipTiming>;
  readonly openRaft: OpenRaft;
}

/** How a new cluster cuts its address map, for good. */
export interface Bootstrap {
  readonly shardCount: number;
  /** Shards of one family of branches; absent: all. */
  readonly shardSpan?: number;
}

/** Sixteen volumes have shards of their own; each can be spread over as many bricks as four shards have. */
export const bootstrapDefault: Bootstrap = { shardCount: 64, shardSpan: 4 };
const refreshTimeoutMs = 5000;
/** How long a brick that was removed can still learn it. */
const farewellMs = 60_000;

/** A brick's part in the control plane: its copy of the cluster state, its lease, its turn to lead. */
export class Control {
  readonly #options: ControlOptions;
  readonly timing: MembershipTiming;
  readonly #incarnation: string;
  readonly #lease = noLease();
  readonly #proposals: Proposals;
  readonly #submitter: Submitter;
  readonly #recoveries: Recoveries;
  readonly #sender: KeepaliveSender;
  readonly #levels: LevelRange;
  #machine = emptyMachine;
  #raft!: RaftPort;
  #leadership: Leadership | null = null;
  #ledTerm = 0;
  #peers = new Map<BrickNumber, string>();
  #peersWrite: Promise<void> = Promise.resolve();
  /** Bricks that were removed, and until when they are answered. */
  readonly #farewells = new Map<BrickNumber, number>();
  #discarded = false;
  /** The last refusal said, so that it is logged once. */
  #refusal = "";
  /** Who waits for the answer to a keepalive sent not before a moment, and the leader's version. */
  #onGrant: { sentFromMs: number; ready: (stateVersion: number) => void }[] = [];
  #onVersion: { version: number; reached: () => void }[] = [];
  #closed = false;

  static async open(options: ControlOptions): Promise<Control> {
    const control = new Control(options);
    await control.#start();
    return control;
  }

  private constructor(options: ControlOptions) {
    const { host, calls, superblock, map } = options;
    this.#options = options;
    this.#levels = options.levels ?? ownLevels;
    this.timing = { ...defaultTiming, ...options.timing };
    this.#incarnation = host.prng.fill(Buffer.alloc(16)).toString("hex");
    const raft = () => this.#raft;
    const self = { brick: superblock.brick, boot: superblock.boot };
    const timeMs = () => this.#leadership?.timeMs() ?? 0;
    this.#proposals = new Proposals(host, raft);
    const proposals = this.#proposals;
    const refusal = (id: CommandId, command: Command) => {
      const message = levelTooLow(this.state(), command);
      if (message !== null) return { code: "not_now", message } as const;
      return earlyRefusal(this.state(), id, command);
    };
    this.#submitter = new Submitter({ host, calls, self, raft, proposals, timeMs, refusal });
    this.#recoveries = new Recoveries({
      host,
      calls,
      map,
      state: () => this.state(),
      decide: (command) => this.#submitter.decide(command),
      wake: () => this.#leadership?.wake(),
    });
    this.#sender = new KeepaliveSender({
      host,
      calls,
      timing: this.timing,
      compose: () => this.#composeKeepalive(),
      leader: () => this.#raft.leader(),
      peers: () => [...this.#peers.keys()],
      onAnswer: (answer) => this.#takeAnswer(answer),
    });
  }

  /** Never changed in place; version 0 before anything is known. */
  state(): ClusterState {
    return this.#machine.cluster;
  }

  /** What has happened, as everyone knows it; never changed in place. */
  events(): EventLog {
    return this.#machine.events ?? emptyEventLog;
  }

  /** Applied once or refused, wherever the leader is; `unavailable` when none answers in time. */
  submit(command: Command): Promise<CommandResult> {
    return this.#submitter.submit(command);
  }

  /** 0 when none is known. */
  leader(): BrickNumber {
    return this.#raft.leader();
  }

  leaseValid(nowMs: number): boolean {
    return !this.#closed && isLeaseValid(this.#lease, nowMs);
  }

  /** The map has something to report: it need not wait for the next round. */
  nudge(): void {
    this.#sender.nudge();
  }

  /**
   * Resolves true once state() holds everything that was committed before the call; false when no
   * leader answered in time.
   */
  async refresh(): Promise<boolean> {
    const { clock } = this.#options.host;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const timer = clock.after(refreshTimeoutMs, () => resolve(false));
    const ready = (version: number) => this.#whenReached(version, () => resolve(true));
    this.#onGrant.push({ sentFromMs: clock.nowMs(), ready });
    this.#sender.nudge();
    const fresh = await promise;
    timer.cancel();
    return fresh;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#sender.close();
    this.#submitter.close();
    this.#leadership?.end();
    this.#leadership = null;
    this.#proposals.close();
    await this.#raft.close();
    await this.#peersWrite;
  }

  async #start(): Promise<void> {
    const { host, calls, map, seeds, bootstrap, openRaft } = this.#options;
    this.#peers = await readPeers(host);
    for (const [number, address] of seeds ?? []) {
      if (!this.#peers.has(number)) this.#peers.set(number, address);
    }
    this.#peers.delete(this.#options.superblock.brick);
    host.network.setPeers(this.#peers);
    this.#raft = await openRaft(bootstrap !== undefined, {
      apply: (payloads) => this.#apply(payloads),
      snapshot: () => encodeSnapshot(this.#machine),
      restore: (snapshot) => this.#restore(snapshot),
      onRoleChange: (leads, term) => this.#changeRole(leads, term),
    });
    calls.serve(messageType.raft, (from, body) => this.#raft.receive(from, body));
    calls.serve(messageType.keepalive, (from, body, reply) => {
      const answer = (value: KeepaliveAnswer) => reply([encodeAnswer(value)]);
      const keepalive = decodeKeepalive(body);
      if (keepalive === null) return;
      if (this.#leadership === null) {
        answer({ type: "elsewhere", leader: this.#raft.leader() });
      } else this.#leadership.keepalive(from, keepalive, answer);
    });
    this.#submitter.serve();
    serveRecovery(calls, map);
    this.#changeRole(this.#raft.isLeader(), this.#raft.term());
    this.#sender.start();
  }

  #changeRole(leads: boolean, term: number): void {
    // Raft may call before it is open; #start asks again.
    if (this.#raft === undefined || this.#closed) return;
    if (leads && this.#leadership !== null && this.#ledTerm === term) return;
    this.#leadership?.end();
    this.#leadership = null;
    if (!leads) return;
    // What another leader may have granted between two terms of ours is not in the old book.
    this.#ledTerm = term;
    const { host, superblock } = this.#options;
    this.#leadership = new Leadership({
      host,
      self: { brick: superblock.brick, boot: superblock.boot },
      timing: this.timing,
      raft: () => this.#raft,
      state: () => this.state(),
      decide: (command) => this.#submitter.decide(command),
      levels: this.#levels,
      recoveries: this.#recoveries,
      found: () => this.#foundingCommand(),
    });
    this.#leadership.begin().then(() => this.#sender.nudge());
  }

  #foundingCommand(): Command {
    const { clusterId } = this.#options.superblock;
    const { shardCount, shardSpan } = this.#options.bootstrap ?? bootstrapDefault;
    const level = this.#levels.newest;
    return {
      type: "initCluster",
      clusterId,
      shardCount,
      ...(shardSpan !== undefined && level >= levelOfShardSpan && { shardSpan }),
      ...(level > levelsBefore.newest && { level }),
      ...this.#facts(),
    };
  }

  #apply(payloads: readonly Buffer[]): void {
    const before = this.#machine.cluster;
    for (const payload of payloads) {
      const decoded = decodeEnvelope(payload);
      // An entry that not every brick applies alike must stop this one, not divide the cluster.
      if (!decoded.ok) this.#options.host.crash(new Error(decoded.fault.message));
      const { machine, result } = applyEnvelope(this.#machine, decoded.envelope);
      this.#machine = machine;
      if (decoded.envelope.id !== null) this.#proposals.applied(decoded.envelope.id, result);
    }
    if (this.#machine.cluster !== before) this.#stateChanged();
  }

  #restore(snapshot: Buffer): void {
    const decoded = decodeSnapshot(snapshot);
    if (!decoded.ok) this.#options.host.crash(new Error(decoded.message));
    this.#machine = decoded.machine;
    this.#stateChanged();
  }

  #stateChanged(): void {
    const state = this.#machine.cluster;
    // It may have been started with an older build, and knows what it must not go on with.
    const { newest } = this.#levels;
    const level = levelRefusal(levelOf(state), { oldest: 1, newest });
    if (level !== null) this.#options.host.crash(new Error(`this brick cannot go on: ${level}`));
    this.#setPeers(state);
    this.#options.onState(state);
    if (reachVersion(this.#lease, state.version)) this.#options.onLease(this.#lease.untilMs);
    const waiting = this.#onVersion;
    this.#onVersion = waiting.filter(({ version }) => version > state.version);
    for (const { version, reached } of waiting) if (version <= state.version) reached();
    this.#leadership?.wake();
  }

  #setPeers(state: ClusterState): void {
    const { host, superblock } = this.#options;
    const known = this.#peers;
    const peers = peersOf(superblock.brick, state, known);
    for (const [number, address] of known) {
      const left = !peers.has(number) && state.bricks[number]?.status === "removed";
      if (left && this.#isBidFarewell(number)) peers.set(number, address);
    }
    const same =
      peers.size === known.size && [...peers].every(([one, at]) => known.get(one) === at);
    if (same) return;
    this.#peers = peers;
    host.network.setPeers(peers);
    this.#peersWrite = this.#peersWrite
      .then(() => writePeers(host, peers))
      .catch((error) => host.log(`peers could not be noted: ${error}`));
  }

  /** One that runs while it is removed must be told so: for a while it stays a peer. */
  #isBidFarewell(number: BrickNumber): boolean {
    const { clock } = this.#options.host;
    const untilMs = this.#farewells.get(number);
    if (untilMs !== undefined) return clock.nowMs() < untilMs;
    this.#farewells.set(number, clock.nowMs() + farewellMs);
    clock.after(farewellMs, () => {
      if (!this.#closed) this.#setPeers(this.state());
    });
    return true;
  }

  #facts() {
    const { superblock, addresses, domain, space } = this.#options;
    return {
      uuid: superblock.uuid,
      boot: superblock.boot,
      incarnation: this.#incarnation,
      peerAddress: addresses.peer,
      portalAddress: addresses.portal,
      apiAddress: addresses.api,
      domain: domain ?? "",
      capacityBytes: space().capacityBytes,
    };
  }

  #composeKeepalive() {
    const { superblock, cut, map, space } = this.#options;
    const { usedBytes, full } = space();
    const garbage = this.#options.garbage?.();
    const health = this.#options.health?.();
    return {
      clusterId: superblock.clusterId,
      ...this.#facts(),
      usedBytes,
      full,
      cut,
      discarded: this.#discarded,
      levels: this.#levels,
      shards: map.shardStatus(),
      ...(garbage !== undefined && { garbage }),
      ...(health !== undefined && { health }),
    };
  }

  #takeAnswer(answer: Exclude<KeepaliveAnswer, { type: "elsewhere" }>): void {
    if (answer.type === "refused") {
      this.#takeRefusal(answer.code, answer.message);
      return;
    }
    if (answer.boot !== this.#options.superblock.boot) return;
    this.#refusal = "";
    // It is taken up again: should it be given up once more, there is more to discard.
    this.#discarded = false;
    const longer = takeGrant(this.#lease, answer, this.state().version);
    if (longer) this.#options.onLease(this.#lease.untilMs);
    for (const { shard, view } of answer.release) this.#options.map.release(shard, view);
    if (answer.release.length > 0) this.#sender.nudge();
    const granted = this.#onGrant;
    this.#onGrant = granted.filter(({ sentFromMs }) => sentFromMs > answer.sentMs);
    for (const { sentFromMs, ready } of granted) {
      if (sentFromMs <= answer.sentMs) ready(answer.stateVersion);
    }
  }

  #takeRefusal(code: string, message: string): void {
    if (code === "coming_up") {
      this.#sender.nudge();
      return;
    }
    if (code === "given_up" && !this.#discarded) {
      this.#options.map.discardReplicas().then(() => {
        this.#discarded = true;
        this.#sender.nudge();
      });
    }
    if (code === "removed") this.#options.onRemoved?.();
    if (this.#refusal !== message) this.#options.host.log(`refused by the leader: ${message}`);
    this.#refusal = message;
  }

  #whenReached(version: number, reached: () => void): void {
    if (this.state().version >= version) reached();
    else this.#onVersion.push({ version, reached });
  }
}
