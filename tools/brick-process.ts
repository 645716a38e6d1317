import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { WrongMasterKeyError } from "../brick/crypt/keyring-io.ts";
import { openRealHost } from "../brick/host-io.ts";
import { LatencyHistogram } from "../brick/latency-histogram.ts";
import { memoryParts } from "../brick/memory-budget.ts";
import { openNetwork, parseAddress, type RealNetwork } from "../brick/rpc/network-io.ts";
import { isLoopback } from "../control/access.ts";
import { type ApiServer, startApiServer } from "../control/api-server-io.ts";
import { bootstrapDefault } from "../control/control-io.ts";
import { type Portal, startPortal } from "../iscsi/portal.ts";
import { NodeBackend } from "./admin-backend.ts";
import { ClusterAuthority } from "./authority.ts";
import { type BrickIdentity, establishIdentity, markBegun } from "./brick-identity-io.ts";
import { brickMetrics } from "./brick-metrics.ts";
import { BrickNode } from "./brick-node.ts";
import { type BrickOptions, BrickStartError, type RunningBrick } from "./brick-options.ts";
import { CommandCounters } from "./command-counters.ts";
import { LateNetwork } from "./late-network-io.ts";
import { masterKeyOf } from "./master-key-io.ts";
import { settleCollector } from "./memory-settings.ts";
import { metricsText } from "./metrics.ts";
import { storeFolderName, withStartRoom } from "./start-room-io.ts";

/** Joins the real parts of one brick: the only place where they meet. */
export async function startBrick(options: BrickOptions): Promise<RunningBrick> {
  const { log, memoryBytes } = options;
  settleCollector(memoryBytes);
  const parts = memoryParts(memoryBytes);
  const { dataFolder } = options;
  const establish = () => establishIdentity(options);
  const established = await withStartRoom(dataFolder, log, establish);
  let { identity } = established;
  const { secret } = established;
  const { clusterId, number: self, uuid } = identity;
  const network = new LateNetwork();
  const storeFolder = join(options.dataFolder, storeFolderName);
  const host = await openRealHost({ dataFolder: storeFolder, network, log, memory: parts });
  if (identity.begun && (await host.disk.list("")).length === 0) {
    const lost = `${storeFolder} is empty, but brick ${self} has stored data there`;
    throw new BrickStartError("invalid", `${lost}: mount it, or replace the brick by a new one`);
  }
  const findMaster = () => masterKeyOf(dataFolder, storeFolder, options.masterKeyFile);
  const master = await withStartRoom(dataFolder, log, findMaster);
  let wire: RealNetwork | null = null;
  let authority: ClusterAuthority | null = null;
  const latencies = new Map<string, LatencyHistogram>();
  for (const kind of ["read", "write", "unmap", "copy"])
    latencies.set(kind, new LatencyHistogram());
  const node = await BrickNode.open(host, {
    self,
    capacityBytes: identity.capacityBytes,
    memory: {
      budgetBytes: memoryBytes ?? 0,
      parts,
      residentBytes: () => process.memoryUsage.rss(),
    },
    ...(!identity.begun && { identity: { clusterId, brick: self, uuid } }),
    addresses: { peer: identity.listen, portal: identity.portal, api: identity.api },
    domain: identity.domain,
    keys: { masterKey: master.bytes, clusterSecret: secret, random: randomBytes },
    seeds: new Map(identity.peers.map((peer) => [peer.number, peer.peerAddress])),
    ...(identity.origin === "init" && { bootstrap: bootstrapDefault }),
    onState: (state) => authority?.onState(state),
    hooks: {
      latency: (kind, elapsedMs) => latencies.get(kind)!.observe(elapsedMs),
      repairNote: () => {},
    },
    onStoreOpen: async (boot) => {
      if (!identity.begun) identity = markBegun(options.dataFolder, identity);
      const { sendQueueBytes } = parts;
      const { listen } = identity;
      wire = await openNetwork({ self, boot, clusterId, secret, listen, log, sendQueueBytes });
      network.attach(wire);
    },
  }).catch((error: unknown) => {
    if (!(error instanceof WrongMasterKeyError)) throw error;
    const sealed = join(storeFolder, error.path);
    const why = `${master.path} is not the master key that ${sealed} is sealed with`;
    throw new BrickStartError("invalid", `${why}: give the right one as --master-key-file`);
  });
  const commands = new CommandCounters(node.store.stages);
  authority = new ClusterAuthority({
    self,
    state: () => node.control.state(),
    secret,
    loopback: isLoopback(parseAddress(identity.portal).host),
    log,
  });
  const portal = await openPortal({ identity, node, authority, commands, log });
  const sources = brickMetrics({ node, wire: () => wire, commands, latencies });
  const api = await openApi(identity, node, secret, metricsText(self, sources), log);
  log(`brick ${self} (boot ${node.store.superblock.boot}): portal ${portal.address}`);
  return {
    number: self,
    stop: async () => {
      await portal.close();
      await api.close();
      await node.close();
      await wire?.close();
    },
  };
}

interface PortalParts {
  identity: BrickIdentity;
  node: BrickNode;
  authority: ClusterAuthority;
  commands: CommandCounters;
  log: (line: string) => void;
}

function openPortal(parts: PortalParts): Promise<Portal> {
  const { identity, node, authority, commands, log } = parts;
  return startPortal({
    listen: identity.portal,
    announce: identity.portal,
    tag: identity.number,
    directory: node.volumes,
    authority,
    log,
    metrics: commands,
  });
}

function openApi(
  identity: BrickIdentity,
  node: BrickNode,
  secret: Buffer,
  metrics: () => Promise<string>,
  log: (line: string) => void,
): Promise<ApiServer> {
  const { host, port } = parseAddress(identity.api);
  return startApiServer({
    host,
    port,
    backend: new NodeBackend(node),
    secret,
    wallMs: () => node.host.clock.wallMs(),
    metrics,
    health: () => {
      const { control, store } = node;
      const ready = control.leaseValid(node.host.clock.nowMs());
      const { usedBytes, capacityBytes, full } = store.space();
      const leader = control.leader();
      const { boot } = store.superblock;
      return { ready, facts: { brick: node.number, boot, leader, usedBytes, capacityBytes, full } };
    },
    log,
  });
}
