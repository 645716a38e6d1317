/** 64-bit big-endian integers that stay below 2^53: counters and positions, not bit patterns. */

const high = 2 ** 32;

export function writeUint64(out: Buffer, value: number, at: number): number {
  out.writeUInt32BE(Math.floor(value / high), at);
  return out.writeUInt32BE(value % high, at + 4);
}

export function readUint64(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * high + bytes.readUInt32BE(at + 4);
}
