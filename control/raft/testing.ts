import { assert } from "../../brick/assert.ts";
import { Prng } from "../../brick/prng.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { encodeConfiguration } from "./configuration.ts";
import { createRaft, type Raft, step } from "./raft.ts";
import { defaultRaftTiming } from "./raft-limits.ts";
import { decodeRaftMessage, encodeRaftMessage } from "./raft-messages.ts";
import type {
  Entry,
  HardState,
  Hole,
  Loaded,
  MembershipChange,
  PersistEffect,
  RaftEffect,
  RaftEvent,
  RaftMessage,
  Snapshot,
} from "./raft-types.ts";

/** How unkind the world is to a cluster in memory. */
export interface Dials {
  lossChance: number;
  doubleChance: number;
  latencyMs: readonly [number, number];
  persistMs: readonly [number, number];
}

/** What a server has on its medium: persist effects are done one by one, in order. */
export class Medium {
  hardState: HardState | null = null;
  snapshot: Snapshot | null = null;
  log: (Entry | Hole)[] = [];

  perform(work: PersistEffect): void {
    if (work.hardState !== null) this.hardState = work.hardState;
    if (work.snapshot !== null) this.snapshot = work.snapshot;
    const { cutAfterIndex, repairs, entries, compactThroughIndex } = work;
    if (work.resetsLog) this.log = [];
    if (cutAfterIndex !== null) this.log = this.log.filter((one) => one.index <= cutAfterIndex);
    for (const entry of repairs) {
      this.log = this.log.map((one) => (one.index === entry.index ? entry : one));
    }
    for (const entry of entries) {
      this.log = this.log.filter((one) => one.index < entry.index);
      this.log.push(entry);
    }
    if (work.snapshot !== null) {
      this.log = this.log.filter((one) => one.index > compactThroughIndex);
    }
  }

  load(): Loaded {
    const through = this.snapshot?.index ?? 0;
    const covered = this.log.find((one) => one.index === through);
    const stale = covered !== undefined && covered.term !== this.snapshot?.term;
    const entries = stale ? [] : this.log.filter((one) => one.index > through);
    return { hardState: this.hardState, snapshot: this.snapshot, entries };
  }

  holds(index: number): boolean {
    return (this.snapshot?.index ?? 0) >= index || (this.log.at(-1)?.index ?? 0) >= index;
  }
}

export interface Server {
  readonly brick: BrickNumber;
  readonly medium: Medium;
  raft: Raft | null;
  /** Counts boots; what was begun in an earlier one is void. */
  boot: number;
  /** A digest of everything applied, and the entry it reaches. */
  state: { index: number; digest: number };
  persistBusyUntilMs: number;
}

interface Happening {
  readonly atMs: number;
  readonly order: number;
  readonly action: () => void;
}

const timing = { ...defaultRaftTiming };
const limits = {
  trailingEntries: 8,
  snapshotChunkBytes: 7,
  appendEntriesMax: 6,
  inflightAppendsMax: 4,
  promotionLagEntriesMax: 6,
};

/**
 * A whole cluster of the pure core in one process, with one seed and one timeline. It checks at
 * every step what figure 3 of the Raft paper promises, and that nothing is promised before it is
 * durable.
 */
export class Cluster {
  readonly prng: Prng;
  readonly servers = new Map<BrickNumber, Server>();
  readonly dials: Dials = {
    lossChance: 0,
    doubleChance: 0,
    latencyMs: [1, 8],
    persistMs: [1, 10],
  };
  nowMs = 0;
  /** "from>to" that carries nothing. */
  readonly cut = new Set<string>();
  traceHash = 0;
  eventCount = 0;
  confirmedReads = 0;
  #order = 0;
  readonly #heap: Happening[] = [];
  readonly #leaderOfTerm = new Map<number, BrickNumber>();
  readonly #votes = new Map<string, BrickNumber>();
  readonly #identities = new Map<string, { previousTerm: number; content: number }>();
  /** Every entry there ever was, by "index.term". */
  readonly originals = new Map<string, Entry>();
  /** Of every committed entry: its term and content, and the digest of all up to it. */
  readonly committed: { term: number; content: number; digest: number }[] = [
    { term: 0, content: 0, digest: 0 },
  ];
  readonly #reads = new Map<string, number>();
  #nextId = 1;

