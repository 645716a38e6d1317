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
  method?: "crypto",
): Sanitized {
  if (before?.state === "running") return { outcome: "sanitizing", sanitize: before };
  // A failure in restricted mode may only be left by sanitizing in that mode.
  if (before !== null && !before.allowUnrestrictedExit && allowUnrestrictedExit) {
    return { outcome: "invalid_field", sanitize: before };
  }
  const running = { state: "running", progress: 0, allowUnrestrictedExit } as const;
  return done(method === undefined ? running : { ...running, method });
}

/** Its runner reports; what it says of a sanitize that has ended meanwhile is void. */
export function sanitizeProgress(before: SanitizeRecord | null, progress: number): Sanitized {
  assert(progress >= 0 && progress < sanitizeWhole);
  if (before?.state !== "running" || progress <= before.progress) return done(before);
  return done({ ...before, progress });
}

/** The volume has a new key; what it had is to be destroyed before the sanitize has ended. */
export function sanitizeRekeyed(before: SanitizeRecord | null, retiredKey: number): Sanitized {
  assert(isRekeyWanted(before));
  return done({ ...before!, retiredKey });
}

/** Whether a cryptographic erase runs that has not given the volume its new key yet. */
export function isRekeyWanted(sanitize: SanitizeRecord | null | undefined): boolean {
  return (
    sanitize?.state === "running" &&
    sanitize.method === "crypto" &&
    sanitize.retiredKey === undefined
  );
}

export function sanitizeEnd(before: SanitizeRecord | null, ok: boolean): Sanitized {
  if (before?.state !== "running") return done(before);
  // Its runner did not know that a key is to be forgotten: another one will.
  if (ok && isRekeyWanted(before)) return done(before);
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
