import { assertNever } from "../../brick/assert.ts";
import type { Host, TimerHandle } from "../../brick/host.ts";
import type { Calls } from "../../brick/rpc/calls.ts";
import { messageType } from "../../brick/rpc/message-types.ts";
import type { BrickNumber } from "../../brick/units.ts";
import type { OpenRaft } from "../raft-port.ts";
import { encodeConfiguration } from "./configuration.ts";
import { createRaft, type Raft, step } from "./raft.ts";
import { defaultRaftTiming, type RaftTiming, raftLimits } from "./raft-limits.ts";
import { decodeRaftMessage, encodeRaftMessage } from "./raft-messages.ts";
import { configurationOf } from "./raft-state.ts";
import { RaftStore } from "./raft-store-io.ts";
import type {
  Configuration,
  Entry,
  Loaded,
  MembershipChange,
  PersistEffect,
  RaftEffect,
  RaftEvent,
  RejectFault,
} from "./raft-types.ts";

export interface RaftNodeOptions {
  readonly host: Host;
  readonly self: BrickNumber;
  readonly messageType: number;
  /** Begins a cluster of these voters; ignored when there is a log already. */
  readonly bootstrap?: { readonly voters: readonly BrickNumber[] };
  /** Committed commands, in order, each once after the state last given to restore. */
  readonly apply: (entries: readonly { index: number; term: number; payload: Buffer }[]) => void;
  /** The state machine's state after everything that was applied. */
  readonly snapshot: () => Buffer;
  readonly restore: (snapshot: Buffer, index: number) => void;
  readonly onRoleChange?: (leads: boolean, term: number, leader: BrickNumber) => void;
  readonly timing?: Partial<RaftTiming>;
  readonly snapshotEveryEntries?: number;
  readonly folder?: string;
}

export type RaftFault =
  | RejectFault
  /** Another entry was committed in its place: it never takes effect. */
  | { readonly code: "lost" }
  /** Nobody can say here whether it takes effect. */
  | { readonly code: "uncertain" }
  /** No majority confirmed the read in time. */
  | { readonly code: "timeout" }
  | { readonly code: "closed" };

export type RaftDone = { ok: true; index: number } | { ok: false; fault: RaftFault };

export interface RaftStatus {
  readonly role: Raft["role"]["name"];
  readonly leader: BrickNumber;
  readonly term: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly lastIndex: number;
  readonly configuration: Configuration;
  /** The server heals and does not vote, or lacks entries that it knows. */
  readonly isHealing: boolean;
  readonly holes: number;
  /** At a leader: each follower, and when it last answered, by the host's clock. */
  readonly peers: readonly {
    readonly brick: BrickNumber;
    readonly matchIndex: number;
    readonly lastContactMs: number;
  }[];
}

/** What the store found makes this server unfit to take part. */
export class RaftStoreLost extends Error {
  override readonly name = "RaftStoreLost";
}

/** How soon a full file system is asked again. */
const fullRetryMs = 500;

interface Waiting {
  readonly deadlineMs: number;
  readonly done: (result: RaftDone) => void;
}

/** One server of Raft in the world: events in, effects performed in their order, nothing decided. */
export class RaftNode {
  readonly #options: RaftNodeOptions;
  readonly #timing: RaftTiming;
  readonly #store: RaftStore;
  readonly #raft: Raft;
  readonly #events: RaftEvent[] = [];
  #stepping = false;
  #closed = false;
  #timer: { readonly atMs: number; readonly handle: TimerHandle } | null = null;
  #nextId = 1;
  /** Of this tick, proposed together at its end. */
  #proposals: { id: number; payload: Buffer }[] = [];
  /** Proposals, changes and reads by id, in order of their deadlines. */
  readonly #waiting = new Map<number, Waiting>();
  readonly #reads = new Map<number, Waiting>();
  readonly #accepted = new Map<number, { id: number; term: number }>();
  #bytesSinceSnapshot = 0;
  #sweep: TimerHandle | null = null;

