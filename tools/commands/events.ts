import { setTimeout as sleep } from "node:timers/promises";
import type { Command } from "commander";
import { z } from "zod";
import type { EventSummary } from "../../control/api.ts";
import { CommandError, exitCode } from "../exit-codes.ts";
import { timeText } from "../health/health-text.ts";
import { parseOption } from "../options.ts";
import { type AdminOptions, ask, withClusterOptions } from "./admin.ts";

/** How often `--follow` asks; while the cluster cannot be reached it goes on asking. */
const followEveryMs = 1000;

const sequenceSchema = z
  .string()
  .regex(/^\d{1,15}$/, "is not the number of an event")
  .transform(Number);

interface EventsOptions extends AdminOptions {
  since?: string;
  follow?: boolean;
}

export function addEvents(endisk: Command): void {
  withClusterOptions(
    endisk
      .command("events")
      .description("Show what has happened in the cluster, oldest first")
      .option("--since <SEQ>", "only events with a larger number", "0")
      .option("--follow", "go on, and print events as they happen"),
  ).action(async (options: EventsOptions) => {
    let since = parseOption("--since", options.since, sequenceSchema);
    const first = await ask(options, (client) => client.events(since));
    show(options, first.events, options.follow === true);
    if (options.follow !== true) return;
    since = newest(first.events, since);
    for (;;) {
      await sleep(followEveryMs);
      const events = await eventsNow(options, since);
      show(options, events, true);
      since = newest(events, since);
    }
  });
}

/** None while the cluster cannot be reached: they are still there when it can. */
async function eventsNow(options: AdminOptions, since: number): Promise<EventSummary[]> {
  try {
    return (await ask(options, (client) => client.events(since))).events;
  } catch (error) {
    if (error instanceof CommandError && error.exit === exitCode.unavailable) return [];
    throw error;
  }
}

function newest(events: readonly EventSummary[], since: number): number {
  return events.at(-1)?.sequence ?? since;
}

/** As JSON, one array; when followed, one event a line. */
function show(options: AdminOptions, events: readonly EventSummary[], followed: boolean): void {
  if (options.json === true && !followed) {
    process.stdout.write(`${JSON.stringify(events, null, 2)}\n`);
    return;
  }
  const lineOf = options.json === true ? (one: EventSummary) => JSON.stringify(one) : eventLine;
  for (const event of events) process.stdout.write(`${lineOf(event)}\n`);
}

export function eventLine({ sequence, wallMs, severity, text }: EventSummary): string {
  return `${String(sequence).padStart(6)}  ${timeText(wallMs)}  ${severity.padEnd(8)}  ${text}`;
}
