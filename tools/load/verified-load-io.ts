import { setTimeout as sleep } from "node:timers/promises";
import { Prng } from "../../brick/prng.ts";
import { type CommandResult, Initiator, transferCdb } from "./initiator-io.ts";
import { SectorHistory } from "./sector-history.ts";
import { readTag, taggedSectorBytes, tagSectors } from "./sector-tags.ts";

/**
 * Random reads and writes of tagged sectors that remember what was acknowledged, go on through
 * broken connections and other portals, and check everything that is read, then and at the end.
 */

export interface LoadOptions {
  /** "HOST:PORT", tried in order and round again when a connection is lost. */
  portals: readonly string[];
  target: string;
  areaBytes: number;
  /** Where the area begins on the volume. */
  offsetBytes?: number;
  /** Pieces of the area lie this far apart on the volume, so that many map shards have some. */
  strideBytes?: number;
  depth: number;
  seed: number;
  /** At most; absent: as fast as they are answered. */
  commandsPerSecond?: number;
  /** Sizes of a command, picked evenly. */
  sizesBytes?: readonly number[];
  readShare?: number;
  lun?: number;
  /** After so long without a sign of life the load leaves a portal; absent: it waits. */
  silentMsMax?: number;
  /** What the area holds before the load: zeros are checked, too. */
  start?: "zeros" | "anything";
  log?: (line: string) => void;
}

export interface LoadReport {
  writes: number;
  reads: number;
  writtenBytes: number;
  /** Bytes that were read and compared with what may be there. */
  checkedBytes: number;
  /** Connections that broke, and log-ins that did not succeed. */
  disconnects: number;
  /** Commands that ended with a status other than GOOD, by status and sense. */
  refusals: Record<string, number>;
  /** The longest time in which no command succeeded although the load wanted some to. */
  longestPauseMs: number;
  /** The longest that one successful command took. */
  longestCommandMs: number;
  /** What was read and should not have been. */
  violations: string[];
}

const sizesDefault = [512, 1024, 4096, 4096, 4096, 8192, 16_384, 65_536, 131_072, 262_144];
/** What lies together when the area is spread; no command crosses its end. */
const pieceBytes = 512 * 1024;
const violationsMax = 20;
const reconnectPauseMs = 100;
const verifyBytes = 256 * 1024;
const verifyAttemptsMax = 300;

const goodStatus = 0;
const checkCondition = 2;

