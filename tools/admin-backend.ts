import { randomBytes } from "node:crypto";
import {
  type BrickRecord,
  brickOf,
  type ChapRecord,
  type ClusterState,
  type InitiatorRecord,
  isReachable,
  type RebalanceMode,
  type VolumeRecord,
} from "../brick/cluster-state.ts";
import { levelOf } from "../brick/feature-level.ts";
import { gcOf } from "../brick/gc/epochs.ts";
import { commonName } from "../control/access.ts";
import type {
  AccessSummary,
  AdminBackend,
  AdminFault,
  AdminFaultCode,
  AdminReply,
  BrickDetail,
  BrickSummary,
  ClusterStatus,
  EventSummary,
  InitiatorSummary,
  JoinDetails,
  JoinGrant,
  ProblemSummary,
  ShardsSummary,
  VolumeSummary,
} from "../control/api.ts";
import type { CommandFault } from "../control/command-result.ts";
import type { Command } from "../control/commands.ts";
import { bricksText } from "../control/counted-text.ts";
import { eventsSince, eventText } from "../control/events.ts";
import { replicasNow } from "../control/shard-commands.ts";
import { targetNameOf } from "../iscsi/target-name.ts";
import type { BrickNode } from "./brick-node.ts";
import { askStats, type BrickStats } from "./brick-stats.ts";
import { buildVersion } from "./build-version.ts";
import { problemsOf } from "./health/problems.ts";

/** How long the answer to a deletion waits for the volume's key to be destroyed by the bricks. */
const keyGoneMsMax = 10_000;

const faultCodes: Record<CommandFault["code"], AdminFaultCode> = {
  not_initialised: "unavailable",
  already_initialised: "conflict",
  unknown: "not_found",
  taken: "exists",
  token_refused: "refused",
  stale: "conflict",
  store_refused: "conflict",
  given_up: "conflict",
  not_now: "conflict",
  no_change: "conflict",
  bad_value: "invalid",
  limit: "conflict",
  expired: "unavailable",
  leader_only: "failed",
  unavailable: "unavailable",
};

/** The administration of a cluster, as any of its bricks can do it. */
export class NodeBackend implements AdminBackend {
  readonly #node: BrickNode;
  readonly #random: (bytes: number) => Buffer;

  /** `random`: unpredictable bytes; in the simulator, the seed's. */
  constructor(node: BrickNode, random: (bytes: number) => Buffer = randomBytes) {
    this.#node = node;
    this.#random = random;
  }

  async status(): Promise<AdminReply<ClusterStatus>> {
    return this.#fresh(async () => {
      const state = this.#node.control.state();
      const stats = await this.#allStats();
      const total = (pick: (one: BrickStats) => number) =>
        [...stats]
          // What a spare offers is nobody's space yet.
          .filter(([number]) => brickOf(state, number)?.spare !== true)
          .reduce((sum, [, one]) => sum + pick(one), 0);
      return {
        clusterId: state.clusterId,
        version: state.version,
        leader: this.#node.control.leader(),
        commonTarget: targetNameOf(commonName(state.clusterId)),
        discoveryUser: state.discoveryChap?.user ?? "",
        bricks: Object.values(state.bricks)
          .filter((brick) => brick.status !== "removed")
          .map((brick) => this.#brick(brick, stats.get(brick.number))),
        volumes: Object.values(state.volumes)
          .sort((a, b) => (a.name < b.name ? -1 : 1))
          .map((volume) => this.#volume(volume, stats)),
        shards: this.#shards(),
        capacityBytes: total((one) => one.capacityBytes),
        usedBytes: total((one) => one.usedBytes),
        freeBytes: total((one) => one.freeBytes),
        chunkCount: total((one) => one.chunkCount),
        chunkBytes: total((one) => one.chunkBytes),
        writtenBytes: total((one) => one.mapped.reduce((sum, [, bytes]) => sum + bytes, 0)),
        reserveBytes: total((one) => one.reserveBytes),
        overheadBytes: total((one) => one.overheadBytes),
        reclaimableBytes: total((one) => one.reclaimableBytes),
        gcEpoch: state.gcEpoch,
        gcMarked: gcOf(state).marked,
        level: levelOf(state),
        rebalance: state.rebalance ?? "idle",
        dedupHits: total((one) => one.dedupHits),
        dedupBytes: total((one) => one.dedupBytes),
        problems: this.#problems(stats),
      };
    });
  }