  static async open(options: RaftNodeOptions): Promise<RaftNode> {
    const { host, folder = "raft" } = options;
    let onPersisted = (_ticket: number): void => {};
    const opened = await RaftStore.open({
      disk: host.disk,
      folder,
      onPersisted: (ticket) => onPersisted(ticket),
      onFailure: (reason) => host.crash(reason),
      untilAsked: (reason) => {
        host.log(`raft: waits for space (${reason})`);
        return new Promise((resolve) => void host.clock.after(fullRetryMs, resolve));
      },
    });
    if (!opened.ok) throw new RaftStoreLost(`open ${folder}: ${opened.fault.code}`);
    const { store, report } = opened;
    let { loaded } = opened;
    if (report.torn !== null) host.log(`raft: cut an unfinished write ${show(report.torn)}`);
    const damaged = report.damage.length + report.holes + report.damagedSnapshots.length;
    if (damaged > 0 || report.lostThroughIndex !== null) {
      host.log(`raft: damaged, healing from peers: ${show(report)}`);
    }
    if (options.bootstrap !== undefined && isNew(loaded)) {
      loaded = bootstrapped(options.bootstrap.voters);
      const { promise, resolve } = Promise.withResolvers<void>();
      onPersisted = () => resolve();
      store.persist(bootstrapWork(loaded));
      await promise;
    }
    const node = new RaftNode(options, store, loaded);
    onPersisted = (ticket) => node.#take({ type: "persisted", ticket });
    if (loaded.snapshot !== null) options.restore(loaded.snapshot.data, loaded.snapshot.index);
    node.#arm();
    return node;
  }

  private constructor(options: RaftNodeOptions, store: RaftStore, loaded: Loaded) {
    const { host, self } = options;
    this.#options = options;
    this.#timing = { ...defaultRaftTiming, ...options.timing };
    this.#store = store;
    const nowMs = host.clock.nowMs();
    const prng = host.prng.fork();
    this.#raft = createRaft({ self, loaded, timing: this.#timing, prng, nowMs });
  }

