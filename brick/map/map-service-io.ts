import { assert } from "../assert.ts";
import type { ClusterState, ShardRecord, ShardView } from "../cluster-state.ts";
import type { Host, Kv, KvChange } from "../host.ts";
import { type MemoryParts, memoryPartsDefault } from "../memory-budget.ts";
import { NumberMap } from "../number-map.ts";
import { Roster } from "../roster.ts";
import type { Calls, Received } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import { Words } from "../rpc/words.ts";
import type { Store, StoreParticipant } from "../store/store.ts";
import type { BrickNumber } from "../units.ts";
import {
  becomeBackup,
  learnCommit,
  onOverlay,
  onPrepare,
  onRecords,
  onStart,
  startAfresh,
  wakeBackup,
} from "./backup.ts";
import { type Entry, entryHeadBytes } from "./entry.ts";
import { spaceInView } from "./full-bricks.ts";
import { Gatherings } from "./gatherings.ts";
import { decodeMapGroup } from "./group-messages.ts";
import {
  decodeMapCancel,
  decodeMapFence,
  decodeMapLookup,
  decodeMapRehint,
  encodeLookupReply,
  type MapReply,
  mapReplyWire,
  mapWriteWire,
} from "./map-messages.ts";
import { MapTable } from "./map-table.ts";
import { becomePrimary, onAck, onHello, onNeed, wakePrimary } from "./primary.ts";
import {
  answerFetch,
  assemble,
  decodeFetch,
  encodeFetch,
  type Fetch,
  reportOf,
} from "./recovery.ts";
import { checkpointImage, replayRecord, restore, shardOfRecord } from "./replay.ts";
import {
  giveUpWaiting,
  isLiveIncarnation,
  journalFacts,
  type MapCounters,
  type Replica,
  type ReplicaEffects,
  recordTagBytes,
  truncate,
} from "./replica.ts";
import { decodeReplicaHead } from "./replica-messages.ts";
import { emptyFacts } from "./replica-state.ts";
import { lookUp, onCancel, onFence, onGroup, onRehint, onWrite } from "./requests.ts";
import { type ShardStatus, statusOf } from "./shard-status.ts";
import { onRecordsTaken } from "./transfer.ts";
import { planUnion, type ReplicaReport, type UnionPlan } from "./union.ts";

const fetchTimeoutMs = 5000;
/** Records of dropped replicas removed in one go. */
const sweepStepRecords = 1024;
const sweepEveryMs = 1000;
/** Stands in the map table once records of the map were lost. */
const lossNote = "lost-records";
/** Of a replica whose facts cannot be read: above all incarnations that it may have had. */
const brokenIncarnation = 2 ** 31;

/** All replicas of one brick, their log records and their messages. */
export class MapService implements StoreParticipant {
  readonly counters: MapCounters = {
    commits: 0,
    transferBytes: 0,
    settleBytes: 0,
    inlineDedupHits: 0,
    inlineDedupBytes: 0,
    releasedBytes: 0,
  };
  /** The epoch of garbage collection in which the shard, led here in this view, is marked. */
  markedIn: (shard: number, view: number) => number | undefined = () => undefined;
  /** Told of every commit of every replica. */
  readonly onCommit: ((replica: Replica, entry: Entry) => void)[] = [];
  readonly #host: Host;
  readonly #calls: Calls;
  readonly #self: BrickNumber;
  readonly #table: MapTable;
  readonly #replicas = new Map<number, Replica>();
  readonly #effects: ReplicaEffects;
  #store: Store | null = null;
  #state: ClusterState | null = null;
  #leaseUntilMs = Number.NEGATIVE_INFINITY;
  readonly #wakes = new NumberMap<number>();
  #onCollected: (() => void)[] = [];
  #collecting: (() => void)[] = [];
  /** A start of a view that we have not learnt of yet. */
  readonly #early = new Map<number, { from: BrickNumber; view: number; body: Buffer }>();
  /** The log held a record of the map that says not even whose it is. */
  #isUnreadable = false;
  /** Once it lost records: a shard that it knows nothing of may be one that it has lost all of. */
  #hasLostRecords = false;
  readonly #gatherings = new Gatherings();
  #closed = false;
  /** Records that wait for room are being given up. */
  #givesUp = false;

  constructor(
    host: Host,
    calls: Calls,
    self: BrickNumber,
    memory: Pick<MemoryParts, "mapTableBytes"> = memoryPartsDefault,
  ) {
    this.#table = new MapTable({ cacheBytesMax: memory.mapTableBytes });
    this.#host = host;
    this.#calls = calls;
    this.#self = self;
    this.#effects = this.#makeEffects();
    this.#serve();
  }

