/**
 * A short buffer of zeros, for the head of a message or of a record. `Buffer.alloc` gives each its own
 * memory, which V8 keeps account of one by one: ten times the cost of a part of Node's pool. Such a part
 * keeps 8 KiB alive: not for what is kept long.
 */
export function pooledZeros(lengthBytes: number): Buffer {
  return Buffer.allocUnsafe(lengthBytes).fill(0);
}
