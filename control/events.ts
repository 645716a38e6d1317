import { counted } from "./counted-text.ts";

/**
 * The event log: what an operator would want to have seen, newest last. It is kept beside the
 * cluster state and replicated with it, so that every brick tells the same and a restart forgets
 * nothing. Nothing decides by it.
 */
export interface EventLog {
  /** The sequence of the next event; the first is 1. */
  readonly next: number;
  readonly records: readonly EventRecord[];
}

/** `info`: somebody's doing, or all is well again. `warning`: look. `critical`: service is hurt. */
export const severities = ["info", "warning", "critical"] as const;
export type Severity = (typeof severities)[number];

export interface EventRecord {
  /** Counts up without gaps that matter: an event that gathers more of its like is numbered anew. */
  readonly sequence: number;
  /** The cluster's time and the leader's wall clock when it began; wall time 0: unknown. */
  readonly clusterMs: number;
  readonly wallMs: number;
  readonly severity: Severity;
  /** For programs: `brick_down`, `volume_created`, ... (control/event-rules.ts). */
  readonly kind: string;
  /** "brick 2", "volume disk0", "cluster". */
  readonly subject: string;
  /** For people. Of an event that gathers its like, what is said after their number. */
  readonly text: string;
  /** How many it gathers, and of what ("map shard"); absent: it is one of its own. */
  readonly gathered?: { readonly count: number; readonly noun: string };
}

/** An event that is to be recorded. */
export type EventDraft = Omit<EventRecord, "sequence" | "clusterMs" | "wallMs">;

/** When it happened, as the leader that decided it knew. */
export interface EventStamp {
  readonly clusterMs: number;
  readonly wallMs: number;
}

/** The oldest make room. About 100 KiB of every snapshot of the cluster state. */
export const eventsMax = 512;
export const eventTextMax = 400;
/** Changes of the same kind, subject and text are one event when they begin within this. */
const gatherMs = 10_000;
/** Of the newest, how many are looked at for one that gathers another. */
const gatherAmongMax = 32;

export const emptyEventLog: EventLog = { next: 1, records: [] };

/** The log with these events at its end. */
export function withEvents(
  log: EventLog,
  drafts: readonly EventDraft[],
  stamp: EventStamp,
): EventLog {
  if (drafts.length === 0) return log;
  const records = [...log.records];
  let { next } = log;
  for (const draft of drafts) {
    const record = { sequence: next, ...stamp, ...draft, text: clipped(draft.text) };
    const like = draft.gathered === undefined ? -1 : gathererOf(records, record);
    if (like >= 0) {
      const [known] = records.splice(like, 1);
      const { clusterMs, wallMs, gathered } = known!;
      const count = gathered!.count + draft.gathered!.count;
      const sum = { count, noun: draft.gathered!.noun };
      records.push({ ...record, clusterMs, wallMs, gathered: sum });
    } else records.push(record);
    next += 1;
  }
  return { next, records: records.slice(-eventsMax) };
}

/** Events after a sequence, oldest first. */
export function eventsSince(log: EventLog, since: number): readonly EventRecord[] {
  return log.records.filter(({ sequence }) => sequence > since);
}

/** The whole sentence: "17 map shards led by brick 3 now, because brick 2 is down". */
export function eventText({ text, gathered }: EventRecord): string {
  if (gathered === undefined) return text;
  return `${counted(gathered.count, gathered.noun)} ${text}`;
}

function gathererOf(records: readonly EventRecord[], record: EventRecord): number {
  const from = Math.max(0, records.length - gatherAmongMax);
  return records.findIndex(
    (one, at) =>
      at >= from &&
      one.gathered !== undefined &&
      one.kind === record.kind &&
      one.subject === record.subject &&
      one.text === record.text &&
      record.clusterMs - one.clusterMs < gatherMs,
  );
}

function clipped(text: string): string {
  return text.length <= eventTextMax ? text : `${text.slice(0, eventTextMax - 3)}...`;
}
