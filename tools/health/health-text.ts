import type { ProblemSummary } from "../../control/api.ts";
import { counted } from "../../control/counted-text.ts";
import { durationText } from "../../control/duration-text.ts";
import { isHealthy } from "./problems.ts";

/** The first section of `endisk status`. */
export function healthText(problems: readonly ProblemSummary[], wallMs: number): string {
  const serious = problems.filter(({ severity }) => severity !== "info");
  const head = isHealthy(problems) ? "OK" : counted(serious.length, "problem");
  return [`health  ${head}`, ...problems.flatMap((one) => problemLines(one, wallMs))].join("\n");
}

function problemLines(problem: ProblemSummary, wallMs: number): string[] {
  const { severity, what, sinceMs, doing, advice } = problem;
  const word = severity === "info" ? "note" : severity;
  const since = sinceMs === 0 ? "" : `, since ${timeText(sinceMs)} (${agoText(wallMs - sinceMs)})`;
  return ["", `  ${word}: ${what}${since}`, `    END: ${doing}`, `    you: ${advice}`];
}

function agoText(spanMs: number): string {
  return `for ${durationText(spanMs)}`;
}

/** "2026-11-26 01:05:07", UTC, as log files of servers have it; "-" when it is not known. */
export function timeText(wallMs: number): string {
  if (wallMs === 0) return "-";
  return `${new Date(wallMs).toISOString().slice(0, 19).replace("T", " ")}Z`;
}