  /** Resolves when the entry is committed and applied here, or when that can be told no more. */
  propose(payload: Buffer): Promise<RaftDone> {
    return this.#begin(this.#waiting, this.#timing.proposalTimeoutMs, (id) => {
      if (this.#proposals.length === 0) {
        this.#options.host.clock.soon(() => {
          const proposals = this.#proposals;
          this.#proposals = [];
          this.#take({ type: "propose", proposals });
        });
      }
      this.#proposals.push({ id, payload });
    });
  }

  /** ok: this server led after the call, and has applied all that was committed before it. */
  readBarrier(): Promise<RaftDone> {
    return this.#begin(this.#reads, this.#timing.readTimeoutMs, (id) =>
      this.#take({ type: "read", id }),
    );
  }

  /** Resolves when the change is committed. */
  changeMembership(change: MembershipChange): Promise<RaftDone> {
    return this.#begin(this.#waiting, this.#timing.proposalTimeoutMs, (id) =>
      this.#take({ type: "changeMembership", id, change }),
    );
  }

  /** Tries; whether it came to pass is seen by the role. */
  transferLeadership(to: BrickNumber): void {
    this.#take({ type: "transferLeadership", to });
  }

  receive(from: BrickNumber, body: Buffer): void {
    const decoded = decodeRaftMessage(body);
    if (decoded.ok) this.#take({ type: "message", from, message: decoded.message });
    else this.#options.host.log(`raft: bad message from brick ${from}: ${decoded.fault.reason}`);
  }

  status(): RaftStatus {
    const raft = this.#raft;
    const { role, leader, term, commitIndex, appliedIndex, log } = raft;
    const peers = role.name === "leader" ? [...role.peers.values()] : [];
    return {
      role: role.name,
      leader,
      term,
      commitIndex,
      appliedIndex,
      lastIndex: log.lastIndex,
      configuration: configurationOf(raft),
      isHealing: raft.healing !== null,
      holes: log.holes.length,
      peers: peers.map(({ brick, matchIndex, lastContactMs }) => ({
        brick,
        matchIndex,
        lastContactMs,
      })),
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.handle.cancel();
    this.#sweep?.cancel();
    for (const waiting of [this.#waiting, this.#reads]) {
      for (const id of [...waiting.keys()]) {
        this.#end(waiting, id, { ok: false, fault: { code: "closed" } });
      }
    }
    await this.#store.close();
  }

  #begin(
    waiting: Map<number, Waiting>,
    timeoutMs: number,
    start: (id: number) => void,
  ): Promise<RaftDone> {
    if (this.#closed) return Promise.resolve({ ok: false, fault: { code: "closed" } });
    const { promise, resolve } = Promise.withResolvers<RaftDone>();
    const id = this.#nextId++;
    const deadlineMs = this.#options.host.clock.nowMs() + timeoutMs;
    waiting.set(id, { deadlineMs, done: resolve });
    this.#armSweep();
    start(id);
    return promise;
  }

  #end(waiting: Map<number, Waiting>, id: number, result: RaftDone): void {
    const one = waiting.get(id);
    waiting.delete(id);
    one?.done(result);
  }

  /** Callbacks may bring further events: they wait until the effects of this one are done. */
  #take(event: RaftEvent): void {
    if (this.#closed) return;
    this.#events.push(event);
    if (this.#stepping) return;
    this.#stepping = true;
    try {
      for (let next = this.#events.shift(); next !== undefined; next = this.#events.shift()) {
        const effects = step(this.#raft, this.#options.host.clock.nowMs(), next);
        for (const effect of effects) this.#perform(effect);
        this.#snapshotIfDue();
      }
    } catch (reason) {
      this.#closed = true;
      this.#options.host.crash(reason);
    } finally {
      this.#stepping = false;
    }
    this.#arm();
  }

  #perform(effect: RaftEffect): void {
    switch (effect.type) {
      case "persist":
        this.#store.persist(effect);
        return;
      case "send": {
        const { messageType: type, host } = this.#options;
        const body = encodeRaftMessage(effect.message);
        host.network.send(effect.to, { type, request: 0, reply: false, boot: 0, body });
        return;
      }
      case "apply":
        this.#apply(effect.entries);
        return;
      case "restore":
        this.#restore(effect.snapshot.data, effect.snapshot.index);
        return;
      case "accepted":
        this.#accepted.set(effect.index, { id: effect.id, term: effect.term });
        return;
      case "rejected":
        this.#end(this.#waiting, effect.id, { ok: false, fault: effect.fault });
        return;
      case "readConfirmed":
        this.#end(this.#reads, effect.id, { ok: true, index: effect.index });
        return;
      case "readRejected":
        this.#end(this.#reads, effect.id, { ok: false, fault: effect.fault });
        return;
      case "roleChanged":
        this.#options.onRoleChange?.(effect.leads, effect.term, effect.leader);
        return;
      default:
        assertNever(effect);
    }
  }

  #apply(entries: readonly Entry[]): void {
    const commands = entries.filter((entry) => entry.kind === "command");
    if (commands.length > 0) this.#options.apply(commands);
    for (const { index, term, payload } of entries) {
      this.#bytesSinceSnapshot += payload.length;
      const accepted = this.#accepted.get(index);
      if (accepted === undefined) continue;
      this.#accepted.delete(index);
      const done: RaftDone =
        accepted.term === term ? { ok: true, index } : { ok: false, fault: { code: "lost" } };
      this.#end(this.#waiting, accepted.id, done);
    }
  }

  #restore(data: Buffer, through: number): void {
    this.#bytesSinceSnapshot = 0;
    this.#options.restore(data, through);
    for (const [index, { id }] of this.#accepted) {
      if (index > through) continue;
      this.#accepted.delete(index);
      this.#end(this.#waiting, id, { ok: false, fault: { code: "uncertain" } });
    }
  }

  #snapshotIfDue(): void {
    const { appliedIndex, snapshot } = this.#raft;
    const { snapshotEveryEntries = raftLimits.snapshotEveryEntries } = this.#options;
    const entries = appliedIndex - (snapshot?.index ?? 0);
    if (entries === 0) return;
    const due =
      entries >= snapshotEveryEntries ||
      this.#bytesSinceSnapshot >= raftLimits.snapshotEveryLogBytes;
    if (!due) return;
    this.#bytesSinceSnapshot = 0;
    const data = this.#options.snapshot();
    this.#events.unshift({ type: "snapshotMade", index: appliedIndex, data });
  }

  #arm(): void {
    const atMs = this.#raft.wakeAtMs;
    if (this.#closed || (this.#timer !== null && this.#timer.atMs <= atMs)) return;
    this.#timer?.handle.cancel();
    this.#timer = null;
    if (atMs === Number.POSITIVE_INFINITY) return;
    const { clock } = this.#options.host;
    const delayMs = Math.max(0, atMs - clock.nowMs());
    this.#timer = { atMs, handle: clock.after(delayMs, () => this.#wake()) };
  }

  #wake(): void {
    this.#timer = null;
    if (this.#options.host.clock.nowMs() >= this.#raft.wakeAtMs) this.#take({ type: "wake" });
    else this.#arm();
  }

  #armSweep(): void {
    if (this.#sweep !== null || this.#closed) return;
    const { clock } = this.#options.host;
    this.#sweep = clock.after(this.#timing.retryMs, () => {
      this.#sweep = null;
      const nowMs = clock.nowMs();
      this.#expire(this.#waiting, nowMs, { code: "uncertain" });
      this.#expire(this.#reads, nowMs, { code: "timeout" });
      if (this.#waiting.size + this.#reads.size > 0) this.#armSweep();
    });
  }

  #expire(waiting: Map<number, Waiting>, nowMs: number, fault: RaftFault): void {
    for (const [id, { deadlineMs }] of waiting) {
      if (deadlineMs > nowMs) return;
      this.#end(waiting, id, { ok: false, fault });
    }
  }
}