  // The store's participant.

  begin(kv: Kv): void {
    this.#table.attach(kv);
    this.#hasLostRecords = this.#table.getNote(lossNote) !== undefined;
    for (const { shard, state } of this.#table.states()) {
      const replica = this.#replica(shard);
      if (restore(replica, state)) continue;
      replica.facts = emptyFacts(brokenIncarnation);
      replica.broken = true;
    }
  }

  replay(record: Buffer): void {
    const shard = shardOfRecord(record);
    if (shard === null) {
      this.#host.log("map: a log record cannot be read; every replica may lack what it said");
      this.#isUnreadable = true;
    } else replayRecord(this.#replica(shard), record);
  }

  collect(): KvChange[] {
    this.#collecting.push(...this.#onCollected);
    this.#onCollected = [];
    for (const replica of this.#replicas.values()) {
      this.#table.putState(replica.shard, checkpointImage(replica));
    }
    return this.#table.collect();
  }

  collected(): void {
    this.#table.collected();
    const waiting = this.#collecting;
    this.#collecting = [];
    for (const done of waiting) this.#host.clock.soon(done);
  }

  dirtyCount(): number {
    return this.#table.dirtyCount();
  }

  /** The store is open: pending entries get their chunks' bytes back, to be sent again. */
  async attach(store: Store): Promise<void> {
    this.#store = store;
    for (const replica of this.#replicas.values()) {
      for (let op = replica.facts.commitOp + 1; op <= replica.facts.lastOp; op += 1) {
        const entry = replica.pending.get(op);
        if (entry === undefined || entry.inlineBytes === 0 || entry.inline !== null) continue;
        const read = await store.readChunk(entry.key!);
        if (read.ok) entry.inline = read.bytes;
        else {
          truncate(replica, op - 1);
          replica.broken = true;
        }
      }
      if (store.cut || store.damaged || this.#isUnreadable || replica.broken) {
        replica.facts.lossy = true;
      }
      if (replica.broken) this.#host.log(`map: the log of shard ${replica.shard} has a hole`);
    }
    if (store.cut || store.damaged || this.#isUnreadable) {
      this.#hasLostRecords = true;
      this.#table.putNote(lossNote, Buffer.from([1]));
    }
    if (store.cut || store.damaged) {
      // Every replica knows of it now, and will after a restart.
      const settled = this.#checkpoint().then(() => store.settleLoss());
      // Without room for it the superblock goes on to say so; nobody has to wait.
      if (!store.putsOffCheckpoints) await settled;
      else settled.catch((error: unknown) => this.#host.crash(error));
    }
    this.#sweepLater();
  }

  // What the brick is told.

  onState(state: ClusterState): void {
    const before = this.#state;
    this.#state = state;
    for (const [shard, record] of state.shards.entries()) {
      if (before?.shards[shard] !== record) this.#onShard(shard, record);
    }
  }

  setLease(untilMs: number): void {
    this.#leaseUntilMs = Math.max(this.#leaseUntilMs, untilMs);
  }

  #onShard(shard: number, record: ShardRecord): void {
    const takesPart = record.members.includes(this.#self) || record.candidates.includes(this.#self);
    let replica = this.#replicas.get(shard);
    if (!takesPart) {
      if (replica === undefined) return;
      replica.view = null;
      replica.role = { is: "idle" };
      const { facts } = replica;
      const inChain = record.chain.some((view) => isIn(view, this.#self));
      // After a restart the state may be older than what this brick took part in since.
      const isNews = record.view >= facts.promised;
      if (isNews && !inChain && (facts.lastOp > 0 || facts.baseOp > 0)) {
        startAfresh(replica);
        journalFacts(replica, 0, () => {});
      }
      return;
    }
    this.#gatherings.begun(shard, record.view);
    replica ??= this.#replica(shard);
    const same = replica.view !== null && replica.view.view === record.view;
    if (replica.facts.promised > record.view || replica.isGathering) {
      // A newer view is being prepared, and what is reported for it must not change.
      replica.view = null;
      replica.role = { is: "idle" };
      return;
    }
    replica.view = record;
    if (same) {
      if (record.transfer) this.#wake(shard);
      return;
    }
    if (record.primary === this.#self) becomePrimary(replica);
    else {
      becomeBackup(replica);
      const early = this.#early.get(shard);
      this.#early.delete(shard);
      if (early?.view === record.view) this.#onMessage(early.from, early.body);
    }
  }

  // MapControl: what the control plane asks.

  shardStatus(): ShardStatus[] {
    const shards = this.#state?.shards;
    return [...this.#replicas.values()]
      .map((replica) => statusOf(replica, shards?.[replica.shard], this.markedIn))
      .filter((status) => status !== null);
  }

  release(shard: number, view: number): void {
    const replica = this.#replicas.get(shard);
    if (replica?.role.is === "primary" && replica.view?.view === view) replica.role.released = true;
  }

  async discardReplicas(): Promise<void> {
    for (const replica of this.#replicas.values()) {
      replica.view = null;
      replica.role = { is: "idle" };
      startAfresh(replica);
    }
    await this.#checkpoint();
  }

  async report(shard: number, view: number): Promise<Buffer | null> {
    const replica = this.#replica(shard);
    const { facts } = replica;
    const known = this.#state?.shards[shard]?.view ?? 0;
    if (facts.promised > view || facts.accepted >= view || known >= view) return null;
    if (replica.isGathering) return null;
    // From here on nothing of an older view is answered.
    replica.view = null;
    replica.role = { is: "idle" };
    giveUpWaiting(replica);
    facts.promised = view;
    // Asked again, it says what it has said.
    if (replica.promisedDurable !== view || replica.acceptedUnderWay.size > 0) {
      await new Promise<void>((resolve) => journalFacts(replica, 0, resolve));
    }
    if (replica.facts.promised !== view) return null;
    return Buffer.from(JSON.stringify(reportOf(replica)));
  }

  planUnion(request: {
    chain: readonly ShardView[];
    reports: ReadonlyMap<BrickNumber, Buffer>;
    everyoneReported: boolean;
    /** Bricks known to have lost some of it; one that has lost all would not know. */
    damaged?: readonly BrickNumber[];
  }): { ok: true; brick: BrickNumber; plan: Buffer } | { ok: false; reason: string } {
    const reports: ReplicaReport[] = [];
    for (const [brick, bytes] of request.reports) {
      const report = JSON.parse(bytes.toString("utf8")) as ReplicaReport;
      const damaged = report.damaged || request.damaged?.includes(brick) === true;
      reports.push({ ...report, damaged });
    }
    const decision = planUnion(request.chain, reports, request.everyoneReported);
    if (!decision.ok) return decision;
    const { plan } = decision;
    return { ok: true, brick: plan.leader, plan: Buffer.from(JSON.stringify(plan)) };
  }

  assemble(shard: number, view: number, plan: Buffer): Promise<boolean> {
    return this.#gatherings.gather(shard, view, plan, () => this.#assemble(shard, view, plan));
  }

  async #assemble(shard: number, view: number, plan: Buffer): Promise<boolean> {
    const union = JSON.parse(plan.toString("utf8")) as UnionPlan;
    const fetch: Fetch = (from, request) =>
      new Promise((resolve) => {
        const body = [encodeFetch(request)];
        this.#calls.call(from, messageType.mapFetch, body, fetchTimeoutMs, (reply) =>
          resolve(reply.ok ? reply.body : null),
        );
      });
    const store = (entry: Entry) => this.#storeChunk(entry);
    const replica = this.#replica(shard);
    const made = await assemble(replica, view, union, fetch, store, () => this.#checkpoint());
    // A view may have begun meanwhile.
    const record = this.#state?.shards[shard];
    if (replica.view === null && record !== undefined) this.#onShard(shard, record);
    return made;
  }

  #storeChunk(entry: Entry): Promise<boolean> {
    if (entry.inline === null) {
      const stored = entry.inlineBytes === 0 || this.#effects.protect(entry.key!, entry.gcEpoch);
      return Promise.resolve(stored);
    }
    this.counters.settleBytes += entry.inline.length;
    return new Promise((resolve) => {
      this.#store!.put(entry.key!, entry.inline!, originOf(entry), (done) => resolve(done.ok));
    });
  }

  /** Mapped bytes by branch, of the shards led here. */
  mappedBytes(): Map<number, number> {
    const total = new Map<number, number>();
    for (const { role, mapped } of this.#replicas.values()) {
      if (role.is !== "primary") continue;
      for (const [branch, sectors] of mapped) {
        total.set(branch, (total.get(branch) ?? 0) + sectors * 512);
      }
    }
    return total;
  }

  /** For examination: the replicas as they stand. */
  replicas(): IterableIterator<Replica> {
    return this.#replicas.values();
  }

  get table(): MapTable {
    return this.#table;
  }

  close(): void {
    this.#closed = true;
    for (const replica of this.#replicas.values()) replica.role = { is: "idle" };
  }

  // Messages.

  #serve(): void {
    const calls = this.#calls;
    calls.serve(messageType.mapReplica, (from, body) => this.#onMessage(from, body));
    const written = (received: Received) => received.read(mapWriteWire);
    this.#serveRequest(messageType.mapWrite, written, onWrite);
    this.#serveRequest(messageType.mapGroup, ({ body }) => decodeMapGroup(body), onGroup);
    this.#serveRequest(messageType.mapFence, ({ body }) => decodeMapFence(body), onFence);
    this.#serveRequest(messageType.mapCancel, ({ body }) => decodeMapCancel(body), onCancel);
    this.#serveRequest(messageType.mapRehint, ({ body }) => decodeMapRehint(body), onRehint);
    calls.serve(messageType.mapLookup, (_from, body, reply) => {
      const request = decodeMapLookup(body);
      const replica = request === null ? undefined : this.#replicas.get(request.shard);
      const nothing = { coveredCount: 0, grains: new Map() };
      if (request === null) reply(encodeLookupReply({ status: "refused", view: 0, ...nothing }));
      else if (replica === undefined)
        reply(encodeLookupReply({ status: "not_now", view: 0, ...nothing }));
      else reply(encodeLookupReply(lookUp(replica, request)));
    });
    calls.serve(messageType.mapFetch, (_from, body, reply) => {
      const request = decodeFetch(body);
      if (request === null) return;
      const page = answerFetch(this.#replica(request.shard), request);
      if (page !== null) reply(page);
    });
  }

  /** Requests that change a shard: read, handed to its replica here, and answered once. */
  #serveRequest<T extends { shard: number }>(
    type: number,
    read: (received: Received) => T | null,
    handle: (replica: Replica, request: T, answer: (reply: MapReply) => void) => void,
  ): void {
    this.#calls.serveData(type, (_from, received, reply) => {
      const request = read(received);
      const replica = request === null ? undefined : this.#replicas.get(request.shard);
      const answer = (words: MapReply) => reply(new Words(mapReplyWire, words));
      if (request === null || replica === undefined) answer(notHere(request === null));
      else handle(replica, request, answer);
    });
  }

  #onMessage(from: BrickNumber, body: Buffer): void {
    const head = decodeReplicaHead(body);
    if (head === null) return;
    const replica = this.#replicas.get(head.shard);
    const view = replica?.view ?? null;
    if (replica === undefined || view === null || head.view > view.view) {
      if (head.kind === "start") this.#early.set(head.shard, { from, view: head.view, body });
      return;
    }
    if (head.view < view.view) return;
    const { role } = replica;
    if (role.is === "primary") {
      const peer = role.peers.get(from);
      if (head.kind === "ack") onAck(replica, role, from, head.op);
      else if (head.kind === "hello") onHello(replica, role, from, head.op, body);
      else if (head.kind === "need") onNeed(replica, role, from, head.op);
      else if (head.kind === "recordsTaken" && peer) onRecordsTaken(replica, peer, head.op, body);
    } else if (role.is === "backup" && from === view.primary) {
      if (head.kind === "prepare") onPrepare(replica, role, head.op, body);
      else if (head.kind === "commit") learnCommit(replica, role, head.op);
      else if (head.kind === "start") onStart(replica, role, from, head.op, body);
      else if (head.kind === "overlay") onOverlay(replica, role, head.op, body);
      else if (head.kind === "records") onRecords(replica, role, head.op, body);
    }
  }

  // The world of the replicas.

  #replica(shard: number): Replica {
    let replica = this.#replicas.get(shard);
    if (replica === undefined) {
      replica = {
        shard,
        self: this.#self,
        table: this.#table,
        effects: this.#effects,
        facts: emptyFacts(1),
        pending: new NumberMap(),
        undurable: new Roster(),
        acceptedDurable: 0,
        acceptedUnderWay: new Roster(),
        promisedDurable: 0,
        isGathering: false,
        cuts: [],
        view: null,
        role: { is: "idle" },
        broken: false,
        mapped: new Map(),
      };
      if (this.#hasLostRecords) replica.facts.lossy = true;
      this.#replicas.set(shard, replica);
    }
    return replica;
  }

  #makeEffects(): ReplicaEffects {
    const { clock } = this.#host;
    return {
      counters: this.counters,
      stages: () => this.#store!.stages,
      committed: (replica, entry) => {
        for (const told of this.onCommit) told(replica, entry);
      },
      nowMs: () => clock.nowMs(),
      leaseValid: () => !this.#closed && clock.nowMs() < this.#leaseUntilMs,
      boot: () => this.#store!.superblock.boot,
      clusterTimeMs: () => this.#state?.clusterTimeMs ?? 0,
      gcEpoch: () => this.#state?.gcEpoch ?? 0,
      spaceIn: (bricks) => {
        const full = this.#store!.space().full ? [this.#self] : [];
        if (this.#state === null) return full.length === 0 ? "room" : "soon";
        return spaceInView(this.#state, bricks, full);
      },
      has: (key) => this.#store!.has(key),
      protect: (key, gcEpoch) => {
        this.#store!.stamps.reach(gcEpoch);
        return this.#store!.protect(key);
      },
      journal: (shard, record, done) => this.#journal(shard, record, done),
      mayCheckpoint: () => !this.#store!.putsOffCheckpoints,
      isLogShort: () => this.#store!.waitsForRoom,
      giveUp: (shard) => this.#giveUp(shard),
      send: (to, parts) => this.#calls.tell(to, messageType.mapReplica, parts),
      checkpoint: (durable) => {
        this.#onCollected.push(durable);
        this.#store!.checkpoint();
      },
      soon: (action) => clock.soon(action),
      wakeAfter: (shard, delayMs) => this.#wakeAfter(shard, delayMs),
    };
  }

  #giveUp(shard: number): boolean {
    this.#givesUp = true;
    const gaveUp = this.#store!.giveUp(orderOf(shard));
    this.#givesUp = false;
    return gaveUp;
  }

  #journal(
    shard: number,
    {
      parts,
      inline,
      control,
    }: { parts: readonly Buffer[]; inline: Entry | null; control: boolean },
    done: (isThere: boolean) => void,
  ): void {
    const chunk =
      inline === null
        ? null
        : {
            key: inline.key!,
            offsetBytes: recordTagBytes + entryHeadBytes,
            lengthBytes: inline.inlineBytes,
            origin: originOf(inline),
          };
    const logged = (ok: boolean) => {
      // What was agreed on is logged: the reserve is for that, and without it the entry waits for
      // room, acknowledged to nobody. Given up it is by its own shard, or when the brick stops.
      assert(ok || this.#closed || this.#givesUp, "an entry of the map was refused by the log");
      if (ok || this.#givesUp) done(ok);
    };
    const claim = control ? "control" : "reserve";
    this.#store!.appendMap(parts, chunk, logged, { claim, order: orderOf(shard) });
  }

  #checkpoint(): Promise<void> {
    return new Promise((resolve) => this.#effects.checkpoint(resolve));
  }

  #wakeAfter(shard: number, delayMs: number): void {
    const { clock } = this.#host;
    const atMs = clock.nowMs() + delayMs;
    const planned = this.#wakes.get(shard);
    if (planned !== undefined && planned <= atMs) return;
    this.#wakes.set(shard, atMs);
    clock.after(delayMs, () => {
      if (this.#wakes.get(shard) !== atMs) return;
      this.#wakes.delete(shard);
      this.#wake(shard);
    });
  }

  #wake(shard: number): void {
    const replica = this.#replicas.get(shard);
    if (replica === undefined || replica.view === null || this.#closed) return;
    const { role } = replica;
    if (role.is === "primary") wakePrimary(replica, role);
    else if (role.is === "backup") wakeBackup(replica, role);
  }

  /** Removes what replicas that were dropped have left behind, a little at a time. */
  #sweepLater(): void {
    this.#host.clock.after(sweepEveryMs, () => {
      if (this.#closed) return;
      const isLive = (shard: number, incarnation: number) =>
        isLiveIncarnation(this.#replicas.get(shard)?.facts ?? emptyFacts(0), incarnation);
      this.#table.sweep(isLive, sweepStepRecords);
      this.#sweepLater();
    });
  }
}

/** Of a shard's records in the log. */
function orderOf(shard: number): number {
  return shard + 1;
}

function isIn(view: ShardView, brick: BrickNumber): boolean {
  return view.members.includes(brick) || view.candidates.includes(brick);
}

function originOf(entry: Entry) {
  const { branch, grain, firstSector, sequence } = entry;
  return { branch, grain, firstSector, sequence };
}

function notHere(malformed: boolean): MapReply {
  return { status: malformed ? "refused" : "not_now", view: 0, holders: [] };
}
