/** The target did what the protocol, or its own bounds, do not allow. */
export class Violation extends Error {}

export function demand(condition: boolean, what: string): void {
  if (!condition) throw new Violation(what);
}
