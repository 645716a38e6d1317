import assert from "node:assert/strict";
import { type Extent, type Grain, isChunkExtent, replaceSectors } from "./grain.ts";

/** What a write does to a grain, by its extents: what `overwriteRecord` does to the record is held against it. */
export function overwriteSectors(grain: Grain | undefined, op: number, extent: Extent): Grain {
  assert.ok(isChunkExtent(extent), "the extent of a write is malformed");
  return replaceSectors(grain, op, extent.firstSector, extent.sectorCount, extent);
}
