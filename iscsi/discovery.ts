import type { TargetNode } from "./session-state.ts";
import type { TextPair } from "./text-keys.ts";

/** SendTargets (RFC 7143 appendix C). */

/** The targets an initiator asked for and may use, each with every portal of the cluster. */
export function findTargets(node: TargetNode, initiatorName: string, wanted: string): TextPair[] {
  const portals = node.directory.portals();
  const announced =
    portals.length > 0 ? portals : [{ address: node.announce, tag: node.portalGroupTag }];
  const pairs: TextPair[] = [];
  for (const { name } of node.authority.targets(initiatorName)) {
    if (wanted !== "All" && wanted.toLowerCase() !== name) continue;
    pairs.push(["TargetName", name]);
    for (const { address, tag } of announced) pairs.push(["TargetAddress", `${address},${tag}`]);
  }
  return pairs;
}