  async events(since: number): Promise<AdminReply<{ events: EventSummary[] }>> {
    return this.#fresh(async () => ({
      events: eventsSince(this.#node.control.events(), since).map((record) => {
        const { sequence, wallMs, clusterMs, severity, kind, subject, gathered } = record;
        const text = eventText(record);
        const count = gathered?.count ?? 1;
        return { sequence, wallMs, clusterMs, severity, kind, subject, text, count };
      }),
    }));
  }

  #problems(stats: ReadonlyMap<number, BrickStats>): ProblemSummary[] {
    const { control, host } = this.#node;
    return problemsOf({
      state: control.state(),
      events: control.events(),
      stats,
      wallMs: host.clock.wallMs(),
      build: buildVersion,
      permanentAfterMs: control.timing.permanentAfterMs,
      transferAfterMs: control.timing.transferAfterMs,
    });
  }

  async brickShow(number: number): Promise<AdminReply<BrickDetail>> {
    return this.#fresh(async () => {
      const brick = brickOf(this.#node.control.state(), number);
      if (brick === undefined) return notFound(`there is no brick ${number}`);
      const stats = await askStats(this.#node.calls, number);
      return {
        brick: this.#brick(brick, stats ?? undefined),
        shardsLed: stats?.shardsLed ?? 0,
        shardsMember: stats?.shardsMember ?? 0,
        shardsCandidate: stats?.shardsCandidate ?? 0,
        chunkCount: stats?.chunkCount ?? 0,
        chunkBytes: stats?.chunkBytes ?? 0,
        dedupHits: stats?.dedupHits ?? 0,
        dedupBytes: stats?.dedupBytes ?? 0,
      };
    });
  }

  brickDrain(number: number): Promise<AdminReply<BrickSummary>> {
    return this.#onBrick(number, { type: "drainBrick", number, drain: true });
  }

  brickUse(number: number): Promise<AdminReply<BrickSummary>> {
    return this.#onBrick(number, { type: "useSpare", number });
  }

  rebalance(mode: RebalanceMode): Promise<AdminReply<null>> {
    return this.#done({ type: "setRebalance", mode });
  }

  async brickRemove(number: number, lost: boolean): Promise<AdminReply<BrickSummary>> {
    const emptied = await this.#isEmptied(number);
    return this.#onBrick(number, { type: "removeBrick", number, emptied, force: lost });
  }

  /** Whether every shard is led somewhere, and was found in order since the brick began to leave. */
  async #isEmptied(number: number): Promise<boolean> {
    if (!(await this.#node.control.refresh())) return false;
    const state = this.#node.control.state();
    const status = brickOf(state, number)?.status;
    if (status !== "draining" && status !== "failed") return false;
    const stats = [...(await this.#allStats()).values()];
    // A primary that has not learnt of the drain yet speaks of an older world.
    if (stats.some((one) => one.stateVersion < state.version)) return false;
    const led = stats.reduce((sum, one) => sum + one.shardsLed, 0);
    return led === state.shards.length && stats.every((one) => one.repairPending === 0);
  }

  async volumeCreate(name: string, sizeBytes: number, copies: number, encrypt: boolean) {
    const uuid = this.#random(16).toString("hex");
    const key = encrypt ? await this.#newKey(name, uuid, copies) : null;
    if (key?.ok === false) return key;
    const command: Command = {
      type: "createVolume",
      name,
      uuid,
      sizeBytes,
      copies,
      degradedWrites: true,
      ...(key !== null && { keyDomain: key.value }),
    };
    return this.#onVolume(name, command);
  }

  /** The domain of a key that enough bricks keep. Nothing is done for a name that is taken. */
  async #newKey(name: string, uuid: string, copies: number): Promise<AdminReply<number>> {
    const { control, keys } = this.#node;
    if (!(await control.refresh())) return { ok: false, fault: await this.#noQuorum() };
    if (control.state().volumes[name] !== undefined) {
      return { ok: false, fault: { code: "exists", message: `volume ${name} exists` } };
    }
    const made = await keys.make(uuid, copies);
    if (made.ok) return { ok: true, value: made.domain };
    const message = `cannot create volume ${name} encrypted: ${made.reason}`;
    return { ok: false, fault: { code: "unavailable", message } };
  }

  async volumeShow(name: string): Promise<AdminReply<VolumeSummary>> {
    return this.#fresh(async () => this.#volumeNamed(name));
  }

  async volumeResize(name: string, sizeBytes: number): Promise<AdminReply<VolumeSummary>> {
    return this.#onVolume(name, { type: "resizeVolume", name, sizeBytes, shrink: false });
  }

  async volumeDelete(name: string): Promise<AdminReply<VolumeSummary>> {
    const shown = await this.volumeShow(name);
    if (!shown.ok) return shown;
    const { control, keys } = this.#node;
    const keyDomain = control.state().volumes[name]?.keyDomain;
    const deleted = await control.submit({ type: "deleteVolume", name });
    if (!deleted.ok) return refused(deleted.fault);
    // Branch numbers are not used again, so the name is free at once; what the branch maps is
    // garbage from here on. The leader does the same, should this brick not come to it.
    const { uuid } = shown.value;
    const result = await control.submit({ type: "forgetVolume", uuid });
    if (!result.ok && result.fault.code !== "unknown") return refused(result.fault);
    // Bricks that are away now destroy the key when they are back.
    if (keyDomain !== undefined) await keys.goneWhereReachable(keyDomain, keyGoneMsMax);
    return { ok: true, value: { ...shown.value, status: "deleting" } };
  }

  async volumeAllow(name: string, initiator: string, lun: number) {
    const chosen = lun < 0 ? null : lun;
    return this.#onVolume(name, { type: "allowVolume", name, initiator, lun: chosen });
  }

  async volumeDeny(name: string, initiator: string): Promise<AdminReply<VolumeSummary>> {
    return this.#onVolume(name, { type: "denyVolume", name, initiator });
  }

  async volumeOpen(name: string, open: boolean): Promise<AdminReply<VolumeSummary>> {
    return this.#onVolume(name, { type: "openVolume", name, open });
  }

  async initiatorList(): Promise<AdminReply<{ initiators: InitiatorSummary[] }>> {
    return this.#fresh(async () => {
      const state = this.#node.control.state();
      const records = Object.values(state.initiators ?? {});
      const initiators = records
        .sort((one, other) => (one.name < other.name ? -1 : 1))
        .map((record) => initiatorSummary(state, record));
      return { initiators };
    });
  }

  async initiatorShow(name: string): Promise<AdminReply<InitiatorSummary>> {
    return this.#fresh(async () => {
      const state = this.#node.control.state();
      const record = state.initiators?.[name];
      if (record === undefined) return notFound(`there is no initiator ${name}`);
      return initiatorSummary(state, record);
    });
  }

  async initiatorSet(name: string, chap: ChapRecord | null): Promise<AdminReply<InitiatorSummary>> {
    const result = await this.#node.control.submit({ type: "setInitiator", name, chap });
    return result.ok ? this.initiatorShow(name) : refused(result.fault);
  }

  async initiatorRemove(name: string): Promise<AdminReply<null>> {
    return this.#done({ type: "removeInitiator", name });
  }

  async discoveryChap(chap: ChapRecord | null): Promise<AdminReply<null>> {
    return this.#done({ type: "setDiscoveryChap", chap });
  }

  async tokenAdd(id: string, hash: string, validMs: number): Promise<AdminReply<null>> {
    return this.#done({ type: "addJoinToken", id, hash, lifeMs: validMs });
  }

  async tokenHash(id: string): Promise<AdminReply<string>> {
    return this.#fresh(async () => {
      const state = this.#node.control.state();
      const token = state.joinTokens[id];
      return token === undefined ? notFound("there is no such token") : token.hash;
    });
  }

  async join(
    tokenId: string,
    details: JoinDetails,
  ): Promise<AdminReply<Omit<JoinGrant, "secret">>> {
    const hash = await this.tokenHash(tokenId);
    if (!hash.ok) return hash;
    const { control } = this.#node;
    const command: Command = { type: "joinBrick", tokenId, tokenHash: hash.value, ...details };
    const result = await control.submit(command);
    if (!result.ok) return refused(result.fault);
    const state = control.state();
    const peers = Object.values(state.bricks)
      .filter((brick) => brick.number !== result.value && brick.status !== "removed")
      .map(({ number, peerAddress, apiAddress }) => ({ number, peerAddress, apiAddress }));
    return { ok: true, value: { clusterId: state.clusterId, number: result.value, peers } };
  }

  /** Answers from a state that is as new as the call. */
  async #fresh<T>(read: () => Promise<T | FaultAnswer>): Promise<AdminReply<T>> {
    if (!(await this.#node.control.refresh())) return { ok: false, fault: await this.#noQuorum() };
    const value = await read();
    return value instanceof FaultAnswer ? { ok: false, fault: value.fault } : { ok: true, value };
  }

  /** Without a leader nothing is known for sure; but who votes, and who of them answers, helps. */
  async #noQuorum(): Promise<AdminFault> {
    const { control, calls, number } = this.#node;
    const voters = Object.values(control.state().bricks).filter((brick) => brick.voter);
    const answers = await Promise.all(voters.map((one) => askStats(calls, one.number)));
    const silent = voters.filter((_, at) => answers[at] === null).map((one) => one.number);
    const all = bricksText(voters.map((one) => one.number));
    const needed = voters.length === 1 ? `${all} must run` : `most of ${all} must run`;
    const who =
      silent.length === 0 ? "" : `; brick ${number} hears nothing of ${bricksText(silent)}`;
    const message = `no quorum of the control plane answers: ${needed}${who}`;
    return { code: "unavailable", message };
  }

  async #done(command: Command): Promise<AdminReply<null>> {
    const result = await this.#node.control.submit(command);
    return result.ok ? { ok: true, value: null } : refused(result.fault);
  }

  async #onBrick(number: number, command: Command): Promise<AdminReply<BrickSummary>> {
    const result = await this.#node.control.submit(command);
    if (!result.ok) return refused(result.fault);
    return this.#fresh(async () => {
      const brick = brickOf(this.#node.control.state(), number);
      return brick === undefined ? notFound(`there is no brick ${number}`) : this.#brick(brick);
    });
  }

  async #onVolume(name: string, command: Command): Promise<AdminReply<VolumeSummary>> {
    const result = await this.#node.control.submit(command);
    return result.ok ? this.volumeShow(name) : refused(result.fault);
  }

  async #volumeNamed(name: string): Promise<VolumeSummary | FaultAnswer> {
    const volume = this.#node.control.state().volumes[name];
    if (volume === undefined) return notFound(`there is no volume ${name}`);
    return this.#volume(volume, await this.#allStats());
  }

  async #allStats(): Promise<Map<number, BrickStats>> {
    const { control, calls } = this.#node;
    const reachable = Object.values(control.state().bricks).filter((brick) => isReachable(brick));
    const answers = await Promise.all(
      reachable.map(async ({ number }) => [number, await askStats(calls, number)] as const),
    );
    const stats = new Map<number, BrickStats>();
    for (const [number, answer] of answers) if (answer !== null) stats.set(number, answer);
    return stats;
  }

  #brick(brick: BrickRecord, stats?: BrickStats): BrickSummary {
    const { number, uuid, status, reachable, voter, peerAddress, portalAddress } = brick;
    return {
      number,
      uuid,
      status,
      reachable,
      voter,
      leader: this.#node.control.leader() === number,
      peerAddress,
      portalAddress,
      apiAddress: brick.apiAddress,
      domain: brick.domain,
      capacityBytes: stats?.capacityBytes ?? brick.capacityBytes,
      usedBytes: stats?.usedBytes ?? brick.usedBytes,
      full: brick.full,
      boot: brick.boot,
      spare: brick.spare === true,
      growing: brick.growing === true,
      memoryBytes: stats?.memoryBytes ?? 0,
      residentBytes: stats?.residentBytes ?? 0,
      build: stats?.build ?? "",
      levelNewest: stats?.levels.newest ?? 0,
    };
  }

  #volume(volume: VolumeRecord, stats: ReadonlyMap<number, BrickStats>): VolumeSummary {
    const { name, uuid, sizeBytes, copies, status, branch } = volume;
    let usedBytes = 0;
    for (const one of stats.values()) {
      for (const [mapped, bytes] of one.mapped) if (mapped === branch) usedBytes += bytes;
    }
    return {
      name,
      uuid,
      target: targetNameOf(name),
      sizeBytes,
      copies,
      status,
      usedBytes,
      freeBytes: Math.max(0, Math.min(sizeBytes - usedBytes, writableBytes(stats, copies))),
      attachedBrick: this.#node.control.state().attachments[uuid]?.brick ?? 0,
      open: volume.open ?? false,
      encrypted: volume.keyDomain !== undefined,
      access: accessSummary(volume),
    };
  }

  #shards(): ShardsSummary {
    const state = this.#node.control.state();
    const wanted = replicasNow(state);
    const summary: ShardsSummary = {
      total: state.shards.length,
      whole: 0,
      short: 0,
      unavailable: 0,
    };
    for (const shard of state.shards) {
      const live = shard.members.filter((one) => isReachable(brickOf(state, one)));
      if (live.length === 0) summary.unavailable += 1;
      else if (live.length < wanted || shard.candidates.length > 0) summary.short += 1;
      else summary.whole += 1;
    }
    return summary;
  }
}

