import { isSliced, sliceBytes } from "../chunk/outline.ts";
import type { Extent } from "../map/grain.ts";
import { sectorBytes } from "../units.ts";

export interface SlicePlan {
  readonly chunkBytes: number;
  readonly first: number;
  readonly count: number;
}

/** A larger part of a chunk than this is read with the whole of it. */
const shareMax = 1 / 2;

/**
 * The slices of the extent's chunk that sectors [firstSector, endSector) of its grain lie in; null
 * when the chunk is better read whole.
 */
export function slicesFor(
  extent: Extent,
  firstSector: number,
  endSector: number,
): SlicePlan | null {
  const chunkBytes = extent.chunkSectors * sectorBytes;
  if (!isSliced(chunkBytes)) return null;
  const from = Math.max(firstSector, extent.firstSector);
  const to = Math.min(endSector, extent.firstSector + extent.sectorCount);
  const inChunk = (sector: number) =>
    (extent.chunkSector + sector - extent.firstSector) * sectorBytes;
  const first = Math.floor(inChunk(from) / sliceBytes);
  const count = Math.ceil(inChunk(to) / sliceBytes) - first;
  // An extent that passes the end of its chunk is found out when the whole is there.
  if ((first + count) * sliceBytes > chunkBytes) return null;
  return count * sliceBytes <= chunkBytes * shareMax ? { chunkBytes, first, count } : null;
}
