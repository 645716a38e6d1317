import type { BrickNumber } from "../brick/units.ts";
import { failureDomain, type Placement } from "../brick/volume/placement.ts";

/** A brick that may hold replicas. */
export interface Holder {
  readonly number: BrickNumber;
  readonly weight: number;
  readonly domain: string;
}

/**
 * For each key the bricks in an order, in which every brick is the first of as many as its weight says, and
 * likewise the second; the rest as `placement` has it. Chance alone would make some bricks the backup of
 * several busy volumes and others of none: there are few keys for each brick.
 */
export function balancedOrders(
  placement: Placement,
  holders: readonly Holder[],
  keys: readonly Buffer[],
): BrickNumber[][] {
  const known = new Map(holders.map((holder) => [holder.number, holder]));
  const first = new Map<BrickNumber, number>();
  const second = new Map<BrickNumber, number>();
  const domainOf = (one: BrickNumber) => failureDomain(one, known.get(one)!.domain);
  return keys.map((key) => {
    const order = placement.order(key);
    if (order.length < 2) return order;
    const one = take(order, first, known);
    const others = order.filter((other) => other !== one);
    const apart = others.filter((other) => domainOf(other) !== domainOf(one));
    const two = take(apart.length > 0 ? apart : others, second, known);
    return [one, two, ...others.filter((other) => other !== two)];
  });
}

/**
 * The one that has been taken least for its weight; of equals the lowest number, so that of neighbouring
 * keys, which volumes have that were made together, each has another.
 */
function take(
  from: readonly BrickNumber[],
  taken: Map<BrickNumber, number>,
  known: ReadonlyMap<BrickNumber, Holder>,
): BrickNumber {
  const shareWith = (one: BrickNumber) => ((taken.get(one) ?? 0) + 1) / known.get(one)!.weight;
  let best = from[0]!;
  for (const one of from) {
    const more = shareWith(one) - shareWith(best);
    if (more < 0 || (more === 0 && one < best)) best = one;
  }
  taken.set(best, (taken.get(best) ?? 0) + 1);
  return best;
}