  constructor(
    seed: number,
    options: { voters: readonly BrickNumber[]; others: readonly BrickNumber[] },
  ) {
    this.prng = new Prng(seed);
    for (const brick of [...options.voters, ...options.others]) {
      const medium = new Medium();
      const state = { index: 0, digest: 0 };
      const server = { brick, medium, raft: null, boot: 0, state, persistBusyUntilMs: 0 };
      this.servers.set(brick, server);
      if (options.voters.includes(brick)) {
        const voters = [...options.voters].sort((a, b) => a - b);
        const payload = encodeConfiguration({ voters, learners: [] });
        medium.hardState = { term: 1, votedFor: 0, healing: null };
        medium.log = [{ index: 1, term: 1, kind: "configuration", payload }];
        this.#checkIdentity(medium.log[0] as Entry, 0);
      }
      this.start(brick);
    }
  }

  start(brick: BrickNumber): void {
    const server = this.servers.get(brick)!;
    assert(server.raft === null);
    server.boot += 1;
    const loaded = server.medium.load();
    server.raft = createRaft({
      self: brick,
      loaded,
      timing,
      limits,
      prng: this.prng.fork(),
      nowMs: this.nowMs,
    });
    server.state = { index: 0, digest: 0 };
    if (loaded.snapshot !== null) this.#restore(server, loaded.snapshot);
    this.#arm(server);
  }

  /** Loses what was not durable. */
  crash(brick: BrickNumber): void {
    const server = this.servers.get(brick)!;
    server.raft = null;
    server.boot += 1;
    server.persistBusyUntilMs = this.nowMs;
  }

  leader(): Server | null {
    let best: Server | null = null;
    for (const server of this.servers.values()) {
      if (server.raft?.role.name !== "leader") continue;
      if (best === null || best.raft!.term < server.raft.term) best = server;
    }
    return best;
  }

  propose(brick: BrickNumber, text: string): void {
    const id = this.#nextId++;
    this.give(brick, { type: "propose", proposals: [{ id, payload: Buffer.from(text) }] });
  }

  read(brick: BrickNumber): void {
    const id = this.#nextId++;
    this.#reads.set(`${brick}.${id}`, this.committed.length - 1);
    this.give(brick, { type: "read", id });
  }

