import type { ClusterState } from "../brick/cluster-state.ts";
import { type LevelRange, levelOf } from "../brick/feature-level.ts";
import type { Host, TimerHandle } from "../brick/host.ts";
import type { BrickNumber } from "../brick/units.ts";
import { apply } from "./cluster-machine.ts";
import type { CommandResult } from "./command-result.ts";
import type { Command, CommandOf } from "./commands.ts";
import { planGc } from "./gc-planner.ts";
import { grownBricks } from "./growth.ts";
import type { Keepalive, KeepaliveAnswer } from "./keepalive.ts";
import { levelCommand } from "./levels.ts";
import {
  arrivalCommand,
  awaitsWitness,
  beginBook,
  damageCommands,
  garbageReports,
  grant,
  hasLongBeenCalm,
  hear,
  heardBricks,
  isTimeWorthNoting,
  type LeaderBook,
  landed,
  type MembershipTiming,
  markedShards,
  mayGrant,
  membershipCommands,
  shardReports,
  standingVolumes,
  strangeness,
  strangerCode,
} from "./membership.ts";
import type { RaftPort } from "./raft-port.ts";
import type { Recoveries } from "./recovery-io.ts";
import { type PlannedChange, planViews } from "./view-planner.ts";
import { begunDeletions } from "./volume-commands.ts";
import { planVoters, voterCommands } from "./voters.ts";

const checkEveryMs = 100;
/** Without news the plans are gone over this often: some steps become due by time alone. */
const reviewEveryMs = 1000;
/** Views changed in one round of planning; the rest follow in the next. */
const changesMax = 64;
/** Keepalives that wait for the same quorum round; more are dropped, and come again. */
const askersMax = 4096;

interface LeaderParts {
  host: Host;
  /** This brick and its start. */
  self: { readonly brick: BrickNumber; readonly boot: number };
  timing: MembershipTiming;
  /** Feature levels that this brick itself knows. */
  levels: LevelRange;
  raft(): RaftPort;
  state(): ClusterState;
  decide(command: Command): Promise<CommandResult>;
  recoveries: Recoveries;
  /** Makes the first state, when this brick leads a cluster that has none. */
  found(): Command;
}

interface Reviewed {
  readonly state: ClusterState | null;
  readonly newsCount: number;
  /** The bricks heard of late. */
  readonly heard: string;
  readonly atMs: number;
}

interface Asker {
  from: BrickNumber;
  keepalive: Keepalive;
  answer(answer: KeepaliveAnswer): void;
}

/** One term as the Raft leader: grants leases, notes who comes and goes, and has views changed. */
export class Leadership {
  readonly #parts: LeaderParts;
  readonly #book: LeaderBook;
  /** The cluster's time when this brick's clock was `fromMs`; null before the first quorum round. */
  #clusterTime: { atMs: number; fromMs: number } | null = null;
  #askers: Asker[] = [];
  #asking = false;
  /** Bricks whose arrival is being committed. */
  readonly #arriving = new Set<BrickNumber>();
  #planning = false;
  #planAgain = false;
  #changingVoters = false;
  /** What the last review of all plans went by. */
  #reviewed: Reviewed = { state: null, newsCount: 0, heard: "", atMs: 0 };
  /** The last plan had steps to take: they may have failed. */
  #unfinished = false;
  /** Views that their primaries should give up, by shard. */
  #releases = new Map<number, { view: number; primary: BrickNumber }>();
  #timer: TimerHandle | null = null;
  #ended = false;

  constructor(parts: LeaderParts) {
    this.#parts = parts;
    this.#book = beginBook(parts.timing, parts.host.clock.nowMs(), parts.self);
  }

