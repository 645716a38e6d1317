import { keyName } from "../chunk/chunk-index.ts";
import { keepsUnits } from "../crypt/unit-cut.ts";
import { type Extent, isZeros } from "../map/grain.ts";
import { sectorBytes } from "../units.ts";
import type { CompactionOptions } from "./compaction-options.ts";

export interface SectorRun {
  readonly firstSector: number;
  readonly sectorCount: number;
}

/** How a grain is rewritten: one chunk of these sectors of it, in their order. */
export interface GrainPlan extends SectorRun {
  /** What of them is mapped, and will be by this chunk: the rest stays unmapped. */
  readonly runs: readonly SectorRun[];
  readonly keyDomain: number | undefined;
}

/** Of the chunk's sectors, at most one in so many may lie where nothing is mapped. */
const holeShare = 4;

/**
 * Whether a grain of these extents shall become one chunk, and how; null: it stays as it is. The chunk
 * reaches from the first mapped sector to the last; what lies unmapped between them is zeros in it,
 * which no record names.
 */
export function planGrain(
  extents: readonly Extent[],
  options: Pick<CompactionOptions, "chunksMin" | "wasteSectorsMin">,
): GrainPlan | null {
  const [first] = extents;
  const last = extents.at(-1);
  if (first === undefined || last === undefined || extents.length < 2) return null;
  const { keyDomain } = first;
  const chunks = new Map<string, number>();
  const runs: { firstSector: number; sectorCount: number }[] = [];
  let mapped = 0;
  for (const extent of extents) {
    if (isZeros(extent) || extent.keyDomain !== keyDomain) return null;
    const { firstSector, sectorCount } = extent;
    chunks.set(keyName(extent.key), extent.chunkSectors);
    mapped += sectorCount;
    const run = runs.at(-1);
    if (run !== undefined && run.firstSector + run.sectorCount === firstSector) {
      run.sectorCount += sectorCount;
    } else runs.push({ firstSector, sectorCount });
  }
  if (chunks.size < 2) return null;
  const span = {
    firstSector: first.firstSector,
    sectorCount: last.firstSector + last.sectorCount - first.firstSector,
  };
  if ((span.sectorCount - mapped) * holeShare > span.sectorCount) return null;
  const stored = [...chunks.values()].reduce((sum, sectors) => sum + sectors, 0);
  const isWorthwhile =
    chunks.size >= options.chunksMin || stored - span.sectorCount >= options.wasteSectorsMin;
  if (!isWorthwhile) return null;
  // Ciphertext stays as it is, so every sector must be of the same unit in the new chunk.
  if (keyDomain !== undefined && !extents.every((one) => keepsUnits(one, span))) return null;
  return { ...span, runs, keyDomain };
}

/**
 * The bytes of the planned chunk out of those of the chunks that the extents name; null when one does
 * not fit its extent.
 */
export function contentOf(
  plan: GrainPlan,
  extents: readonly Extent[],
  chunkOf: (key: Buffer) => Buffer,
): Buffer | null {
  const content = Buffer.alloc(plan.sectorCount * sectorBytes);
  for (const { key, firstSector, sectorCount, chunkSector, chunkSectors } of extents) {
    const chunk = chunkOf(key);
    if (chunk.length !== chunkSectors * sectorBytes) return null;
    const from = chunkSector * sectorBytes;
    const to = (firstSector - plan.firstSector) * sectorBytes;
    chunk.copy(content, to, from, from + sectorCount * sectorBytes);
  }
  return content;
}
