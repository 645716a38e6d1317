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
  /** The cluster's time and the leader's wall clock; wall time 0: unknown. */
  readonly clusterMs: number;
  readonly wallMs: number;
  readonly severity: Severity;
  /** For programs: `brick_down`, `volume_created`, ... (control/event-rules.ts). */
  readonly kind: string;
  /** "brick 2", "volume disk0", "cluster". */
  readonly subject: string;
  /** For people. Of an event that gathers its like, what is said after their number. */
  readonly text: string;
  /** How many it gathers, of what ("map shard"), and since when; absent: it is one of its own. */
  readonly gathered?: { readonly count: number; readonly noun: string; readonly sinceMs: number };
}

/** An event that is to be recorded. */
export interface EventDraft extends Pick<EventRecord, "severity" | "kind" | "subject" | "text"> {
  readonly gathered?: { readonly count: number; readonly noun: string };
}

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
    const { severity, kind, subject, text, gathered } = draft;
    const record = { sequence: next, ...stamp, severity, kind, subject, text: clipped(text) };
    next += 1;
    if (gathered === undefined) records.push(record);
    else records.push({ ...record, gathered: gather(records, record, gathered) });
  }
  return { next, records: records.slice(-eventsMax) };
}

/** Takes the event out that the new one gathers, if there is one. */
function gather(
  records: EventRecord[],
  record: EventRecord,
  { count, noun }: NonNullable<EventDraft["gathered"]>,
): NonNullable<EventRecord["gathered"]> {
  const like = gathererOf(records, record);
  if (like < 0) return { count, noun, sinceMs: record.clusterMs };
  const known = records[like]!.gathered!;
  records.splice(like, 1);
  return { count: known.count + count, noun, sinceMs: known.sinceMs };
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
      record.clusterMs - one.gathered.sinceMs < gatherMs,
  );
}

function clipped(text: string): string {
  return text.length <= eventTextMax ? text : `${text.slice(0, eventTextMax - 3)}...`;
}
