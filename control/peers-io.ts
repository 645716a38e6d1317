import { crc32 } from "../brick/crc32.ts";
import { DiskError, type Host } from "../brick/host.ts";
import type { BrickNumber } from "../brick/units.ts";

const folder = "control";
const path = `${folder}/peers.json`;
const fileBytesMax = 1024 * 1024;

/**
 * Where the other bricks were last reached, so that a brick that restarts finds the cluster before
 * it has its state. Only a hint: a file that is absent or damaged counts as empty.
 */
export async function readPeers(host: Host): Promise<Map<BrickNumber, string>> {
  try {
    const file = await host.disk.open(path);
    const bytes = await file.read(0, fileBytesMax);
    await file.close();
    const { checksum, body } = JSON.parse(bytes.toString("utf8"));
    if (typeof body !== "string" || crc32(body) !== checksum) return new Map();
    return new Map(JSON.parse(body));
  } catch (error) {
    if (error instanceof DiskError || error instanceof SyntaxError) return new Map();
    throw error;
  }
}

export async function writePeers(
  host: Host,
  peers: ReadonlyMap<BrickNumber, string>,
): Promise<void> {
  const body = JSON.stringify([...peers]);
  const next = `${path}.next`;
  const file = await host.disk.open(next, { create: true });
  const bytes = Buffer.from(JSON.stringify({ checksum: crc32(body), body }));
  await file.truncate(0);
  await file.write(0, [bytes]);
  await file.sync();
  await file.close();
  await host.disk.rename(next, path);
  await host.disk.syncFolder(folder);
}
