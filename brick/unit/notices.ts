import { noticesMax, type UnitNotice, type UnitRecord } from "./unit-record.ts";

export type NewNotice = Omit<UnitNotice, "sequence">;

/** Appends a notice; the oldest makes room. Who missed it is told of a reset instead. */
export function withNotice(record: UnitRecord, notice: NewNotice): UnitRecord {
  const numbered = { sequence: record.noticeNext, ...notice };
  const notices = [...record.notices, numbered].slice(-noticesMax);
  return { ...record, notices, noticeNext: record.noticeNext + 1 };
}
