import { table } from "../table.ts";

/** What one failure and its end looked like from outside, and whether END kept what it promises. */
export interface Round {
  /** The longest that the measuring process itself was not let run. */
  stalledMs: number;
  /** The longest time in which no command succeeded, or that one command took. */
  pauseMs: number;
  /** From the start of a brick's process, or the end of its trouble, until it serves; null: none came back. */
  rejoinMs: number | null;
  /** From then until every shard has all its replicas up; null as above. */
  wholeMs: number | null;
  /** Answers other than GOOD, by status and sense. */
  refusals: Record<string, number>;
  /** Connections that broke, and log-ins that did not succeed. */
  disconnects: number;
  checkedBytes: number;
  /** Read, and may not be there. */
  violations: string[];
  copied: CopiedBytes;
}

/** Chunk bytes that bricks copied among themselves. */
export interface CopiedBytes {
  repair: number;
  rebalance: number;
  settle: number;
}

export interface Promised {
  /** null: while it lasts no quorum, or not a copy of everything, is there. */
  pauseMsMax: number | null;
  /** What a command may end with besides GOOD. */
  refusals: "none" | "retryable";
  /** Whether connections may break, because the portal itself is hit. */
  disconnects: boolean;
  /** Whether a brick was given up, so that its copies are made anew. */
  repair: boolean;
}

/** BUSY and TASK SET FULL (SAM-5 §5.3.1): the initiator sends the command again. */
const retryable = /^status (?:8|40)$/;

/** What is measured while the measuring process stands still says nothing of the bricks. */
const stalledMsMax = 500;

export function isDisturbed(round: Round): boolean {
  return round.stalledMs > stalledMsMax && round.violations.length === 0;
}

/** What the round has broken; empty when nothing. */
export function broken(promised: Promised, round: Round): string[] {
  const { pauseMsMax, refusals, disconnects, repair } = promised;
  const found = round.violations.map((violation) => `wrong data: ${violation}`);
  if (pauseMsMax !== null && round.pauseMs > pauseMsMax) {
    found.push(`a pause of ${Math.round(round.pauseMs)} ms; at most ${pauseMsMax}`);
  }
  for (const [name, count] of Object.entries(round.refusals)) {
    if (refusals === "retryable" && retryable.test(name)) continue;
    found.push(`${count} commands ended with ${name}`);
  }
  if (!disconnects && round.disconnects > 0) found.push(`${round.disconnects} connections broke`);
  const { repair: repairBytes, rebalance } = round.copied;
  if (!repair && repairBytes + rebalance > 0) {
    found.push(`${repairBytes} bytes of repair and ${rebalance} of rebalance; none is due`);
  }
  if (round.checkedBytes === 0) found.push("nothing was read and checked");
  return found;
}

export const roundHeads = [
  "scenario",
  "rounds",
  "pause p50",
  "p99",
  "max ms",
  "errors",
  "busy",
  "serves after ms",
  "whole after ms",
  "checked MiB",
  "repair",
  "rebalance",
  "settle bytes",
] as const;

/** One line of the table. */
export function roundsRow(name: string, rounds: readonly Round[]): (string | number)[] {
  const pauses = rounds.map((round) => Math.round(round.pauseMs));
  const sum = (of: (round: Round) => number) => rounds.reduce((all, one) => all + of(one), 0);
  const refused = (isRetryable: boolean) =>
    sum(({ refusals }) =>
      Object.entries(refusals)
        .filter(([status]) => retryable.test(status) === isRetryable)
        .reduce((all, [, count]) => all + count, 0),
    );
  return [
    name,
    rounds.length,
    percentile(pauses, 50),
    percentile(pauses, 99),
    percentile(pauses, 100),
    refused(false),
    refused(true),
    spread(rounds.map((round) => round.rejoinMs)),
    spread(rounds.map((round) => round.wholeMs)),
    Math.round(sum((round) => round.checkedBytes) / 2 ** 20),
    sum((round) => round.copied.repair),
    sum((round) => round.copied.rebalance),
    sum((round) => round.copied.settle),
  ];
}

export function roundsTable(rows: readonly (string | number)[][]): string {
  return table(roundHeads, rows);
}

/** The smallest value that is no less than so many percent of all. */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((sorted.length * percent) / 100) - 1)] ?? 0;
}

/** "half of them / the longest". */
function spread(values: readonly (number | null)[]): string {
  const known = values.filter((value) => value !== null).map(Math.round);
  return known.length === 0 ? "-" : `${percentile(known, 50)} / ${percentile(known, 100)}`;
}
