import { setTimeout as sleep } from "node:timers/promises";
import { Prng } from "../../brick/prng.ts";
import {
  type CounterContent,
  CounterHistory,
  counterBytes,
  decodeCounter,
  encodeCounter,
  type Outcome,
} from "./counter-history.ts";
import { type CommandResult, Initiator, transferCdb } from "./initiator-io.ts";

/**
 * Sessions that count sectors up with COMPARE AND WRITE, as cluster file systems take locks and
 * write heartbeats: some sectors belong to one worker, the others are fought for by all.
 */

export interface StormOptions {
  /** One session each, "HOST:PORT"; may repeat. A session that is lost goes on through the next. */
  portals: readonly string[];
  target: string;
  workersPerSession: number;
  /** Sectors that all workers count up; each has one of its own besides. */
  sharedSectors: number;
  seed: number;
}

export interface StormReport {
  written: number;
  miscompared: number;
  unknown: number;
  disconnects: number;
  /** Answers that are neither GOOD nor a miscompare, by status and sense. */
  refusals: Record<string, number>;
}

const reconnectPauseMs = 50;
/** A session that owes an answer for longer is given up. */
const answerMsMax = 30_000;
const attemptsMax = 600;
const goodStatus = 0;
const checkCondition = 2;

interface Member {
  portalAt: number;
  session: Initiator | null;
  connecting: Promise<Initiator | null> | null;
}

export class CounterStorm {
  readonly #options: StormOptions;
  readonly #prng: Prng;
  readonly #histories: CounterHistory[];
  readonly #members: Member[];
  readonly report: StormReport = {
    written: 0,
    miscompared: 0,
    unknown: 0,
    disconnects: 0,
    refusals: {},
  };
  readonly torn: string[] = [];
  #markNext = 1;
  #stopping = false;
  #workers: Promise<void>[] = [];

