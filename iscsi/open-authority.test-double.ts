import type { VolumeDirectory } from "../brick/volume/volume.ts";
import type { Authority, TargetView } from "./authority.ts";
import { targetNameOf, volumeNameOf } from "./target-name.ts";

/** Everybody may use every volume, unproven: LUN 0 of a target of its own. */
export function openAuthority(directory: VolumeDirectory): Authority {
  const view = (volumeName: string): TargetView => {
    return { name: targetNameOf(volumeName), luns: new Map([[0, volumeName]]) };
  };
  return {
    targets: () => directory.list().map((info) => view(info.name)),
    target: (_initiatorName, targetName) => {
      const name = volumeNameOf(targetName);
      if (name === undefined || directory.open(name) === undefined) return "absent";
      return view(name);
    },
    proof: () => ({ method: "none" }),
    redirect: () => null,
    onChange: () => ({ stop: () => {} }),
  };
}
