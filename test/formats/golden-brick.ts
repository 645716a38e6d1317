import { randomBytes } from "node:crypto";
import type { Message, Network } from "../../brick/host.ts";
import { openRealHost } from "../../brick/host-io.ts";
import { Prng } from "../../brick/prng.ts";
import { grainBytes, KiB, MiB } from "../../brick/units.ts";
import { BrickNode } from "../../tools/brick-node.ts";

/** One brick that is a cluster by itself, over a data folder: small, and with something of every file. */

export const volumeName = "golden";
const volumeBytes = 64 * MiB;
const identity = { clusterId: "00112233445566778899aabbccddeeff", brick: 1, uuid: "ab".repeat(16) };

/** What was written: by a boot that ended well, then by one that was killed. */
export const pieces = Array.from({ length: 24 }, (_, index) => ({
  life: index < 16 ? 1 : 2,
  offsetBytes: index * 3 * grainBytes,
  bytes: new Prng(1000 + index).fill(Buffer.alloc(index % 8 === 0 ? 32 * KiB : 2 * KiB)),
}));

/** Only to itself. */
function loopback(): Network & { boot: number } {
  let receive: (from: number, message: Message) => void = () => {};
  return {
    boot: 0,
    send(to, message) {
      if (to !== identity.brick) return;
      const received = { ...message, boot: this.boot, body: [Buffer.concat(message.body)] };
      setImmediate(() => receive(identity.brick, received));
    },
    onMessage: (receiver) => {
      receive = receiver;
    },
    setPeers: () => {},
  };
}

const masterKey = Buffer.alloc(32, 1);

export async function openGolden(dataFolder: string): Promise<BrickNode> {
  const network = loopback();
  const host = await openRealHost({ dataFolder, network, log: () => {} });
  return BrickNode.open(host, {
    self: identity.brick,
    capacityBytes: 16 * MiB,
    segmentBytes: 64 * KiB,
    identity,
    addresses: { peer: "127.0.0.1:1", portal: "127.0.0.1:2", api: "127.0.0.1:3" },
    bootstrap: { shardCount: 2 },
    keys: { masterKey, clusterSecret: Buffer.alloc(32, 2), random: (bytes) => randomBytes(bytes) },
    onStoreOpen: (boot) => {
      network.boot = boot;
    },
  });
}

/** The volume, once it can be served here. */
export async function goldenVolume(node: BrickNode) {
  for (;;) {
    const volume = node.volumes.open(volumeName);
    if (volume !== undefined && (await volume.read(0, 512)).ok) return volume;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export async function makeVolume(node: BrickNode): Promise<void> {
  for (;;) {
    const result = await node.control.submit({
      type: "createVolume",
      name: volumeName,
      uuid: "cd".repeat(16),
      sizeBytes: volumeBytes,
      copies: 1,
      degradedWrites: true,
    });
    if (result.ok) return;
    if (result.fault.code !== "unavailable") throw new Error(result.fault.message);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