  constructor(options: StormOptions) {
    this.#options = options;
    this.#prng = new Prng(options.seed);
    const workers = options.portals.length * options.workersPerSession;
    this.#histories = Array.from(
      { length: options.sharedSectors + workers },
      () => new CounterHistory(),
    );
    this.#members = options.portals.map((_, portalAt) => ({
      portalAt,
      session: null,
      connecting: null,
    }));
  }

  start(): void {
    const { workersPerSession, sharedSectors } = this.#options;
    this.#workers = this.#members.flatMap((member, at) =>
      Array.from({ length: workersPerSession }, (_, index) =>
        this.#work(member, sharedSectors + at * workersPerSession + index),
      ),
    );
  }

  async stop(): Promise<StormReport> {
    this.#stopping = true;
    await Promise.all(this.#workers);
    for (const member of this.#members) member.session?.destroy();
    return this.report;
  }

  /** Resolves when that many more updates were written. */
  async progress(updates: number, waitMsMax: number): Promise<boolean> {
    const goal = this.report.written + updates;
    const until = performance.now() + waitMsMax;
    while (this.report.written < goal) {
      if (performance.now() > until) return false;
      await sleep(20);
    }
    return true;
  }

  /** Reads every sector once more, at one portal, and says what was wrong in all that happened. */
  async violations(portal: string): Promise<string[]> {
    const member: Member = {
      portalAt: this.#options.portals.indexOf(portal),
      session: null,
      connecting: null,
    };
    const found = [...this.torn];
    for (const [sector, history] of this.#histories.entries()) {
      const last = await this.#read(member, sector);
      if (last === null) found.push(`sector ${sector} cannot be read`);
      else found.push(...history.violations(last).map((text) => `sector ${sector}: ${text}`));
    }
    member.session?.destroy();
    return found;
  }

  async #work(member: Member, ownSector: number): Promise<void> {
    while (!this.#stopping) {
      const shared = this.#prng.chance(0.5);
      const sector = shared ? this.#prng.between(0, this.#options.sharedSectors - 1) : ownSector;
      const content = await this.#read(member, sector);
      if (content !== null) await this.#countUp(member, sector, content);
    }
  }

  async #read(member: Member, sector: number): Promise<CounterContent | null> {
    for (let attempt = 1; attempt <= attemptsMax; attempt += 1) {
      const cdb = transferCdb("read", sector * counterBytes, counterBytes);
      const result = await this.#command(member, cdb, { readBytes: counterBytes });
      if (result?.status === goodStatus) return this.#observed(sector, result.data);
      if (result !== null) this.#refused(result);
      await sleep(reconnectPauseMs);
    }
    return null;
  }

  #observed(sector: number, data: Buffer): CounterContent | null {
    const content = decodeCounter(data);
    if (content === null) this.torn.push(`sector ${sector} holds ${data.toString("hex", 0, 32)}`);
    else this.#histories[sector]!.read(content);
    return content;
  }

  /** Tries until the outcome is known, or all is to end; what nobody answered is sent again with the same mark. */
  async #countUp(member: Member, sector: number, from: CounterContent): Promise<void> {
    const mark = this.#markNext++;
    const write = Buffer.concat([
      encodeCounter(from),
      encodeCounter({ value: from.value + 1, mark }),
    ]);
    for (let attempt = 1; attempt <= attemptsMax; attempt += 1) {
      const ended = this.#histories[sector]!.begin(from.value, mark);
      const result = await this.#command(member, compareAndWriteCdb(sector), { write });
      const outcome = outcomeOf(result);
      ended(outcome);
      this.report[outcome] += 1;
      if (outcome !== "unknown" || this.#stopping) return;
      if (result !== null) this.#refused(result);
      await sleep(reconnectPauseMs);
    }
  }

  /** null when there is no session, or it was lost on the way. */
  async #command(
    member: Member,
    cdb: Buffer,
    transfer: { readBytes?: number; write?: Buffer },
  ): Promise<CommandResult | null> {
    const session = await this.#connected(member);
    if (session === null) return null;
    const timer = setTimeout(() => session.destroy(), answerMsMax);
    try {
      return await session.command(cdb, transfer);
    } catch {
      return null;
    } finally {
      clearTimeout(timer);
    }
  }

  async #connected(member: Member): Promise<Initiator | null> {
    if (member.session !== null && !member.session.isLost) return member.session;
    member.connecting ??= this.#connect(member).finally(() => {
      member.connecting = null;
    });
    return member.connecting;
  }

  async #connect(member: Member): Promise<Initiator | null> {
    if (member.session !== null) {
      this.report.disconnects += 1;
      member.portalAt += 1;
    }
    member.session = null;
    const { portals, target } = this.#options;
    const address = portals[member.portalAt % portals.length]!;
    const colon = address.lastIndexOf(":");
    try {
      const at = { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
      member.session = await Initiator.connect({ ...at, target, isid: this.#prng.uint32() });
    } catch {
      member.portalAt += 1;
    }
    return member.session;
  }

  #refused(result: CommandResult): void {
    // A unit attention greets a new session; it is not a refusal.
    if (result.status === checkCondition && result.sense.startsWith("6/")) return;
    const name =
      result.status === checkCondition ? `sense ${result.sense}` : `status ${result.status}`;
    this.report.refusals[name] = (this.report.refusals[name] ?? 0) + 1;
  }
}

/** SBC-4 §5.4: one block, compared and then written. */
function compareAndWriteCdb(sector: number): Buffer {
  const cdb = Buffer.alloc(16);
  cdb[0] = 0x89;
  cdb.writeBigUInt64BE(BigInt(sector), 2);
  cdb[13] = 1;
  return cdb;
}

/** Whatever is neither GOOD nor 0E/1D/00 leaves it open whether the block was written. */
function outcomeOf(result: CommandResult | null): Outcome {
  if (result?.status === goodStatus) return "written";
  if (result?.status === checkCondition && result.sense === "e/1d/00") return "miscompared";
  return "unknown";
}
