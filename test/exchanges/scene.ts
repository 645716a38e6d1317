import type { VolumeFault } from "../../brick/volume/volume.ts";
import { TestAuthority } from "../../iscsi/authority.test-double.ts";
import { MemoryVolume, memoryDirectory } from "../../iscsi/memory-volume.test-double.ts";
import { type Portal, startPortal } from "../../iscsi/portal.ts";
import type { RealCluster } from "../../tools/real-cluster-io.ts";
import type { BrickAction, Story } from "./story.ts";

/** What a story is played against: portals, and what may befall the disk behind them. */
export interface Scene {
  /** "HOST:PORT" of the portal of a number, from 1. */
  portal(number: number): string;
  /** What every further command of a volume meets; code "none" ends it. Memory only. */
  fault(volume: string, code: string): void;
  /** Cluster only. */
  brick(number: number, action: BrickAction): Promise<void>;
  close(): Promise<void>;
}

const faults: Readonly<Record<string, VolumeFault | null>> = {
  none: null,
  no_space: { code: "no_space" },
  deleted: { code: "deleted" },
  unavailable: { code: "unavailable", reason: "a story says so" },
};

/** Portals over the same volumes in memory, one port of the target each, as bricks have them. */
export async function openMemoryScene(story: Story): Promise<Scene> {
  const volumes = story.volumes.map(
    ({ name, size }, index) => new MemoryVolume(name, bytesOfSize(size), uuidOf(index)),
  );
  const numbers = Array.from({ length: story.portals }, (_, index) => index + 1);
  for (const volume of volumes) {
    for (const other of volumes) volume.others.set(other.info.uuid, other);
    volume.portsNow = numbers.map((targetPort) => ({
      targetPort,
      state: targetPort === 1 ? "optimized" : "nonOptimized",
    }));
  }
  const addresses: { address: string; tag: number }[] = [];
  const portals: Portal[] = [];
  const directory = memoryDirectory(volumes, addresses);
  const authority = new TestAuthority(directory);
  for (const target of story.targets) authority.extraTargets.set(target.name, target);
  for (const tag of numbers) {
    const portal = await startPortal({
      listen: "127.0.0.1:0",
      announce: "127.0.0.1:0",
      tag,
      directory,
      authority,
      log: () => {},
    });
    portals.push(portal);
    addresses.push({ address: portal.address, tag });
  }
  return {
    portal: (number) => portals[number - 1]!.address,
    fault: (name, code) => {
      const volume = volumes.find((one) => one.info.name === name);
      const fault = faults[code];
      if (volume === undefined || fault === undefined) throw new Error(`no fault ${code}`);
      volume.fault = fault;
    },
    brick: () => Promise.reject(new Error("there are no bricks in memory")),
    close: async () => {
      await Promise.all(portals.map((portal) => portal.close()));
    },
  };
}

function uuidOf(index: number): string {
  return Buffer.from(Array.from({ length: 16 }, (_, at) => 0x11 * (index + 1) + at)).toString(
    "hex",
  );
}

/** Bricks that are real processes; whoever has started the cluster ends it. */
export function clusterScene(cluster: RealCluster): Scene {
  return {
    portal: (number) => cluster.portal(number),
    fault: () => {
      throw new Error("a real disk has no faults to order");
    },
    brick: async (number, action) => {
      if (action === "kill") cluster.kill(number);
      else if (action === "drain") await cluster.endisk("brick", "drain", String(number));
      else {
        cluster.startAgain(number);
        await cluster.waitHealthy(number);
      }
    },
    close: () => Promise.resolve(),
  };
}

function bytesOfSize(size: string): number {
  const match = /^(\d+)(MiB|GiB|TiB)$/.exec(size);
  if (match === null) throw new Error(`size ${size}`);
  const power = { MiB: 20, GiB: 30, TiB: 40 }[match[2] as "MiB"];
  return Number(match[1]) * 2 ** power;
}
