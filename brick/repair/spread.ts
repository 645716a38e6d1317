import { brickOf, type ClusterState } from "../cluster-state.ts";
import type { BrickNumber } from "../units.ts";
import { acrossDomains, failureDomain } from "../volume/failure-domain.ts";

/** The bricks, those first whose failure domain holds no copy yet; else in the order given. */
export function spread(
  state: ClusterState,
  kept: readonly BrickNumber[],
  order: readonly BrickNumber[],
): BrickNumber[] {
  return acrossDomains(order, (brick) => domainOf(state, brick), kept);
}

/** In how many failure domains the bricks are. */
export function domainCount(state: ClusterState, bricks: readonly BrickNumber[]): number {
  return new Set(bricks.map((brick) => domainOf(state, brick))).size;
}

function domainOf(state: ClusterState, brick: BrickNumber): string {
  return failureDomain(brick, brickOf(state, brick)?.domain ?? "");
}
