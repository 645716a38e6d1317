import { assert } from "../../brick/assert.ts";
import type { Prng } from "../../brick/prng.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { decodeConfiguration, emptyConfiguration, isVoter } from "./configuration.ts";
import { type Outbox, openOutbox } from "./outbox.ts";
import { type RaftLimits, type RaftTiming, raftLimits } from "./raft-limits.ts";
import { RaftLog } from "./raft-log.ts";
import type {
  Configuration,
  Entry,
  Healing,
  Hole,
  Loaded,
  RaftEffect,
  Snapshot,
} from "./raft-types.ts";

/**
 * One server of Raft. Plain data: the files beside this one, each with its concern, change it, and
 * only within step() of raft.ts.
 */
export interface Raft {
  readonly self: BrickNumber;
  readonly timing: RaftTiming;
  readonly limits: RaftLimits;
  readonly prng: Prng;
  /** The moment of the present step. */
  nowMs: number;
  /** The driver gives a `wake` event at this moment; Infinity when nothing is due. */
  wakeAtMs: number;

  term: number;
  votedFor: BrickNumber;
  role: Role;
  /** The leader of the present term; 0 while unknown. */
  leader: BrickNumber;
  readonly log: RaftLog;
  snapshot: Snapshot | null;
  commitIndex: number;
  /** Invariant: appliedIndex <= commitIndex. */
  appliedIndex: number;
  /** Configurations by the entries that brought them; the last one rules (thesis, section 4.1). */
  configurations: { index: number; configuration: Configuration }[];

  healing: Healing | null;
  /** Our log agrees with the present leader's up to here; 0 in a new term. */
  agreedIndex: number;

  electionDeadlineMs: number;
  /** When the present leader was last heard. */
  leaderHeardMs: number;
  repairAtMs: number;
  /** A snapshot that arrives in chunks. */
  incoming: IncomingSnapshot | null;

  readonly outbox: Outbox;
  /** What the present step has to say besides messages and work for the store. */
  effects: RaftEffect[];
  /** As last told by a roleChanged effect. */
  told: { leads: boolean; term: number; leader: BrickNumber };
}

/**
 *     follower --timeout--> preCandidate --majority would--> candidate --majority does--> leader
 *        ^________________________|______________________________|__________higher term______|
 *
 * A learner is a follower whom nobody asks and who never times out.
 */
export type Role =
  | { readonly name: "follower" }
  | { readonly name: "preCandidate"; readonly granted: Set<BrickNumber> }
  | { readonly name: "candidate"; readonly granted: Set<BrickNumber>; readonly transfer: boolean }
  | Leader;

export interface Leader {
  readonly name: "leader";
  readonly peers: Map<BrickNumber, Peer>;
  /** The first entry of this term; once it is committed, reads and changes may go on. */
  readonly firstIndex: number;
  heartbeatAtMs: number;
  /** Heartbeat rounds begun; the latest one that a majority answered. */
  round: number;
  confirmedRound: number;
  /** In order of their rounds. */
  reads: { readonly id: number; readonly round: number }[];
  transfer: { readonly to: BrickNumber; readonly untilMs: number } | null;
  /** Of entries proposed and not committed. */
  uncommittedBytes: number;
}

/**
 * A follower as its leader sees it. Invariant: matchIndex < nextIndex.
 *
 *     probe --accepted--> replicate --refused, or silent--> probe
 *       |__entries gone__> snapshot --installed--> probe
 */
export interface Peer {
  readonly brick: BrickNumber;
  /** Known to be durable there. */
  matchIndex: number;
  nextIndex: number;
  progress:
    | { readonly state: "probe"; waiting: boolean }
    | { readonly state: "replicate"; readonly inflight: number[] }
    | { readonly state: "snapshot"; readonly snapshot: Snapshot; offsetBytes: number };
  /** What is without answer then is sent again. */
  retryAtMs: number;
  /** The commit index it was last told. */
  sentCommitIndex: number;
  lastContactMs: number;
  ackedRound: number;
}

