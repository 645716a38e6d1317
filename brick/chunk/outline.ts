import { assert } from "../assert.ts";
import { chainingValueBytes, flagRoot, leafBytes, makeBlake3Tree } from "./blake3-wasm.ts";
import { chunkBytesMax, chunkKeyBytes } from "./key.ts";

/**
 * A part of a chunk can be checked without the rest: BLAKE3 is a tree of hashes. The **outline** of a
 * chunk is the chaining values of its slices, one behind the other; they hash to its key, and each of
 * them proves its slice. So a read of 4 KiB moves 4 KiB, and is as sure as one of the whole chunk.
 */

export const sliceBytes = 4096;
const slicesMax = chunkBytesMax / sliceBytes;
const leavesPerSlice = sliceBytes / leafBytes;
/** Smaller chunks are read whole: there is little to save. */
const slicedBytesMin = 4 * sliceBytes;

/** Where things lie in the module's memory: a slice, the hashes of its leaves, an outline, a result. */
const at = { slice: 0, leaves: sliceBytes, outline: sliceBytes + 1024, result: sliceBytes + 2048 };
const tree = makeBlake3Tree(1);

/** Whether parts of a chunk this long can be asked for. */
export function isSliced(chunkBytes: number): boolean {
  return (
    chunkBytes >= slicedBytesMin && chunkBytes <= chunkBytesMax && chunkBytes % sliceBytes === 0
  );
}

export function outlineBytes(chunkBytes: number): number {
  return (chunkBytes / sliceBytes) * chainingValueBytes;
}

/** The outline of a whole chunk; `isSliced` of its length holds. */
export function outlineOf(chunk: Buffer): Buffer {
  assert(isSliced(chunk.length));
  const outline = Buffer.allocUnsafeSlow(outlineBytes(chunk.length));
  for (let slice = 0; slice * sliceBytes < chunk.length; slice += 1) {
    hashSlice(chunk.subarray(slice * sliceBytes, (slice + 1) * sliceBytes), slice);
    tree.memory.copy(
      outline,
      slice * chainingValueBytes,
      at.result,
      at.result + chainingValueBytes,
    );
  }
  return outline;
}

/** Whether it is the outline of the chunk with this key. */
export function isOutlineOf(outline: Buffer, key: Buffer): boolean {
  const count = outline.length / chainingValueBytes;
  if (!Number.isInteger(count) || count < 2 || count > slicesMax) return false;
  outline.copy(tree.memory, at.outline);
  hashRange(0, count, flagRoot);
  return tree.memory.compare(key, 0, chunkKeyBytes, at.outline, at.outline + chunkKeyBytes) === 0;
}

/** Whether these bytes are slices `first`, `first` + 1, ... of the chunk with this outline. */
export function areSlicesOf(outline: Buffer, first: number, bytes: Buffer): boolean {
  const count = bytes.length / sliceBytes;
  const slices = outline.length / chainingValueBytes;
  if (!Number.isInteger(count) || count < 1 || first < 0 || first + count > slices) return false;
  for (let index = 0; index < count; index += 1) {
    hashSlice(bytes.subarray(index * sliceBytes, (index + 1) * sliceBytes), first + index);
    const from = (first + index) * chainingValueBytes;
    const { result } = at;
    const to = result + chainingValueBytes;
    if (tree.memory.compare(outline, from, from + chainingValueBytes, result, to) !== 0)
      return false;
  }
  return true;
}

/** Leaves the chaining value of a slice, by its place in the chunk, at `result`. */
function hashSlice(bytes: Buffer, slice: number): void {
  bytes.copy(tree.memory, at.slice);
  tree.leaves4(at.slice, slice * leavesPerSlice, at.leaves);
  tree.parent(at.leaves, at.leaves, 0);
  tree.parent(at.leaves + 2 * chainingValueBytes, at.leaves + chainingValueBytes, 0);
  tree.parent(at.leaves, at.result, 0);
}

/**
 * Hashes `count` chaining values of the outline in memory, from `first` on, into the place of the
 * first: the left half of a tree is the largest power of two that leaves something for the right one.
 */
function hashRange(first: number, count: number, flags: number): void {
  if (count === 1) return;
  const left = 2 ** Math.floor(Math.log2(count - 1));
  hashRange(first, left, 0);
  hashRange(first + left, count - left, 0);
  const to = at.outline + first * chainingValueBytes;
  const right = at.outline + (first + left) * chainingValueBytes;
  tree.memory.copyWithin(to + chainingValueBytes, right, right + chainingValueBytes);
  tree.parent(to, to, flags);
}
