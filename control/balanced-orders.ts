import type { ClusterState } from "../brick/cluster-state.ts";
import type { BrickNumber } from "../brick/units.ts";
import { failureDomain } from "../brick/volume/failure-domain.ts";
import { Placement } from "../brick/volume/placement.ts";

/** A brick that may hold replicas. */
export interface Holder {
  readonly number: BrickNumber;
  readonly weight: number;
  readonly domain: string;
}

/**
 * Where replicas of a shard belong when everyone is up. Each shard's by itself; but the shards of a family
 * belong on the same bricks, evenly over all.
 */
export function shardOrders(
  { shards, shardSpan }: ClusterState,
  holders: readonly Holder[],
): (shard: number) => readonly BrickNumber[] {
  const placement = new Placement(holders);
  if (shardSpan === undefined) return (number) => placement.order(shardKey(number));
  const keys = Array.from({ length: Math.ceil(shards.length / shardSpan) }, (_, at) =>
    shardKey(at),
  );
  const orders = balancedOrders(placement, holders, keys);
  return (number) => orders[Math.floor(number / shardSpan)]!;
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

/** Spreads neighbouring shards; the placement mixes it further. */
export function shardKey(number: number): Buffer {
  const key = Buffer.alloc(8);
  key.writeUInt32BE(Math.imul(number + 1, 0x9e3779b1) >>> 0, 0);
  key.writeUInt32BE(number, 4);
  return key;
}
