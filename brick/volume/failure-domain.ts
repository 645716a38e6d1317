import type { BrickNumber } from "../units.ts";

/** Equal for bricks that fail together. A name cannot begin with NUL: a brick without one is alone. */
export function failureDomain(number: BrickNumber, domain: string): string {
  return domain === "" ? `\0${number}` : domain;
}

/**
 * One of each failure domain first, as far as none of `kept` is in it; then the others. Either part is in
 * the order given.
 */
export function acrossDomains<T>(
  order: readonly T[],
  domainOf: (one: T) => string,
  kept: readonly T[] = [],
): T[] {
  const met = new Set(kept.map(domainOf));
  const first: T[] = [];
  const repeated: T[] = [];
  for (const one of order) {
    const domain = domainOf(one);
    (met.has(domain) ? repeated : first).push(one);
    met.add(domain);
  }
  return [...first, ...repeated];
}
