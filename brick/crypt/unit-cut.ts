import { unitSectors } from "./xts.ts";

/** Part of a grain, and where it lies in the chunk that it was written with. */
interface Written {
  readonly firstSector: number;
  readonly sectorCount: number;
  readonly chunkSector: number;
  readonly chunkSectors: number;
}

/**
 * Whether the extent's ciphertext would be the same in another chunk of its grain that covers that
 * range. A sector is encrypted as a part of its aligned 4 KiB when all of them lie in the chunk, else
 * alone (xts.ts): what was written in single sectors cannot become part of a unit without its key, nor
 * the other way round.
 */
export function keepsUnits(
  extent: Written,
  range: { readonly firstSector: number; readonly sectorCount: number },
): boolean {
  const writtenFrom = extent.firstSector - extent.chunkSector;
  const writtenTo = writtenFrom + extent.chunkSectors;
  const rangeTo = range.firstSector + range.sectorCount;
  const end = extent.firstSector + extent.sectorCount;
  for (let at = unitOf(extent.firstSector); at < end; at += unitSectors) {
    const wasUnit = at >= writtenFrom && at + unitSectors <= writtenTo;
    const isUnit = at >= range.firstSector && at + unitSectors <= rangeTo;
    if (wasUnit !== isUnit) return false;
  }
  return true;
}

function unitOf(sector: number): number {
  return sector - (sector % unitSectors);
}