  async begin(): Promise<void> {
    // Nothing is decided before everything that was committed under others has been applied.
    while (!(await this.#parts.raft().readBarrier()).ok) {
      if (this.#ended) return;
      await new Promise<void>((done) => void this.#parts.host.clock.after(checkEveryMs, done));
    }
    if (this.#ended) return;
    if (this.#parts.state().version === 0) await this.#parts.decide(this.#parts.found());
    const atMs = this.#parts.state().clusterTimeMs;
    this.#clusterTime = { atMs, fromMs: this.#parts.host.clock.nowMs() };
    // That it leads becomes known by its first command, if there is nothing else to decide.
    this.#parts.decide({ type: "advanceTime", toMs: this.timeMs() });
    this.#check();
  }

  end(): void {
    this.#ended = true;
    this.#timer?.cancel();
    for (const { answer } of this.#askers) answer({ type: "elsewhere", leader: 0 });
    this.#askers = [];
  }

  /** The cluster's time by this leader's clock; 0 while it does not know it. */
  timeMs(): number {
    if (this.#clusterTime === null || this.#ended) return 0;
    const { atMs, fromMs } = this.#clusterTime;
    return Math.floor(atMs + this.#parts.host.clock.nowMs() - fromMs);
  }

  /** The state has changed, or something was reported: there may be something to do. */
  wake(): void {
    if (this.#ended || this.#clusterTime === null) return;
    this.#planAgain = true;
    if (this.#planning) return;
    this.#planning = true;
    this.#parts.host.clock.soon(() => {
      this.#plan().finally(() => {
        this.#planning = false;
      });
    });
  }

  async keepalive(
    from: BrickNumber,
    keepalive: Keepalive,
    answer: (answer: KeepaliveAnswer) => void,
  ): Promise<void> {
    if (this.#ended || this.#clusterTime === null) return answer({ type: "elsewhere", leader: 0 });
    const strange = strangeness(this.#parts.state(), from, keepalive);
    if (strange !== null) {
      return answer(refusal(strangerCode(this.#parts.state(), from, keepalive), strange));
    }
    const { newsCount } = this.#book;
    if (!hear(this.#book, from, keepalive, this.#parts.host.clock.nowMs())) return;
    const arrival = arrivalCommand(this.#book, this.#parts.state(), from, keepalive);
    if (arrival !== null) {
      const fault = await this.#arrive(from, arrival);
      if (fault !== null) return answer(fault);
    } else if (this.#book.newsCount !== newsCount) this.wake();
    if (this.#askers.length >= askersMax) return;
    this.#askers.push({ from, keepalive, answer });
    this.#ask();
  }

  async #arrive(from: BrickNumber, command: Command): Promise<KeepaliveAnswer | null> {
    const nowMs = this.#parts.host.clock.nowMs();
    const starts = command.type === "announceBrick";
    if (starts && awaitsWitness(this.#book, this.#parts.state(), nowMs)) {
      return refusal("coming_up", "bricks that ran before are to be heard first");
    }
    if (this.#book.falling.has(from) || this.#arriving.has(from)) {
      return refusal("coming_up", "the brick's return is being noted");
    }
    const { result: foreseen } = apply(this.#parts.state(), command);
    if (!foreseen.ok) return refusal(foreseen.fault.code, foreseen.fault.message);
    this.#arriving.add(from);
    const result = await this.#parts.decide(command);
    this.#arriving.delete(from);
    return result.ok ? null : refusal(result.fault.code, result.fault.message);
  }

  /** Answers all who ask by one quorum round that begins after they asked. */
  #ask(): void {
    if (this.#asking) return;
    this.#asking = true;
    this.#parts.host.clock.soon(async () => {
      while (this.#askers.length > 0 && !this.#ended) {
        const askers = this.#askers;
        this.#askers = [];
        const { ok } = await this.#parts.raft().readBarrier();
        for (const { from, keepalive, answer } of askers) {
          answer(this.#answerTo(from, keepalive, ok && !this.#ended));
        }
      }
      this.#asking = false;
    });
  }

  #answerTo(from: BrickNumber, keepalive: Keepalive, confirmed: boolean): KeepaliveAnswer {
    if (!confirmed) return { type: "elsewhere", leader: 0 };
    const state = this.#parts.state();
    const { boot, sentMs } = keepalive;
    if (!mayGrant(this.#book, state, from, boot)) {
      return refusal("coming_up", "the brick is not up under this boot");
    }
    grant(this.#book, from, this.#parts.host.clock.nowMs());
    const release = [...this.#releases]
      .filter(([, one]) => one.primary === from)
      .map(([shard, { view }]) => ({ shard, view }));
    const { leaseMs } = this.#parts.timing;
    return { type: "lease", sentMs, boot, leaseMs, stateVersion: state.version, release };
  }

  #check(): void {
    if (this.#ended) return;
    const { host } = this.#parts;
    this.#timer = host.clock.after(checkEveryMs, () => this.#check());
    const state = this.#parts.state();
    const commands = membershipCommands(this.#book, state, this.timeMs(), host.clock.nowMs());
    for (const command of commands) {
      if (command.type === "brickDown") this.#fell(command);
      else this.#decideIfItHolds(command);
    }
    if (this.#isReviewDue(state)) this.#review(state);
    this.#changeVoters();
  }

  /** Whether anything has come up since the last review, or some step may be due by time alone. */
  #isReviewDue(state: ClusterState): boolean {
    const { host } = this.#parts;
    const nowMs = host.clock.nowMs();
    const heard = [...heardBricks(this.#book, state, nowMs)].join();
    const { newsCount } = this.#book;
    const last = this.#reviewed;
    const same = last.state === state && last.newsCount === newsCount && last.heard === heard;
    if (same && !this.#unfinished && nowMs - last.atMs < reviewEveryMs) return false;
    this.#reviewed = { state, newsCount, heard, atMs: nowMs };
    return true;
  }

  #review(state: ClusterState): void {
    for (const command of damageCommands(this.#book, state)) this.#decideIfItHolds(command);
    for (const { number } of grownBricks(state)) {
      this.#decideIfItHolds({ type: "brickGrown", number });
    }
    for (const command of begunDeletions(state)) this.#decideIfItHolds(command);
    const gc = planGc(state, {
      nowMs: this.timeMs(),
      timing: this.#parts.timing,
      marked: markedShards(this.#book, state),
      garbage: garbageReports(this.#book, state),
    });
    if (gc !== null) this.#decideIfItHolds(gc);
    const level =
      this.#parts.levels.newest > levelOf(state) ? levelCommand(this.#book, state) : null;
    if (level !== null) this.#decideIfItHolds(level);
    const toMs = this.timeMs();
    if (isTimeWorthNoting(state, toMs)) this.#decideIfItHolds({ type: "advanceTime", toMs });
    this.wake();
  }

  /**
   * Nothing is granted to the brick before it is certain what became of the command: an entry that
   * is still under way could take effect right after a grant.
   */
  async #fell(command: CommandOf<"brickDown">): Promise<void> {
    while (!this.#ended) {
      const result = await this.#parts.decide(command);
      if (result.ok || result.fault.code !== "unavailable") break;
      await new Promise<void>((done) => void this.#parts.host.clock.after(checkEveryMs, done));
    }
    landed(this.#book, command.number);
  }

  async #plan(): Promise<void> {
    while (this.#planAgain && !this.#ended) {
      this.#planAgain = false;
      const state = this.#parts.state();
      const changes = planViews(state, {
        nowMs: this.timeMs(),
        transferAfterMs: this.#parts.timing.transferAfterMs,
        heard: heardBricks(this.#book, state, this.#parts.host.clock.nowMs()),
        reports: shardReports(this.#book, state),
        standing: standingVolumes(this.#book, state, this.#parts.host.clock.nowMs()),
        calm: hasLongBeenCalm(this.#book, state, this.#parts.host.clock.nowMs()),
      });
      this.#unfinished = changes.length > 0;
      this.#releases = new Map();
      const steps: Promise<boolean>[] = [];
      for (const change of changes) {
        if (steps.length < changesMax) steps.push(this.#carryOut(change));
      }
      const done = await Promise.all(steps);
      if (done.includes(true)) this.#planAgain = true;
    }
  }

  /** Whether the state has changed by it. */
  async #carryOut(change: PlannedChange): Promise<boolean> {
    if (change.type === "release") {
      this.#releases.set(change.shard, { view: change.view, primary: change.primary });
      return false;
    }
    if (change.type === "recover") {
      this.#parts.recoveries.begin(change.shard, change.view, change.bricks);
      return false;
    }
    return this.#decideIfItHolds(change);
  }

  /** Does not burden the log with what would be refused. */
  async #decideIfItHolds(command: Command): Promise<boolean> {
    if (!apply(this.#parts.state(), command).result.ok) return false;
    return (await this.#parts.decide(command)).ok;
  }

  async #changeVoters(): Promise<void> {
    if (this.#changingVoters) return;
    this.#changingVoters = true;
    const raft = this.#parts.raft();
    const change = planVoters(this.#parts.state(), raft.members());
    if (change?.type === "demote" && change.brick === this.#parts.self.brick) {
      const to = raft.members().voters.find((one) => one !== change.brick);
      if (to !== undefined) raft.transferLeadership(to);
    } else if (change !== null) await raft.change(change);
    for (const command of voterCommands(this.#parts.state(), raft.members())) {
      if (!this.#ended) await this.#decideIfItHolds(command);
    }
    this.#changingVoters = false;
  }
}

function refusal(code: string, message: string): KeepaliveAnswer {
  return { type: "refused", code, message };
}
