import { type BrickRecord, type ClusterState, isReachable } from "../../brick/cluster-state.ts";
import { liveKeys } from "../../brick/crypt/key-domains.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { replicasNow } from "../../control/shard-commands.ts";
import { votersWanted } from "../../control/voters.ts";
import { shortOfCopies } from "./copies.ts";
import type { SimCluster } from "./sim-cluster.ts";

/**
 * What is left to do in a cluster in which every machine runs that is not lost; null: nothing. What an
 * operator began has come to its end, or was never begun: there is no third.
 */
export function disorder(cluster: SimCluster): string | null {
  const state = cluster.anyNode()?.control.state();
  if (state === undefined) return "no brick runs";
  return (
    bricksAmiss(cluster, state) ??
    shardsAmiss(state) ??
    leftOver(state) ??
    votersAmiss(state) ??
    keysAmiss(cluster, state) ??
    replicasAmiss(cluster, state)
  );
}

/** What is named on fewer bricks than it should be. A lost brick's copies are missed until it is removed. */
export function copiesAmiss(cluster: SimCluster): string | null {
  const { bricks } = cluster.anyNode()!.control.state();
  const lost = [...cluster.gone.keys()].filter((one) => bricks[one]?.status === "down");
  return lost.length > 0 ? null : shortOfCopies(cluster);
}

/** Bricks whose machines run, or will: a lost one does not, nor one that has a number and no process yet. */
function present(cluster: SimCluster, { bricks }: ClusterState): BrickRecord[] {
  const machines = new Set(cluster.bricks);
  return Object.values(bricks).filter(
    ({ number, status }) => machines.has(number) && status !== "removed" && status !== "failed",
  );
}

function bricksAmiss(cluster: SimCluster, state: ClusterState): string | null {
  for (const brick of present(cluster, state)) {
    const { number, status, boot } = brick;
    const node = cluster.nodes.get(number);
    if (node === undefined) return `brick ${number} does not run`;
    if (!isReachable(brick)) return `brick ${number} is ${status}`;
    if (boot !== node.store.superblock.boot) return `brick ${number} is not known under its boot`;
    const { version } = node.control.state();
    if (version !== state.version) return `brick ${number} knows version ${version}`;
    if (brick.growing === true) return `brick ${number} has not got its share`;
    const pending = node.repair.pendingShards();
    if (pending.length > 0) return `brick ${number} has not put shards ${pending} in order`;
    if (status === "draining" && isUsed(state, number)) return `brick ${number} is still used`;
  }
  return null;
}

function isUsed({ shards, attachments, bricks }: ClusterState, number: BrickNumber): boolean {
  return (
    shards.some(({ members, candidates }) => [...members, ...candidates].includes(number)) ||
    Object.values(attachments).some(({ brick }) => brick === number) ||
    bricks[number]!.voter
  );
}

function shardsAmiss(state: ClusterState): string | null {
  const wanted = replicasNow(state);
  for (const [number, shard] of state.shards.entries()) {
    const { members, candidates, chain, primary, primaryBoot } = shard;
    const isLed = state.bricks[primary]?.boot === primaryBoot;
    const away = members.filter((one) => !isReachable(state.bricks[one]));
    const isWhole = members.length === wanted && candidates.length === 0 && chain.length === 0;
    if (!isLed || !isWhole || away.length > 0) return `shard ${number}: ${JSON.stringify(shard)}`;
  }
  return null;
}

/** Of verbs that take several steps: what the first ones left for the last. */
function leftOver(state: ClusterState): string | null {
  const { volumes, attachments, units = {}, pendingKeys = {} } = state;
  const uuids = new Set(Object.values(volumes).map(({ uuid }) => uuid));
  for (const { name, status } of Object.values(volumes)) {
    if (status !== "ready") return `volume ${name} is ${status}`;
  }
  for (const uuid of [...Object.keys(attachments), ...Object.keys(units)]) {
    if (!uuids.has(uuid)) return `there is something of volume ${uuid}, which is not there`;
  }
  const erased = Object.entries(units).find(([, { sanitize }]) => sanitize !== null);
  if (erased !== undefined) return `volume ${erased[0]} is being erased`;
  const [pending] = Object.keys(pendingKeys);
  return pending === undefined ? null : `key ${pending} waits for its volume`;
}

function votersAmiss({ bricks }: ClusterState): string | null {
  const all = Object.values(bricks);
  const lasting = all.filter(({ status }) => status === "up" || status === "down");
  const voters = all.filter(({ voter }) => voter).map(({ number }) => number);
  const isRight = voters.length === votersWanted(lasting.length);
  return isRight ? null : `bricks ${voters} vote`;
}

/** Every brick keeps the keys of the volumes that there are, in as many files, and who has left none. */
function keysAmiss(cluster: SimCluster, state: ClusterState): string | null {
  const wanted = liveKeys(state).map(({ domain }) => domain);
  const left = cluster.bricks.filter((number) => state.bricks[number]?.status === "removed");
  const keeping = present(cluster, state).map(({ number }) => number);
  for (const number of [...keeping, ...left]) {
    const { disk } = cluster.world.machine(number);
    const files = disk.paths().filter((path) => path.startsWith("keys/"));
    const due = left.includes(number) ? [] : wanted;
    const kept = due.map((domain) => `keys/${String(domain).padStart(5, "0")}.key`).sort();
    if (files.join() !== kept.join()) return `brick ${number} keeps ${files}, not ${kept}`;
  }
  return null;
}

/** Nobody goes on with a replica that the state does not give to it. */
function replicasAmiss(cluster: SimCluster, state: ClusterState): string | null {
  for (const { number } of present(cluster, state)) {
    for (const { shard, role, view } of cluster.nodes.get(number)!.map.replicas()) {
      const { members, candidates } = state.shards[shard]!;
      const isGiven = [...members, ...candidates].includes(number);
      if (view !== null && role.is !== "idle" && !isGiven) {
        return `brick ${number} is ${role.is} of shard ${shard}, and is not of its view`;
      }
    }
  }
  return null;
}
