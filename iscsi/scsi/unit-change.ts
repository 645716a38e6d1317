import { assertNever } from "../../brick/assert.ts";
import type { UnitChange, UnitOutcome } from "../../brick/unit/unit-changes.ts";
import {
  faultResult,
  good,
  refused,
  type ScsiCommand,
  type ScsiResult,
  withStatus,
} from "./command.ts";
import { invalidFieldInCdb, scsiStatus, sense } from "./sense.ts";

/** A command that changes what all portals share of a unit: reservations, mode, sanitize. */
export async function changeUnit(command: ScsiCommand, change: UnitChange): Promise<ScsiResult> {
  const changed = await command.unit.volume.changeUnit(change);
  return changed.ok ? outcomeResult(changed.outcome) : faultResult(changed.fault);
}

function outcomeResult(outcome: UnitOutcome): ScsiResult {
  switch (outcome) {
    case "done":
      return good;
    case "reservation_conflict":
      return withStatus(scsiStatus.reservationConflict);
    case "invalid_release":
      return refused(sense.invalidRelease);
    case "insufficient_registration_resources":
      return refused(sense.insufficientRegistrationResources);
    case "invalid_parameter":
      return refused(sense.invalidFieldInParameterList);
    case "invalid_field":
      return refused(invalidFieldInCdb(1, 4));
    case "sanitizing":
      return refused(sense.sanitizeInProgress);
    case "sanitize_failed":
      return refused(sense.sanitizeFailed);
    default:
      return assertNever(outcome);
  }
}