export class VerifiedLoad {
  readonly #options: LoadOptions;
  readonly #prng: Prng;
  readonly #run: number;
  readonly #history: SectorHistory;
  /** Sectors with a command under way. */
  readonly #busy: Uint8Array;
  readonly #firstSector: number;
  readonly report: LoadReport = {
    writes: 0,
    reads: 0,
    writtenBytes: 0,
    checkedBytes: 0,
    disconnects: 0,
    refusals: {},
    longestPauseMs: 0,
    longestCommandMs: 0,
    violations: [],
  };
  #portals: readonly string[];
  #portalNext = 0;
  #portal: string | null = null;
  #session: Initiator | null = null;
  #connecting: Promise<Initiator | null> | null = null;
  #writeNext = 1;
  #turnMs = 0;
  #succeededMs = 0;
  #stopping = false;
  #workers: Promise<void>[] = [];

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#portals = options.portals;
    this.#prng = new Prng(options.seed);
    this.#run = options.seed >>> 0;
    const sectors = options.areaBytes / taggedSectorBytes;
    this.#history = new SectorHistory(sectors, options.start);
    this.#busy = new Uint8Array(sectors);
    this.#firstSector = (options.offsetBytes ?? 0) / taggedSectorBytes;
  }

  start(): void {
    this.#stopping = false;
    this.#succeededMs = performance.now();
    this.#workers = Array.from({ length: this.#options.depth }, () => this.#work());
  }

  /** The longest pause and command since this was asked last, and what is going on now. */
  takePauseMs(): number {
    const { report } = this;
    const presentMs = performance.now() - this.#succeededMs;
    const pauseMs = Math.max(report.longestPauseMs, report.longestCommandMs, presentMs);
    report.longestPauseMs = 0;
    report.longestCommandMs = 0;
    return pauseMs;
  }

  /** The portal of the present session, or null. */
  get portal(): string | null {
    return this.#session?.isLost === false ? this.#portal : null;
  }

  /** Lets what is under way end, and stops. */
  async stop(): Promise<LoadReport> {
    this.#stopping = true;
    await Promise.all(this.#workers);
    this.#session?.destroy();
    this.#session = null;
    return this.report;
  }

  /** From the next log-in on; `drop` breaks the present connection. */
  usePortals(portals: readonly string[], options?: { drop: boolean }): void {
    this.#portals = portals;
    this.#portalNext = 0;
    if (options?.drop) this.#session?.destroy();
  }

  /** Resolves when that many more commands have ended. */
  async progress(commands: number, waitMsMax: number): Promise<boolean> {
    const goal = this.report.reads + this.report.writes + commands;
    const until = performance.now() + waitMsMax;
    while (this.report.reads + this.report.writes < goal) {
      if (performance.now() > until) return false;
      await sleep(20);
    }
    return true;
  }

  async #work(): Promise<void> {
    while (!this.#stopping) {
      await this.#turn();
      const session = await this.#connected();
      // Nobody lets us in, or not for long.
      if (session === null || session.isLost) {
        await sleep(reconnectPauseMs);
        continue;
      }
      const range = this.#pickRange();
      if (range === null) {
        await sleep(1);
        continue;
      }
      const [first, count] = range;
      this.#busy.fill(1, first, first + count);
      try {
        if (this.#prng.chance(this.#options.readShare ?? 0.3)) {
          await this.#read(session, first, count);
        } else {
          await this.#write(session, first, count);
        }
      } finally {
        this.#busy.fill(0, first, first + count);
      }
    }
  }

  /** Until the next command may begin; turns that nobody took are not caught up on. */
  async #turn(): Promise<void> {
    const { commandsPerSecond } = this.#options;
    if (commandsPerSecond === undefined) return;
    const nowMs = performance.now();
    this.#turnMs = Math.max(nowMs, this.#turnMs + 1000 / commandsPerSecond);
    if (this.#turnMs > nowMs) await sleep(this.#turnMs - nowMs);
  }

  /** The session, made anew when it was lost; null when nobody lets us in now. */
  async #connected(): Promise<Initiator | null> {
    if (this.#session !== null && !this.#session.isLost) return this.#session;
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = null;
    });
    return this.#connecting;
  }

  async #connect(): Promise<Initiator | null> {
    if (this.#session !== null) this.report.disconnects += 1;
    this.#session = null;
    const address = this.#portals[this.#portalNext++ % this.#portals.length]!;
    const colon = address.lastIndexOf(":");
    try {
      const session = await Initiator.connect({
        host: address.slice(0, colon),
        port: Number(address.slice(colon + 1)),
        target: this.#options.target,
        isid: this.#options.seed,
        lun: this.#options.lun ?? 0,
        ...(this.#options.silentMsMax !== undefined && {
          silentMsMax: this.#options.silentMsMax,
          loginMsMax: this.#options.silentMsMax,
        }),
      });
      this.#session = session;
      this.#portal = address;
      return session;
    } catch (error) {
      this.#options.log?.(`load: ${(error as Error).message}`);
      return null;
    }
  }

  #pickRange(): [number, number] | null {
    const size = this.#prng.pick(this.#options.sizesBytes ?? sizesDefault) / taggedSectorBytes;
    for (let attempt = 0; attempt < 16; attempt += 1) {
      const first = this.#prng.between(0, this.#history.sectors - size);
      if (this.#crossesPiece(first, size)) continue;
      if (!this.#busy.subarray(first, first + size).includes(1)) return [first, size];
    }
    return null;
  }

  #crossesPiece(first: number, count: number): boolean {
    if (this.#options.strideBytes === undefined) return false;
    const sectors = pieceBytes / taggedSectorBytes;
    return Math.floor(first / sectors) !== Math.floor((first + count - 1) / sectors);
  }

  /** Where a sector of the area lies on the volume. */
  #offsetOf(sector: number): number {
    const at = sector * taggedSectorBytes;
    const { offsetBytes = 0, strideBytes = pieceBytes } = this.#options;
    return offsetBytes + Math.floor(at / pieceBytes) * strideBytes + (at % pieceBytes);
  }

  async #write(session: Initiator, first: number, count: number): Promise<void> {
    const write = this.#writeNext++;
    const data = Buffer.allocUnsafe(count * taggedSectorBytes);
    tagSectors(data, this.#run, write, this.#firstSector + first);
    const result = await this.#command(session, "write", first, count, data);
    if (result?.status === goodStatus) {
      this.#history.acknowledged(first, count, write);
      this.report.writes += 1;
      this.report.writtenBytes += data.length;
    } else {
      this.#history.unanswered(first, count, write);
    }
  }

  async #read(session: Initiator, first: number, count: number): Promise<void> {
    const result = await this.#command(session, "read", first, count);
    if (result?.status !== goodStatus) return;
    this.report.reads += 1;
    this.#check(first, result.data);
  }

  #check(first: number, data: Buffer): void {
    this.report.checkedBytes += data.length;
    for (let at = 0; at < data.length; at += taggedSectorBytes) {
      const sector = first + at / taggedSectorBytes;
      const found = readTag(data, at, this.#run, this.#firstSector + sector);
      const violation = this.#history.observed(sector, found);
      if (violation !== null && this.report.violations.length < violationsMax) {
        this.report.violations.push(violation);
      }
    }
  }

  /** null when the connection was lost on the way. */
  async #command(
    session: Initiator,
    operation: "read" | "write",
    first: number,
    count: number,
    data?: Buffer,
  ): Promise<CommandResult | null> {
    const bytes = count * taggedSectorBytes;
    const offset = this.#offsetOf(first);
    const startedMs = performance.now();
    try {
      const result = await session.command(
        transferCdb(operation, offset, bytes),
        data === undefined ? { readBytes: bytes } : { write: data },
      );
      if (result.status === goodStatus) this.#succeeded(startedMs);
      else this.#refused(result);
      return result;
    } catch {
      return null;
    }
  }

  #succeeded(startedMs: number): void {
    const nowMs = performance.now();
    const { report } = this;
    report.longestPauseMs = Math.max(report.longestPauseMs, nowMs - this.#succeededMs);
    report.longestCommandMs = Math.max(report.longestCommandMs, nowMs - startedMs);
    this.#succeededMs = nowMs;
  }

  #refused(result: CommandResult): void {
    // A unit attention greets a new session; it is not a refusal.
    if (result.status === checkCondition && result.sense.startsWith("6/")) return;
    const name =
      result.status === checkCondition ? `sense ${result.sense}` : `status ${result.status}`;
    this.report.refusals[name] = (this.report.refusals[name] ?? 0) + 1;
  }

  /** Reads the whole area through one portal; every sector is checked. Returns what is wrong. */
  async verify(portal: string): Promise<string[]> {
    this.usePortals([portal], { drop: true });
    this.#succeededMs = performance.now();
    const step = verifyBytes / taggedSectorBytes;
    for (let first = 0; first < this.#history.sectors; first += step) {
      await this.#verifyRange(first, Math.min(step, this.#history.sectors - first));
    }
    this.#session?.destroy();
    this.#session = null;
    return this.report.violations;
  }

  async #verifyRange(first: number, count: number): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      const session = await this.#connected();
      const result = session && (await this.#command(session, "read", first, count));
      if (result?.status === goodStatus) {
        this.#check(first, result.data);
        return;
      }
      if (attempt >= verifyAttemptsMax) {
        this.report.violations.push(`sectors ${first} to ${first + count - 1} cannot be read`);
        return;
      }
      await sleep(reconnectPauseMs);
    }
  }

  get writtenSectors(): number {
    return this.#history.written();
  }
}
