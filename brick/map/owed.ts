import { assert } from "../assert.ts";

/**
 * A group of grains of two shards lands at the shard of the first of them, whole. There it keeps
 * what it owes to the other one under a branch number of its own, until that shard has it too.
 */
const owedBit = 2 ** 47;

/** The branch under which a shard's map keeps what it owes of the given one. */
export function owedBranch(branch: number): number {
  assert(branch < owedBit);
  return branch + owedBit;
}

/** The volume's own branch that a record of either kind belongs to. */
export function ownBranch(branch: number): number {
  return branch < owedBit ? branch : branch - owedBit;
}
