import { parameterData, refused, type ScsiCommand, type ScsiResult } from "./command.ts";
import { invalidFieldInCdb } from "./sense.ts";

/** READ DEFECT DATA(10) and (12) (SBC-4 §5.19, §5.20): a volume has no defects of its own. */

/** DEFECT LIST FORMAT: an empty list is right in all but the vendor's own and the reserved one. */
const formatMax = 5;
/** REQ_PLIST and REQ_GLIST; PLISTV and GLISTV stand in the same place. */
const listMask = 0x18;

/** zero[1] lists-and-format[1] length[2] */
export function readDefectData10({ cdb }: ScsiCommand): ScsiResult {
  const wanted = cdb[2]!;
  if ((wanted & 0x07) > formatMax) return refused(invalidFieldInCdb(2, 2));
  const head = Buffer.from([0, wanted & (listMask | 0x07), 0, 0]);
  return parameterData(head, cdb.readUInt16BE(7));
}

/** zero[1] lists-and-format[1] generation[2] length[4] */
export function readDefectData12({ cdb }: ScsiCommand): ScsiResult {
  const wanted = cdb[1]!;
  if ((wanted & 0x07) > formatMax) return refused(invalidFieldInCdb(1, 2));
  const head = Buffer.from([0, wanted & (listMask | 0x07), 0, 0, 0, 0, 0, 0]);
  return parameterData(head, cdb.readUInt32BE(6));
}