function accessSummary(volume: VolumeRecord): AccessSummary[] {
  return Object.entries(volume.access ?? {})
    .map(([initiator, { lun }]) => ({ initiator, lun: lun ?? -1 }))
    .sort((one, other) => (one.initiator < other.initiator ? -1 : 1));
}

function initiatorSummary(state: ClusterState, record: InitiatorRecord): InitiatorSummary {
  const { name, chap } = record;
  const volumes = Object.values(state.volumes)
    .filter((volume) => volume.access?.[name] !== undefined)
    .map((volume) => ({ name: volume.name, lun: volume.access![name]!.lun ?? -1 }))
    .sort((one, other) => (one.name < other.name ? -1 : 1));
  return {
    name,
    user: chap?.user ?? "",
    weakest: chap?.weakest ?? "",
    mutualUser: chap?.mutual?.user ?? "",
    volumes,
  };
}

/** What fits on the bricks with every byte on `copies` different ones. */
function writableBytes(stats: ReadonlyMap<number, BrickStats>, copies: number): number {
  const free = [...stats.values()].map((one) => one.freeBytes).sort((a, b) => b - a);
  // The largest bricks can give no more than the others can pair with: each in turn is left out.
  let bytes = Number.POSITIVE_INFINITY;
  for (let without = 0; without < copies; without += 1) {
    const rest = free.slice(without).reduce((sum, one) => sum + one, 0);
    bytes = Math.min(bytes, rest / (copies - without));
  }
  return Math.floor(bytes);
}

/** A fault as the answer to a read. */
class FaultAnswer {
  readonly fault: AdminFault;
  constructor(fault: AdminFault) {
    this.fault = fault;
  }
}

function notFound(message: string): FaultAnswer {
  return new FaultAnswer({ code: "not_found", message });
}

function refused(fault: CommandFault): { ok: false; fault: AdminFault } {
  return { ok: false, fault: { code: faultCodes[fault.code], message: fault.message } };
}
