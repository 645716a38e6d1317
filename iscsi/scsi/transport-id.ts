import { iscsiNameBytesMax } from "../../brick/unit/iscsi-name.ts";

/** The TransportID of an iSCSI initiator (SPC-4 §7.6.4.6), as bytes and as text. */

const protocolIscsi = 0x5;
/** Format codes, bits 7-6 of byte 0. */
const format = { deviceName: 0x00, portName: 0x40 } as const;
const headBytes = 4;
const contentBytesMin = 20;

/** Of an initiator port as `NexusId` writes it: "NAME,i,0xISID". */
export function encodeTransportId(initiatorPort: string): Buffer {
  const text = Buffer.from(initiatorPort, "utf8");
  // Zero-terminated, padded to a multiple of four.
  const contentBytes = Math.max(contentBytesMin, Math.ceil((text.length + 1) / 4) * 4);
  const out = Buffer.alloc(headBytes + contentBytes);
  out[0] = format.portName | protocolIscsi;
  out.writeUInt16BE(contentBytes, 2);
  text.copy(out, headBytes);
  return out;
}

/** `device` names an initiator by its iSCSI name alone, whichever its port is. */
export type TransportId =
  | { kind: "port"; initiatorPort: string }
  | { kind: "device"; name: string };

/** The TransportID at the head of `bytes`, and its length; null when it has not the form. */
export function decodeTransportId(bytes: Buffer): { id: TransportId; lengthBytes: number } | null {
  if (bytes.length < headBytes + contentBytesMin) return null;
  const contentBytes = bytes.readUInt16BE(2);
  const lengthBytes = headBytes + contentBytes;
  if (contentBytes % 4 !== 0 || contentBytes < contentBytesMin) return null;
  if (lengthBytes > bytes.length || bytes[1] !== 0) return null;
  const content = bytes.subarray(headBytes, lengthBytes);
  const end = content.indexOf(0);
  if (end <= 0 || content.subarray(end).some((byte) => byte !== 0)) return null;
  const text = content.toString("utf8", 0, end);
  switch (bytes[0]) {
    case format.deviceName | protocolIscsi: {
      if (text.includes(",") || end > iscsiNameBytesMax) return null;
      return { id: { kind: "device", name: text.toLowerCase() }, lengthBytes };
    }
    case format.portName | protocolIscsi: {
      const parts = /^([^,]+),i,0x([0-9a-f]{12})$/i.exec(text);
      if (parts === null || Buffer.byteLength(parts[1]!) > iscsiNameBytesMax) return null;
      const initiatorPort = `${parts[1]},i,0x${parts[2]}`.toLowerCase();
      return { id: { kind: "port", initiatorPort }, lengthBytes };
    }
    default:
      return null;
  }
}
