import type { LogicalUnit } from "./logical-unit.ts";

/** Names of a unit, its target and its ports: VPD pages 83 and 88 (SPC-4 §7.8.5, §7.8.12). */

export const vendor = "ENDISK  ";
/** A locally administered company id: END owns none of IEEE's. */
const companyId = 0x02454e;

const association = { unit: 0x00, port: 0x10, device: 0x20 } as const;
const codeSet = { binary: 1, ascii: 2, utf8: 3 } as const;
const designatorType = { t10: 1, naa: 3, relativePort: 4, portGroup: 5, name: 8 } as const;
const protocolIscsi = 0x50;
const hasProtocol = 0x80;

/** code-set[1] kind[1] zero[1] length[1] content */
function designator(codes: number, kind: number, content: Buffer): Buffer {
  return Buffer.concat([Buffer.from([codes, kind, 0, content.length]), content]);
}

export function deviceIdentification(unit: LogicalUnit): Buffer {
  const { uuid } = unit.volume.info;
  const number = Buffer.alloc(4);
  number.writeUInt16BE(unit.portalGroupTag, 2);
  const portBinary = protocolIscsi | codeSet.binary;
  const port = association.port | hasProtocol;
  return Buffer.concat([
    designator(codeSet.binary, association.unit | designatorType.naa, naaIdentifier(uuid)),
    designator(
      codeSet.ascii,
      association.unit | designatorType.t10,
      Buffer.from(`${vendor}${uuid}`, "latin1"),
    ),
    designator(portBinary, port | designatorType.relativePort, number),
    designator(portBinary, port | designatorType.portGroup, number),
    portName(unit, unit.portalGroupTag),
    designator(
      protocolIscsi | codeSet.utf8,
      association.device | hasProtocol | designatorType.name,
      scsiName(unit.targetName),
    ),
  ]);
}

/** RFC 7143 §4.7.1: the name of a SCSI target port. */
function portName(unit: LogicalUnit, targetPort: number): Buffer {
  const name = `${unit.targetName},t,0x${targetPort.toString(16).padStart(4, "0")}`;
  const kind = association.port | hasProtocol | designatorType.name;
  return designator(protocolIscsi | codeSet.utf8, kind, scsiName(name));
}

/** SPC-4 §7.8.5.11: zero-terminated and padded to a multiple of four. */
function scsiName(text: string): Buffer {
  const bytes = Buffer.from(text, "utf8");
  return Buffer.concat([bytes, Buffer.alloc(4 - (bytes.length % 4))]);
}

/** NAA 6, registered extended: 6 | company[24] | the first 100 bits of the uuid. */
export function naaIdentifier(uuid: string): Buffer {
  const company = companyId.toString(16).padStart(6, "0");
  return Buffer.from(`6${company}${uuid.slice(0, 25)}`, "hex");
}

/** zero[2] number[2] zero[2] initiator-id-length[2]=0 zero[2] designators-length[2] designators */
export function scsiPorts(unit: LogicalUnit): Buffer {
  return Buffer.concat(
    unit.volume.ports().map(({ targetPort }) => {
      const name = portName(unit, targetPort);
      const head = Buffer.alloc(12);
      head.writeUInt16BE(targetPort, 2);
      head.writeUInt16BE(name.length, 10);
      return Buffer.concat([head, name]);
    }),
  );
}
