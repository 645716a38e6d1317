import type { GrainKey } from "../map/map-table-keys.ts";
import type { RepairTask } from "./repair-plan.ts";

/** A walk that could not do everything begins anew after this. */
export const retryMs = 2000;
/** The same, when there was nothing that it could try. */
export const stuckRetryMs = 30_000;

/** Work with equally many copies left; bytes that are to be copied. */
interface Shortage {
  extents: number;
  bytes: number;
}

/**
 * The walks of one shard, in turn: a survey copies nothing and finds out what is short of copies, and
 * how many each such chunk has left; a mending walk copies those with the fewest left; then the next
 * survey, until one finds nothing. So what one more loss would lose is never behind what two would.
 */
export class RepairWalk {
  /** For which bricks that leave, and which view, the shard was found to be in order; "": never. */
  clean = "";
  /** What the walk under way is for. */
  purpose = "";
  /** Where it goes on. */
  after: GrainKey | null = null;
  resumeAtMs = 0;
  /** A mending walk copies what has no more copies left than this; null: it is a survey. */
  livingMax: number | null = null;
  /** As the last survey found, less what was copied since: by copies left. */
  #short = new Map<number, Shortage>();
  /** Extents for which nothing can be done until more bricks are up, or less full. */
  #stuck = 0;
  /** What the survey under way has found so far. */
  #found = new Map<number, Shortage>();
  #foundStuck = 0;
  /** Committed short since the survey began, which may have passed their grains. */
  #missed = 0;
  /** The mending walk could not copy something. */
  #failed = false;

  /** Begins anew when it is for something else than what is the case. */
  aim(purpose: string): void {
    if (this.purpose === purpose) return;
    this.purpose = purpose;
    this.resumeAtMs = 0;
    this.#beginSurvey();
  }

  /** The smaller, the sooner: what is short must be known before it is known what is most urgent. */
  get urgency(): number {
    return this.livingMax ?? -1;
  }

  isDue(nowMs: number): boolean {
    return this.clean !== this.purpose && this.resumeAtMs <= nowMs;
  }

  /** Extents short of copies as far as is known, the stuck ones among them. */
  get left(): number {
    let extents = this.#stuck + this.#missed;
    for (const shortage of this.#short.values()) extents += shortage.extents;
    return extents;
  }

  get stuck(): number {
    return this.#stuck;
  }

  get leftBytes(): number {
    let bytes = 0;
    for (const shortage of this.#short.values()) bytes += shortage.bytes;
    return bytes;
  }

  /** Some entry has committed with too few copies. */
  committedShort(): void {
    this.clean = "";
    this.#missed += 1;
  }

  /** The first page is looked at now. */
  begins(): void {
    if (this.livingMax !== null) return;
    this.#found = new Map();
    this.#foundStuck = 0;
    this.#missed = 0;
  }

  /** A survey has met this. */
  found(task: RepairTask | "stuck"): void {
    if (task === "stuck") this.#foundStuck += 1;
    else add(this.#found, task, 1);
  }

  /** A mending walk has carried it out, or could not. */
  mended(task: RepairTask, done: boolean): void {
    if (done) add(this.#short, task, -1);
    else this.#failed = true;
  }

  /** The walk has come to the end of the shard. */
  ended(nowMs: number): void {
    if (this.livingMax !== null) {
      // Others may have begun to be short, or ended; the next survey tells.
      this.resumeAtMs = this.#failed ? nowMs + retryMs : nowMs;
      this.#beginSurvey();
      return;
    }
    this.#short = this.#found;
    this.#stuck = this.#foundStuck;
    if (this.#short.size > 0) {
      this.livingMax = Math.min(...this.#short.keys());
      this.#failed = false;
      this.after = null;
      return;
    }
    if (this.#stuck === 0 && this.#missed === 0) this.clean = this.purpose;
    this.resumeAtMs = nowMs + (this.#missed > 0 ? retryMs : stuckRetryMs);
    this.#beginSurvey();
  }

  #beginSurvey(): void {
    this.after = null;
    this.livingMax = null;
  }
}

function add(to: Map<number, Shortage>, task: RepairTask, times: 1 | -1): void {
  const shortage = to.get(task.living) ?? { extents: 0, bytes: 0 };
  shortage.extents = Math.max(0, shortage.extents + times);
  shortage.bytes = Math.max(0, shortage.bytes + times * task.targets.length * task.chunkBytes);
  if (shortage.extents === 0) to.delete(task.living);
  else to.set(task.living, shortage);
}
