import { assert } from "../../brick/assert.ts";
import { crc32 } from "../../brick/crc32.ts";
import { readUint64, writeUint64 } from "../../brick/log/uint64.ts";
import { decodeConfiguration, encodeConfiguration } from "./configuration.ts";
import { raftLimits } from "./raft-limits.ts";
import type { HardState, Snapshot } from "./raft-types.ts";

export interface HardStateCopy {
  readonly sequence: number;
  readonly state: HardState;
}

const hardStateMagic = 0x454e4468;
const hardStateBytes = 52;

/**
 * The files `state-a` and `state-b`, version 1, big-endian: magic[4]="ENDh" version[1]=1 zero[1]
 * votedFor[2] sequence[8] term[8] healing[1], 0 or 1, zero[7] throughIndex[8] healingTerm[8]
 * checksum[4], the CRC-32 of the bytes before. Each change is written to both, one flushed before
 * the other is begun: whichever one is damaged, at rest or by a crash, the other holds everything
 * that was promised.
 */
export function encodeHardState({ sequence, state }: HardStateCopy): Buffer {
  const { term, votedFor, healing } = state;
  const out = Buffer.alloc(hardStateBytes);
  let at = out.writeUInt32BE(hardStateMagic, 0);
  at = out.writeUInt8(1, at) + 1;
  at = out.writeUInt16BE(votedFor, at);
  at = writeUint64(out, sequence, at);
  at = writeUint64(out, term, at);
  at = out.writeUInt8(healing === null ? 0 : 1, at) + 7;
  at = writeUint64(out, healing?.throughIndex ?? 0, at);
  at = writeUint64(out, healing?.term ?? 0, at);
  at = out.writeUInt32BE(crc32(out.subarray(0, at)), at);
  assert(at === hardStateBytes);
  return out;
}

/** null when the copy does not hold. */
export function decodeHardState(bytes: Buffer): HardStateCopy | null {
  if (bytes.length < hardStateBytes) return null;
  if (bytes.readUInt32BE(0) !== hardStateMagic || bytes[4] !== 1 || bytes[5] !== 0) return null;
  if (bytes.readUInt32BE(48) !== crc32(bytes.subarray(0, 48))) return null;
  const healing =
    bytes[24] === 0 ? null : { throughIndex: readUint64(bytes, 32), term: readUint64(bytes, 40) };
  const state = { term: readUint64(bytes, 16), votedFor: bytes.readUInt16BE(6), healing };
  return { sequence: readUint64(bytes, 8), state };
}

const snapshotMagic = 0x454e446e;
const snapshotHeaderBytes = 48;

/**
 * A snapshot file, version 1, big-endian: magic[4]="ENDn" version[1]=1 zero[3] index[8] term[8]
 * configurationLength[4] dataLength[8] dataChecksum[4] zero[4] checksum[4], the CRC-32 of the 44
 * bytes before and of the configuration; then the configuration, then the data.
 */
export function encodeSnapshotFile({ index, term, configuration, data }: Snapshot): Buffer[] {
  const members = encodeConfiguration(configuration);
  const out = Buffer.alloc(snapshotHeaderBytes);
  let at = out.writeUInt32BE(snapshotMagic, 0);
  at = out.writeUInt8(1, at) + 3;
  at = writeUint64(out, index, at);
  at = writeUint64(out, term, at);
  at = out.writeUInt32BE(members.length, at);
  at = writeUint64(out, data.length, at);
  at = out.writeUInt32BE(crc32(data), at) + 4;
  at = out.writeUInt32BE(crc32(members, crc32(out.subarray(0, at))), at);
  assert(at === snapshotHeaderBytes);
  return data.length === 0 ? [out, members] : [out, members, data];
}

/** null when the file does not hold. */
export function decodeSnapshotFile(bytes: Buffer): Snapshot | null {
  if (bytes.length < snapshotHeaderBytes) return null;
  if (bytes.readUInt32BE(0) !== snapshotMagic || bytes[4] !== 1) return null;
  const membersLength = bytes.readUInt32BE(24);
  const dataLength = readUint64(bytes, 28);
  if (membersLength > 6 + 2 * raftLimits.membersMax) return null;
  if (bytes.length !== snapshotHeaderBytes + membersLength + dataLength) return null;
  const members = bytes.subarray(snapshotHeaderBytes, snapshotHeaderBytes + membersLength);
  if (bytes.readUInt32BE(44) !== crc32(members, crc32(bytes.subarray(0, 44)))) return null;
  const data = bytes.subarray(snapshotHeaderBytes + membersLength);
  const configuration = decodeConfiguration(members);
  if (configuration === null || bytes.readUInt32BE(36) !== crc32(data)) return null;
  return { index: readUint64(bytes, 8), term: readUint64(bytes, 16), configuration, data };
}
