import { brickOf, type ClusterState } from "../cluster-state.ts";
import type { BrickNumber } from "../units.ts";
import { failureDomain } from "../volume/placement.ts";

/** The bricks, those first whose failure domain holds no copy yet; else in the order given. */
export function spread(
  state: ClusterState,
  kept: readonly BrickNumber[],
  order: readonly BrickNumber[],
): BrickNumber[] {
  const taken = new Set(kept.map((brick) => domainOf(state, brick)));
  const apart: BrickNumber[] = [];
  const others: BrickNumber[] = [];
  for (const brick of order) {
    const domain = domainOf(state, brick);
    (taken.has(domain) ? others : apart).push(brick);
    taken.add(domain);
  }
  return [...apart, ...others];
}

/** In how many failure domains the bricks are. */
export function domainCount(state: ClusterState, bricks: readonly BrickNumber[]): number {
  return new Set(bricks.map((brick) => domainOf(state, brick))).size;
}

function domainOf(state: ClusterState, brick: BrickNumber): string {
  return failureDomain(brick, brickOf(state, brick)?.domain ?? "");
}