function isNew({ hardState, snapshot, entries }: Loaded): boolean {
  const hasVoted = hardState !== null && (hardState.term > 1 || hardState.votedFor !== 0);
  return snapshot === null && entries.length === 0 && !hasVoted && !hardState?.healing;
}

/** Every voter of the beginning has the same first entry, as if a leader had sent it. */
function bootstrapped(voters: readonly BrickNumber[]): Loaded {
  const configuration = { voters: [...voters].sort((a, b) => a - b), learners: [] };
  const payload = encodeConfiguration(configuration);
  return {
    hardState: { term: 1, votedFor: 0, healing: null },
    snapshot: null,
    entries: [{ index: 1, term: 1, kind: "configuration", payload }],
  };
}

function bootstrapWork({ hardState, entries }: Loaded): PersistEffect {
  return {
    type: "persist",
    ticket: 0,
    hardState,
    snapshot: null,
    resetsLog: false,
    cutAfterIndex: null,
    repairs: [],
    entries: entries as readonly Entry[],
    compactThroughIndex: 0,
  };
}

function show(value: object): string {
  return JSON.stringify(value);
}

/** Raft as the control plane wants it. The network is the host's; `calls` receives for it. */
export function openRaft({
  host,
  self,
  timing,
}: {
  host: Host;
  calls: Calls;
  self: BrickNumber;
  timing?: Partial<RaftTiming>;
}): OpenRaft {
  return async (bootstrap, callbacks) => {
    const node = await RaftNode.open({
      host,
      self,
      messageType: messageType.raft,
      ...(bootstrap && { bootstrap: { voters: [self] } }),
      apply: (entries) => callbacks.apply(entries.map((entry) => entry.payload)),
      snapshot: () => callbacks.snapshot(),
      restore: (snapshot) => callbacks.restore(snapshot),
      onRoleChange: (leads, term) => callbacks.onRoleChange(leads, term),
      ...(timing !== undefined && { timing }),
    });
    return {
      propose: (payload) => node.propose(payload),
      readBarrier: () => node.readBarrier(),
      receive: (from, body) => node.receive(from, body),
      leader: () => node.status().leader,
      isLeader: () => node.status().role === "leader",
      term: () => node.status().term,
      members: () => node.status().configuration,
      change: async (change) => (await node.changeMembership(change)).ok,
      transferLeadership: (to) => node.transferLeadership(to),
      close: () => node.close(),
    };
  };
}
