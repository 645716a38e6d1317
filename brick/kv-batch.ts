import { assert } from "./assert.ts";
import type { KvChange } from "./host.ts";

/**
 * A batch as one piece of memory, which passes to another thread without being copied. Each change:
 * key bytes[4] and value bytes + 1[4], little-endian, the key, the value; the latter is 0 and nothing
 * follows the key when the key is removed.
 */

const headBytes = 8;

export function encodeBatch(changes: readonly KvChange[]): ArrayBuffer {
  let lengthBytes = 0;
  for (const { key, value } of changes)
    lengthBytes += headBytes + key.length + (value?.length ?? 0);
  const memory = new ArrayBuffer(lengthBytes);
  const bytes = Buffer.from(memory);
  let at = 0;
  for (const { key, value } of changes) {
    bytes.writeUInt32LE(key.length, at);
    bytes.writeUInt32LE(value === null ? 0 : value.length + 1, at + 4);
    bytes.set(key, at + headBytes);
    if (value !== null) bytes.set(value, at + headBytes + key.length);
    at += headBytes + key.length + (value?.length ?? 0);
  }
  return memory;
}

/** The changes in their order, as slices. */
export function* decodeBatch(memory: ArrayBuffer): IterableIterator<KvChange> {
  const bytes = Buffer.from(memory);
  let at = 0;
  while (at < bytes.length) {
    const keyAt = at + headBytes;
    const valueAt = keyAt + bytes.readUInt32LE(at);
    const valueBytes = bytes.readUInt32LE(at + 4) - 1;
    at = valueAt + Math.max(valueBytes, 0);
    assert(at <= bytes.length);
    const value = valueBytes < 0 ? null : bytes.subarray(valueAt, at);
    yield { key: bytes.subarray(keyAt, valueAt), value };
  }
}
