import type { TestContext } from "node:test";
import { TestAuthority } from "../../iscsi/authority.test-double.ts";
import { MemoryVolume, memoryDirectory } from "../../iscsi/memory-volume.test-double.ts";
import { type Portal, startPortal } from "../../iscsi/portal.ts";
import { ScriptedInitiator } from "./scripted-initiator.ts";

export const disk = "iqn.2026-11.endisk:disk";
export const other = "iqn.2026-11.endisk:other";
export const host = "iqn.2026-11.test:host";
/** RFC 7143 §11.13.5. */
export const status = {
  success: 0,
  movedTemporarily: 0x0101,
  authenticationFailed: 0x0201,
  forbidden: 0x0202,
  notFound: 0x0203,
} as const;

export interface Place {
  authority: TestAuthority;
  portals: Portal[];
  initiator: (portal?: number, isid?: string) => ScriptedInitiator;
}

/** Two portals over the same two volumes; the authority of the first can be changed. */
export async function openPlace(context: TestContext): Promise<Place> {
  const volumes = ["disk", "other"].map(
    (name, index) => new MemoryVolume(name, 64 << 20, `${index + 1}`.repeat(32)),
  );
  const addresses: { address: string; tag: number }[] = [];
  const directory = memoryDirectory(volumes, addresses);
  for (const volume of volumes) {
    volume.portsNow = [
      { targetPort: 1, state: "optimized" },
      { targetPort: 2, state: "nonOptimized" },
    ];
  }
  const authority = new TestAuthority(directory);
  const portals: Portal[] = [];
  for (const tag of [1, 2]) {
    const common = { listen: "127.0.0.1:0", announce: "127.0.0.1:0", tag, directory };
    const own = tag === 1 ? authority : new TestAuthority(directory);
    const portal = await startPortal({ ...common, authority: own, log: () => {} });
    portals.push(portal);
    addresses.push({ address: portal.address, tag });
    context.after(() => portal.close());
  }
  const initiator = (number = 1, isid = "800000000001") => {
    const [address, port] = portals[number - 1]!.address.split(":");
    const made = new ScriptedInitiator({ host: address!, port: Number(port), isid });
    context.after(() => made.wire.destroy());
    return made;
  };
  return { authority, portals, initiator };
}

export const normal = [
  ["InitiatorName", host],
  ["TargetName", disk],
  ["SessionType", "Normal"],
] as const;
export const discovery = [
  ["InitiatorName", host],
  ["SessionType", "Discovery"],
] as const;

/** Logs in with one request; returns the status. */
export async function enter(
  initiator: ScriptedInitiator,
  keys: readonly (readonly [string, string])[],
): Promise<number> {
  return (await initiator.login({ currentStage: 1, nextStage: 3, keys })).status;
}
