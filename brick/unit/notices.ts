import { assert } from "../assert.ts";
import {
  noticedNexusesMax,
  noticesMax,
  registrationsMax,
  type UnitNotice,
  type UnitRecord,
} from "./unit-record.ts";

export type NewNotice = Omit<UnitNotice, "sequence">;

// The newest notice always has room: it names registrants at most.
assert(registrationsMax <= noticedNexusesMax);

/** Appends a notice; the oldest make room. Who missed one is told of a reset instead. */
export function withNotice(record: UnitRecord, notice: NewNotice): UnitRecord {
  const numbered = { sequence: record.noticeNext, ...notice };
  const notices = [...record.notices, numbered].slice(-noticesMax);
  let named = notices.reduce((sum, one) => sum + namedBy(one), 0);
  while (named > noticedNexusesMax) named -= namedBy(notices.shift()!);
  return { ...record, notices, noticeNext: record.noticeNext + 1 };
}

function namedBy({ nexuses }: UnitNotice): number {
  return nexuses?.length ?? 0;
}
