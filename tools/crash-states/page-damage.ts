import type { Prng } from "../../brick/prng.ts";

/** What a medium does to a file that is small: in sectors, not in pages. */
export const pageDamages = ["bit flip", "zeros", "junk", "truncated", "swapped"] as const;
export type PageDamage = (typeof pageDamages)[number];

const sectorBytes = 512;

/** The file's bytes after it, at a place by chance. */
export function damageBytes(bytes: Buffer, how: PageDamage, prng: Prng): Buffer {
  const damaged = Buffer.from(bytes);
  if (bytes.length === 0) return damaged;
  const atBytes = prng.between(0, bytes.length - 1);
  const sector = atBytes - (atBytes % sectorBytes);
  const inSector = damaged.subarray(sector, sector + sectorBytes);
  switch (how) {
    case "bit flip":
      damaged[atBytes]! ^= 1 << prng.between(0, 7);
      return damaged;
    case "zeros":
      inSector.fill(0);
      return damaged;
    case "junk":
      prng.fill(inSector);
      return damaged;
    case "truncated":
      return damaged.subarray(0, atBytes);
    case "swapped": {
      const sectors = Math.floor(bytes.length / sectorBytes);
      if (sectors < 2 || inSector.length < sectorBytes) return damaged;
      const other = prng.between(0, sectors - 1) * sectorBytes;
      bytes.copy(damaged, sector, other, other + sectorBytes);
      bytes.copy(damaged, other, sector, sector + sectorBytes);
      return damaged;
    }
  }
}
