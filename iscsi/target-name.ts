/** iSCSI names of volumes: one target a volume, whose LUN 0 it is. */

const namePrefix = "iqn.2026-11.endisk:";

export function targetNameOf(volumeName: string): string {
  return namePrefix + volumeName;
}

/** undefined when no volume can have the name. */
export function volumeNameOf(targetName: string): string | undefined {
  return targetName.startsWith(namePrefix) ? targetName.slice(namePrefix.length) : undefined;
}