export interface IncomingSnapshot {
  readonly index: number;
  readonly term: number;
  readonly sizeBytes: number;
  readonly checksum: number;
  readonly chunks: Buffer[];
  receivedBytes: number;
}

export interface RaftOptions {
  readonly self: BrickNumber;
  readonly loaded: Loaded;
  readonly timing: RaftTiming;
  readonly limits?: Partial<RaftLimits>;
  readonly prng: Prng;
  readonly nowMs: number;
}

export function createRaft(options: RaftOptions): Raft {
  const { self, loaded, timing, prng, nowMs } = options;
  const { hardState, snapshot, entries } = loaded;
  const log = new RaftLog(snapshot?.index ?? 0, snapshot?.term ?? 0);
  const raft: Raft = {
    self,
    timing,
    limits: { ...raftLimits, ...options.limits },
    prng,
    nowMs,
    // At once: the first step says when it is really due.
    wakeAtMs: nowMs,
    term: hardState?.term ?? 0,
    votedFor: hardState?.votedFor ?? 0,
    role: { name: "follower" },
    leader: 0,
    log,
    snapshot,
    commitIndex: log.baseIndex,
    appliedIndex: log.baseIndex,
    configurations: [
      { index: log.baseIndex, configuration: snapshot?.configuration ?? emptyConfiguration },
    ],
    healing: hardState?.healing ?? null,
    agreedIndex: 0,
    electionDeadlineMs: 0,
    leaderHeardMs: Number.NEGATIVE_INFINITY,
    repairAtMs: nowMs,
    incoming: null,
    outbox: openOutbox(log.baseIndex + entries.length),
    effects: [],
    told: { leads: false, term: hardState?.term ?? 0, leader: 0 },
  };
  for (const entry of entries) appendToLog(raft, entry);
  assert(raft.log.lastTerm <= raft.term, "the term was made durable before its entries");
  resetElectionTimer(raft);
  const { voters } = configurationOf(raft);
  // Nobody else can lead, so that there is nobody to wait for.
  if (voters.length === 1 && voters[0] === self) raft.electionDeadlineMs = nowMs;
  return raft;
}

/** Appends in memory alone; whoever calls says whether the store must learn of it. */
export function appendToLog(raft: Raft, entry: Entry | Hole): void {
  raft.log.append(entry);
  if ("payload" in entry) noteConfiguration(raft, entry);
}

/** A configuration rules from the moment it is in the log, committed or not. */
export function noteConfiguration(raft: Raft, entry: Entry): void {
  if (entry.kind !== "configuration") return;
  const configuration = decodeConfiguration(entry.payload);
  assert(configuration !== null, "the store and the codec checked configurations");
  raft.configurations.push({ index: entry.index, configuration });
  raft.configurations.sort((a, b) => a.index - b.index);
}

export function configurationOf(raft: Raft): Configuration {
  return raft.configurations.at(-1)!.configuration;
}

/** The configuration that ruled when `index` was the last entry. */
export function configurationAt(raft: Raft, index: number): Configuration {
  return raft.configurations.findLast((one) => one.index <= index)!.configuration;
}

export function mayVote(raft: Raft): boolean {
  return raft.healing === null;
}

/**
 * Only a voter with all its wits stands for election. Thesis, section 4.2.2: one whose removal is
 * in its log and not known to be committed stands as well, for the log that has the removal may
 * be the only one that can win.
 */
export function mayStand(raft: Raft): boolean {
  if (raft.healing !== null || raft.log.holes.length > 0) return false;
  const ruling = raft.configurations.at(-1)!;
  const earlier = ruling.index > raft.commitIndex ? raft.configurations.at(-2) : undefined;
  const votes = isVoter(ruling.configuration, raft.self);
  return votes || (earlier !== undefined && isVoter(earlier.configuration, raft.self));
}

/** Raft section 5.2: random, so that split votes are rare; seeded, so that they can be replayed. */
export function resetElectionTimer(raft: Raft): void {
  const { electionTimeoutMsMin, electionTimeoutMsMax } = raft.timing;
  raft.electionDeadlineMs =
    raft.nowMs + raft.prng.between(electionTimeoutMsMin, electionTimeoutMsMax);
}
