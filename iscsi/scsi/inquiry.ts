import { parameterData, refused, type ScsiCommand, type ScsiResult } from "./command.ts";
import { vendor } from "./identification.ts";
import { invalidFieldInCdb } from "./sense.ts";
import { vitalPages } from "./vital-pages.ts";

/** INQUIRY (SPC-4 §6.6). */

const product = "END DISK        ";
const revision = "0001";

/** SPC-4 table 142 ff.: SAM-5, SPC-4, SBC-3, iSCSI. */
const versionDescriptors = [0x00a0, 0x0460, 0x04c0, 0x0960];

export function inquiry(command: ScsiCommand): ScsiResult {
  const { cdb, unit } = command;
  const vital = (cdb[1]! & 1) !== 0;
  const page = cdb[2]!;
  const allocationLength = cdb.readUInt16BE(3);
  if (!vital) {
    if (page !== 0) return refused(invalidFieldInCdb(2));
    return parameterData(standardData(0x00), allocationLength);
  }
  const content = vitalPages.get(page)?.(unit);
  if (content === undefined) return refused(invalidFieldInCdb(2));
  const head = Buffer.from([0x00, page, 0, 0]);
  head.writeUInt16BE(content.length, 2);
  return parameterData(Buffer.concat([head, content]), allocationLength);
}

/** An INQUIRY to a LUN that does not exist: qualifier and type say so, the command succeeds. */
export function absentInquiry(cdb: Buffer): ScsiResult {
  if ((cdb[1]! & 1) !== 0) return refused(invalidFieldInCdb(1, 0));
  return parameterData(standardData(0x7f), cdb.readUInt16BE(3));
}

function standardData(peripheral: number): Buffer {
  const out = Buffer.alloc(96);
  out[0] = peripheral;
  out[2] = 0x06; // SPC-4: the newest that initiators in use know
  out[3] = 0x12; // HISUP, response data format 2
  out[4] = out.length - 5;
  out[5] = 0x30 | 0x08; // TPGS implicit and explicit, 3PC
  out[7] = 0x02; // CMDQUE
  out.write(vendor, 8, "latin1");
  out.write(product, 16, "latin1");
  out.write(revision, 32, "latin1");
  versionDescriptors.forEach((version, index) => {
    out.writeUInt16BE(version, 58 + 2 * index);
  });
  return out;
}
