import { assert } from "../assert.ts";
import type { UnitOutcome } from "./unit-changes.ts";
import type { SanitizeRecord } from "./unit-record.ts";

/**
 * The sanitize state machine of SBC-3 §4.11:
 *
 *     idle ──sanitizeStart──▶ running ──sanitizeEnd ok──▶ idle
 *                               └──sanitizeEnd failed──▶ failed ──sanitizeStart──▶ running
 *                                                          └──sanitizeExitFailure (AUSE)──▶ idle
 */
export interface Sanitized {
  readonly outcome: UnitOutcome;
  readonly sanitize: SanitizeRecord | null;
}

/** PROGRESS INDICATION is out of this. */
export const sanitizeWhole = 65_536;

export function sanitizeStart(
  before: SanitizeRecord | null,
  allowUnrestrictedExit: boolean,
): Sanitized {
  if (before?.state === "running") return { outcome: "sanitizing", sanitize: before };
  // A failure in restricted mode may only be left by sanitizing in that mode.
  if (before !== null && !before.allowUnrestrictedExit && allowUnrestrictedExit) {
    return { outcome: "invalid_field", sanitize: before };
  }
  return done({ state: "running", progress: 0, allowUnrestrictedExit });
}

/** Its runner reports; what it says of a sanitize that has ended meanwhile is void. */
export function sanitizeProgress(before: SanitizeRecord | null, progress: number): Sanitized {
  assert(progress >= 0 && progress < sanitizeWhole);
  if (before?.state !== "running" || progress <= before.progress) return done(before);
  return done({ ...before, progress });
}

export function sanitizeEnd(before: SanitizeRecord | null, ok: boolean): Sanitized {
  if (before?.state !== "running") return done(before);
  return done(ok ? null : { ...before, state: "failed" });
}

/** EXIT FAILURE MODE. */
export function sanitizeExitFailure(before: SanitizeRecord | null): Sanitized {
  if (before === null) return done(null);
  if (before.state === "running") return { outcome: "sanitizing", sanitize: before };
  if (!before.allowUnrestrictedExit) return { outcome: "invalid_field", sanitize: before };
  return done(null);
}

function done(sanitize: SanitizeRecord | null): Sanitized {
  return { outcome: "done", sanitize };
}
