/** Logical unit numbers in PDUs: eight bytes, here as two words (SAM-5 §4.7). */

const method = { peripheral: 0, flat: 1 } as const;

/**
 * The number that a single-level LUN names, by peripheral (bus 0) or by flat space addressing;
 * undefined for any other format, which names no unit of ours.
 */
export function decodeLun(lunHigh: number, lunLow: number): number | undefined {
  if (lunLow !== 0 || (lunHigh & 0xffff) !== 0) return undefined;
  const number = (lunHigh >>> 16) & 0x3fff;
  switch (lunHigh >>> 30) {
    case method.peripheral:
      return number <= 0xff ? number : undefined;
    case method.flat:
      return number;
    default:
      return undefined;
  }
}