  change(brick: BrickNumber, change: MembershipChange): void {
    this.give(brick, { type: "changeMembership", id: this.#nextId++, change });
  }

  /** One event to one server, and all that follows from it at once. */
  give(brick: BrickNumber, event: RaftEvent): void {
    const server = this.servers.get(brick)!;
    if (server.raft === null) return;
    const before = server.raft.role;
    const effects = step(server.raft, this.nowMs, event);
    this.eventCount += 1;
    this.#trace(brick, event.type, effects);
    if (server.raft.role !== before && server.raft.role.name === "leader")
      this.#checkLeader(server);
    for (const effect of effects) this.#perform(server, effect);
    this.#arm(server);
  }

  /** Where everyone stands, for whoever looks into a failure. */
  describe(): string {
    const lines = [...this.servers.values()].map(({ brick, raft, state }) => {
      if (raft === null) return `${brick}: down`;
      const { role, term, log, commitIndex, healing, leader, configurations } = raft;
      return `${brick}: ${JSON.stringify({
        role: role.name,
        term,
        leader,
        log: [log.baseIndex, log.lastIndex, log.lastTerm],
        holes: log.holes,
        commitIndex,
        applied: state.index,
        healing,
        configuration: configurations.at(-1),
      })}`;
    });
    return [`at ${this.nowMs} ms`, ...lines].join("\n");
  }

  /** Lets time pass until `untilMs`, or until `done` holds. */
  run(untilMs: number, done: () => boolean = () => false): boolean {
    while (!done()) {
      const next = this.#heap[0];
      if (next === undefined || next.atMs > untilMs) {
        this.nowMs = Math.max(this.nowMs, untilMs);
        return done();
      }
      this.#pop();
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.action();
    }
    return true;
  }

  after(delayMs: number, action: () => void): void {
    this.#push({ atMs: this.nowMs + delayMs, order: (this.#order += 1), action });
  }

  #arm(server: Server): void {
    const { raft, boot } = server;
    if (raft === null || raft.wakeAtMs === Number.POSITIVE_INFINITY) return;
    const { wakeAtMs } = raft;
    const armed = armedWakes.get(raft);
    if (armed !== undefined && armed <= wakeAtMs && armed > this.nowMs) return;
    armedWakes.set(raft, wakeAtMs);
    this.after(Math.max(0, wakeAtMs - this.nowMs), () => {
      if (server.boot !== boot || server.raft !== raft) return;
      if (armedWakes.get(raft) !== wakeAtMs) return;
      armedWakes.delete(raft);
      if (this.nowMs >= raft.wakeAtMs) this.give(server.brick, { type: "wake" });
      else this.#arm(server);
    });
  }

  #perform(server: Server, effect: RaftEffect): void {
    switch (effect.type) {
      case "persist":
        this.#persist(server, effect);
        return;
      case "send":
        this.#send(server, effect.to, effect.message);
        return;
      case "apply":
        for (const entry of effect.entries) this.#apply(server, entry);
        return;
      case "restore":
        this.#restore(server, effect.snapshot);
        return;
      case "readConfirmed": {
        const key = `${server.brick}.${effect.id}`;
        const least = this.#reads.get(key);
        assert(least !== undefined, "a read is confirmed once");
        assert(effect.index >= least, "a confirmed read sees everything committed before it");
        assert(server.state.index >= effect.index, "a confirmed read finds its state applied");
        this.#reads.delete(key);
        this.confirmedReads += 1;
        return;
      }
      default:
    }
  }

