import {
  transferBytesMax,
  unmapBlocksMax,
  unmapDescriptorsMax,
  writeSameBlocksMax,
} from "../limits.ts";
import { blockBytes, writeUint64 } from "./cdb.ts";
import { parameterData, refused, type ScsiCommand, type ScsiResult } from "./command.ts";
import type { LogicalUnit } from "./logical-unit.ts";
import { invalidFieldInCdb } from "./sense.ts";

/** INQUIRY and its vital product data pages (SPC-5 §6.6 and §7.7, SBC-4 §6.6). */

const vendor = "ENDISK  ";
const product = "END DISK        ";
const revision = "0001";
/** A locally administered company id: END owns none of IEEE's. */
const companyId = 0x02454e;
/** 4 KiB: below it a write still costs what a whole one costs. */
const granularityBlocks = 8;

/** SPC-5 table 150 ff.: SAM-5, SPC-4, SBC-3, iSCSI. */
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
  out[7] = 0x02; // CMDQUE
  out.write(vendor, 8, "latin1");
  out.write(product, 16, "latin1");
  out.write(revision, 32, "latin1");
  versionDescriptors.forEach((version, index) => {
    out.writeUInt16BE(version, 58 + 2 * index);
  });
  return out;
}

const vitalPages: ReadonlyMap<number, (unit: LogicalUnit) => Buffer> = new Map([
  [0x00, () => Buffer.from([...vitalPages.keys()].sort((a, b) => a - b))],
  [0x80, (unit: LogicalUnit) => Buffer.from(unit.volume.info.uuid, "latin1")],
  [0x83, deviceIdentification],
  [0xb0, blockLimits],
  [0xb1, blockCharacteristics],
  [0xb2, logicalBlockProvisioning],
]);

const association = { unit: 0x00, port: 0x10, device: 0x20 } as const;
const codeSet = { binary: 1, ascii: 2, utf8: 3 } as const;
const designatorType = { t10: 1, naa: 3, relativePort: 4, portGroup: 5, name: 8 } as const;
const protocolIscsi = 0x50;
const hasProtocol = 0x80;

function deviceIdentification(unit: LogicalUnit): Buffer {
  const { uuid } = unit.volume.info;
  const tag = Buffer.alloc(4);
  tag.writeUInt16BE(unit.portalGroupTag, 2);
  const portName = `${unit.targetName},t,0x${tag.toString("hex", 2)}`;
  const name = (text: string) => {
    // SPC-5 §7.7.6.11: zero-terminated and padded to a multiple of four.
    const bytes = Buffer.from(text, "utf8");
    return Buffer.concat([bytes, Buffer.alloc(4 - (bytes.length % 4))]);
  };
  const descriptor = (codes: number, kind: number, content: Buffer) => {
    return Buffer.concat([Buffer.from([codes, kind, 0, content.length]), content]);
  };
  const port = association.port | hasProtocol;
  const iscsi = protocolIscsi;
  return Buffer.concat([
    descriptor(codeSet.binary, association.unit | designatorType.naa, naaIdentifier(uuid)),
    descriptor(
      codeSet.ascii,
      association.unit | designatorType.t10,
      Buffer.from(`${vendor}${uuid}`, "latin1"),
    ),
    descriptor(iscsi | codeSet.binary, port | designatorType.relativePort, tag),
    descriptor(iscsi | codeSet.binary, port | designatorType.portGroup, tag),
    descriptor(iscsi | codeSet.utf8, port | designatorType.name, name(portName)),
    descriptor(
      iscsi | codeSet.utf8,
      association.device | hasProtocol | designatorType.name,
      name(unit.targetName),
    ),
  ]);
}

/** NAA 6, registered extended: 6 | company[24] | the first 100 bits of the uuid. */
export function naaIdentifier(uuid: string): Buffer {
  const company = companyId.toString(16).padStart(6, "0");
  return Buffer.from(`6${company}${uuid.slice(0, 25)}`, "hex");
}

function blockLimits(): Buffer {
  const page = Buffer.alloc(0x40);
  page[4] = 0x01; // WSNZ
  page.writeUInt16BE(granularityBlocks, 6);
  page.writeUInt32BE(transferBytesMax / blockBytes, 8);
  page.writeUInt32BE((1024 * 1024) / blockBytes, 12); // optimal transfer length
  page.writeUInt32BE(unmapBlocksMax, 20);
  page.writeUInt32BE(unmapDescriptorsMax, 24);
  page.writeUInt32BE(granularityBlocks, 28);
  page.writeUInt32BE(0x8000_0000, 32); // UGAVALID, aligned at 0
  writeUint64(page, writeSameBlocksMax, 36);
  return page.subarray(4);
}

function blockCharacteristics(): Buffer {
  const content = Buffer.alloc(0x3c);
  content.writeUInt16BE(1, 0); // non-rotating
  return content;
}

function logicalBlockProvisioning(): Buffer {
  // threshold exponent 0; LBPU, LBPWS, LBPWS10, LBPRZ=001b; thin
  return Buffer.from([0x00, 0xe0 | 0x04, 0x02, 0x00]);
}
