import { mayAccess } from "../unit/conflicts.ts";
import { concernsNexus, type NexusId, type UnitRecord } from "../unit/unit-record.ts";
import type { VolumeFault, VolumeTask } from "./volume.ts";

/** What a command does to the medium; `erase`: the sanitizing itself. */
export type Access = "read" | "write" | "erase";

/** Why a command may not take effect under this record; null: it may. */
export function refusalUnder(
  unit: UnitRecord,
  task: VolumeTask | null,
  access: Access,
): VolumeFault | null {
  const nexus = task?.nexus ?? null;
  if (nexus !== null && isEnded(unit, nexus, task!.noticeNext)) return { code: "cancelled" };
  if (access === "erase") return null;
  if (unit.sanitize !== null) return { code: "sanitizing" };
  if (nexus === null || !isReserved(unit)) return null;
  return mayAccess(unit, nexus, access) ? null : { code: "reservation_conflict" };
}

/** Why a command of another unit may not copy from this one; null: it may. */
export function sourceRefusal(unit: UnitRecord, task: VolumeTask | null): VolumeFault | null {
  if (unit.sanitize !== null) return { code: "sanitizing" };
  const nexus = task?.nexus ?? null;
  if (nexus === null || !isReserved(unit)) return null;
  return mayAccess(unit, nexus, "read") ? null : { code: "reservation_conflict" };
}

/** Whether a notice has ended the commands of the nexus that began when `noticeNext` was next. */
export function isEnded(unit: UnitRecord, nexus: NexusId, noticeNext: number): boolean {
  if (noticeNext >= unit.noticeNext) return false;
  // Too far behind to know what was missed: as after a reset.
  const oldest = unit.notices[0]?.sequence ?? unit.noticeNext;
  if (noticeNext < oldest) return true;
  return unit.notices.some(
    (notice) => notice.sequence >= noticeNext && notice.endsTasks && concernsNexus(notice, nexus),
  );
}

/** Registrations alone keep nobody out. */
function isReserved({ reservations: { held, reserve6 } }: UnitRecord): boolean {
  return held !== null || reserve6 !== null;
}