  #persist(server: Server, work: PersistEffect): void {
    const { boot } = server;
    for (const entry of work.entries) {
      this.#checkIdentity(entry, server.raft!.log.termAt(entry.index - 1));
    }
    const [min, max] = this.dials.persistMs;
    server.persistBusyUntilMs =
      Math.max(server.persistBusyUntilMs, this.nowMs) + this.prng.between(min, max);
    this.after(server.persistBusyUntilMs - this.nowMs, () => {
      if (server.boot !== boot) return;
      server.medium.perform(work);
      this.give(server.brick, { type: "persisted", ticket: work.ticket });
    });
  }

  #send(server: Server, to: BrickNumber, message: RaftMessage): void {
    this.#checkPromise(server, to, message);
    const bytes = Buffer.concat(encodeRaftMessage(message));
    const times = this.prng.chance(this.dials.doubleChance) ? 2 : 1;
    for (let time = 0; time < times; time += 1) {
      if (this.prng.chance(this.dials.lossChance)) continue;
      this.after(this.prng.between(...(this.dials.latencyMs as [number, number])), () => {
        if (this.cut.has(`${server.brick}>${to}`) || !this.servers.has(to)) return;
        const decoded = decodeRaftMessage(bytes);
        assert(decoded.ok, "what the core sends can be read");
        this.give(to, { type: "message", from: server.brick, message: decoded.message });
      });
    }
  }

  /** Figure 2: nothing is answered before it is on stable storage. */
  #checkPromise({ brick, medium }: Server, to: BrickNumber, message: RaftMessage): void {
    const candidate =
      message.type === "vote" ? brick : message.type === "voteReply" && message.granted ? to : 0;
    if (candidate !== 0) {
      const { term, votedFor } = medium.hardState!;
      assert(term > message.term || votedFor === candidate, "a vote was promised, not kept");
      const key = `${brick}.${message.term}`;
      const earlier = this.#votes.get(key) ?? candidate;
      assert(earlier === candidate, `brick ${brick} voted twice in term ${message.term}`);
      this.#votes.set(key, candidate);
    }
    if (message.type === "appendReply" && message.ok && medium.hardState!.term === message.term) {
      assert(medium.holds(message.index), "an entry was acknowledged, not kept");
    }
  }

  #checkLeader({ brick, raft }: Server): void {
    const { term, log } = raft!;
    // Election Safety.
    const other = this.#leaderOfTerm.get(term) ?? brick;
    assert(other === brick, `bricks ${other} and ${brick} both lead term ${term}`);
    this.#leaderOfTerm.set(term, brick);
    // Leader Completeness.
    const last = this.committed.length - 1;
    assert(log.lastIndex >= last, `the leader of term ${term} lacks committed entry ${last}`);
    for (let index = log.baseIndex; index <= last; index += 1) {
      const termThere = log.termAt(index);
      assert(termThere === this.committed[index]!.term, `leader of ${term} lacks entry ${index}`);
    }
  }

  /** Log Matching: index and term determine the entry and, with it, the one before. */
  #checkIdentity(entry: Entry, previousTerm: number | null): void {
    if (previousTerm === null) return;
    const key = `${entry.index}.${entry.term}`;
    const content = contentOf(entry);
    this.originals.set(key, entry);
    const known = this.#identities.get(key);
    if (known === undefined) {
      this.#identities.set(key, { previousTerm, content });
      return;
    }
    assert(known.content === content, `two entries ${key}`);
    assert(known.previousTerm === previousTerm, `two entries before ${key}`);
  }

  /** State Machine Safety. */
  #apply(server: Server, entry: Entry): void {
    assert(entry.index === server.state.index + 1, "entries are applied in order, each once");
    const content = contentOf(entry);
    const { term } = entry;
    if (entry.index === this.committed.length) {
      const digest = mix(this.committed.at(-1)!.digest, content);
      this.committed.push({ term, content, digest });
    }
    const agreed = this.committed[entry.index]!;
    assert(agreed.term === term && agreed.content === content, `two entries at ${entry.index}`);
    server.state = { index: entry.index, digest: mix(server.state.digest, content) };
    assert(server.state.digest === agreed.digest);
    if (this.prng.chance(0.05)) this.#makeSnapshot(server);
  }

  #makeSnapshot(server: Server): void {
    const { boot } = server;
    this.after(0, () => {
      if (server.boot !== boot) return;
      const data = Buffer.from(JSON.stringify(server.state));
      this.give(server.brick, { type: "snapshotMade", index: server.state.index, data });
    });
  }

  #restore(server: Server, snapshot: Snapshot): void {
    server.state = JSON.parse(snapshot.data.toString());
    assert(server.state.index === snapshot.index);
    assert(server.state.digest === this.committed[snapshot.index]!.digest, "a false snapshot");
  }

  #trace(brick: number, what: string, effects: readonly RaftEffect[]): void {
    let hash = mix(this.traceHash, Math.floor(this.nowMs * 16) + brick);
    for (const char of what) hash = mix(hash, char.charCodeAt(0));
    for (const effect of effects)
      hash = mix(hash, effect.type.length * 7 + effect.type.charCodeAt(0));
    this.traceHash = hash;
  }

  #push(happening: Happening): void {
    const heap = this.#heap;
    let at = heap.push(happening) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(happening, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = happening;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
      if (!isBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}

const armedWakes = new WeakMap<Raft, number>();

function isBefore(a: Happening, b: Happening): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

function mix(hash: number, value: number): number {
  return (Math.imul(hash ^ value, 0x9e3779b1) + (hash >>> 15)) | 0;
}

function contentOf({ kind, payload }: Entry): number {
  let hash = kind.length;
  for (const byte of payload) hash = mix(hash, byte);
  return hash;
}
