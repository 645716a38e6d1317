/** Units and fixed sizes of the address space. */

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;

/** The smallest unit that a write may change; extents count in it. */
export const sectorBytes = 512;
/** The unit of the address map. */
export const grainBytes = 64 * KiB;
export const sectorsPerGrain = grainBytes / sectorBytes;
/** A volume's size fits a double exactly. */
export const volumeBytesMax = 2 ** 53;
/** Volumes grow and shrink in whole steps of this size. */
export const volumeBytesStep = 1 * MiB;

/** A brick's 16-bit number within its cluster, from 1; never reused. 0 means none. */
export type BrickNumber = number;
