import { type ChapRecord, type ClusterState, isReachable } from "../../brick/cluster-state.ts";
import { type LevelRange, levelOf, levelsBefore, ownLevels } from "../../brick/feature-level.ts";
import { type BrickNumber, KiB, MiB } from "../../brick/units.ts";
import type { AdminBackend, AdminFaultCode, AdminReply } from "../../control/api.ts";
import { lackOfCopies, lackOfPrimaries } from "./copies.ts";
import { pause } from "./scene.ts";
import { type SimClusterOptions, volumeName } from "./sim-cluster.ts";
import type { VerbScene } from "./verb-scene.ts";

/**
 * What an operator can do, each with what it is to have brought about once all has come to rest.
 * "begun": shown by `endisk status`, and asking again goes on with it; nothing else waits for that.
 */
export type Effect = "absent" | "begun" | "whole" | { readonly half: string };

export interface Verb {
  readonly name: string;
  readonly cluster?: Partial<SimClusterOptions>;
  /** What was there before. */
  prepare?(scene: VerbScene): Promise<void>;
  ask(scene: VerbScene, backend: AdminBackend): Promise<AdminReply<unknown>>;
  effect(scene: VerbScene): Effect;
  /** How it is refused when it is done already; absent: it is not. */
  readonly refusedWhenDone?: AdminFaultCode;
  /** It is answered when it has begun; what it began goes on by itself, and is waited for. */
  isUnderWay?(scene: VerbScene): boolean;
  /** Data that the verb takes away when it takes effect. */
  readonly takes?: { readonly volume: string; readonly fate: "erased" | "gone" };
}

const spareName = "disk1";
const host = "iqn.2026-11.example:host";
const tokenId = "token-of-the-operator";
const tokenHash = "5a".repeat(32);
const hourMs = 3_600_000;
const extraBytes = 64 * MiB;
/** Between two tries of an operator, and how many there are. */
const askAgainMs = 250;
const removalsMax = 120;
/** Within which a shard without a primary has one again. */
const ledLooksMax = 60;

const secret = (digit: string) => ({ sealed: "00".repeat(60), fingerprint: digit.repeat(32) });
const chap: ChapRecord = { user: "host", secret: secret("a"), weakest: "sha256", mutual: null };

/** Of a verb that is one change of the cluster state. */
function change(
  name: string,
  parts: Omit<Verb, "name" | "effect"> & { isDone: (state: ClusterState) => boolean },
): Verb {
  const { isDone, ...rest } = parts;
  return { name, ...rest, effect: ({ state }) => (isDone(state) ? "whole" : "absent") };
}

const withHost = (scene: VerbScene) => scene.order((api) => api.initiatorSet(host, null));

async function withAccess(scene: VerbScene): Promise<void> {
  await withHost(scene);
  await scene.order((api) => api.volumeAllow(volumeName, host, 3));
}

const access: readonly Verb[] = [
  change("initiator add", {
    ask: (_scene, api) => api.initiatorSet(host, chap),
    isDone: ({ initiators }) => initiators?.[host]?.chap?.user === "host",
  }),
  change("volume allow", {
    prepare: withHost,
    ask: (_scene, api) => api.volumeAllow(volumeName, host, 3),
    isDone: ({ volumes }) => volumes[volumeName]!.access?.[host]?.lun === 3,
    refusedWhenDone: "conflict",
  }),
  change("volume deny", {
    prepare: withAccess,
    ask: (_scene, api) => api.volumeDeny(volumeName, host),
    isDone: ({ volumes }) => volumes[volumeName]!.access?.[host] === undefined,
    refusedWhenDone: "not_found",
  }),
  change("volume allow --no-auth", {
    ask: (_scene, api) => api.volumeOpen(volumeName, true),
    isDone: ({ volumes }) => volumes[volumeName]!.open === true,
    refusedWhenDone: "conflict",
  }),
  change("initiator remove", {
    prepare: withHost,
    ask: (_scene, api) => api.initiatorRemove(host),
    isDone: ({ initiators }) => initiators?.[host] === undefined,
    refusedWhenDone: "not_found",
  }),
  change("discovery chap set", {
    ask: (_scene, api) => api.discoveryChap(chap),
    isDone: ({ discoveryChap }) => discoveryChap?.user === "host",
  }),
  change("rebalance", {
    ask: (_scene, api) => api.rebalance("on"),
    isDone: ({ rebalance }) => rebalance === "on",
    refusedWhenDone: "conflict",
  }),
  change("token", {
    ask: (_scene, api) => api.tokenAdd(tokenId, tokenHash, hourMs),
    isDone: ({ joinTokens }) => joinTokens[tokenId] !== undefined,
    refusedWhenDone: "exists",
  }),
];

/** Every portal offers the volume in that size; 0: none offers it. */
function offered(scene: VerbScene, name: string, sizeBytes: number): Effect {
  for (const brick of scene.cluster.bricks) {
    const found = scene.cluster.volumeAt(brick, name)?.info.sizeBytes ?? 0;
    if (found !== sizeBytes) return { half: `brick ${brick} offers ${found} bytes of ${name}` };
  }
  return sizeBytes === 0 ? "absent" : "whole";
}

function made(name: string, encrypt: boolean): Verb {
  return {
    name,
    ask: (_scene, api) => api.volumeCreate(spareName, extraBytes, 2, encrypt),
    effect: (scene) => {
      const volume = scene.state.volumes[spareName];
      const isEncrypted = volume?.keyDomain !== undefined;
      if (volume !== undefined && isEncrypted !== encrypt) return { half: "its key is missing" };
      return offered(scene, spareName, volume?.sizeBytes ?? 0);
    },
    refusedWhenDone: "exists",
  };
}

function deleted(name: string, encrypt: boolean): Verb {
  return {
    name,
    prepare: async (scene) => {
      await scene.order((api) => api.volumeCreate(spareName, extraBytes, 2, encrypt));
      await scene.calm();
      await scene.load.fill(scene.gateway, spareName);
    },
    ask: (_scene, api) => api.volumeDelete(spareName),
    effect: (scene) => {
      const { sizeBytes = 0 } = scene.state.volumes[spareName] ?? {};
      const found = offered(scene, spareName, sizeBytes);
      if (found === "whole") return "absent";
      return found === "absent" ? "whole" : found;
    },
    refusedWhenDone: "not_found",
    takes: { volume: spareName, fate: "gone" },
  };
}

const grownBytes = 256 * MiB;

const volumes: readonly Verb[] = [
  made("volume create", false),
  made("volume create --encrypt", true),
  {
    name: "volume resize",
    ask: (_scene, api) => api.volumeResize(volumeName, grownBytes),
    effect: (scene) => {
      const { sizeBytes } = scene.state.volumes[volumeName]!;
      const found = offered(scene, volumeName, sizeBytes);
      return found !== "whole" || sizeBytes === grownBytes ? found : "absent";
    },
    refusedWhenDone: "conflict",
  },
  deleted("volume delete", false),
  deleted("volume delete, of an encrypted one", true),
  erase(),
];

/** SANITIZE with CRYPTOGRAPHIC ERASE, which an initiator asks for: the volume gets another key. */
function erase(): Verb {
  const keyOf = ({ state }: VerbScene) => state.volumes[spareName]!.keyDomain;
  return {
    name: "cryptographic erase",
    prepare: async (scene) => {
      await scene.order((api) => api.volumeCreate(spareName, extraBytes, 2, true));
      await scene.calm();
      await scene.load.fill(scene.gateway, spareName);
    },
    ask: async (scene) => {
      const nexus = { initiatorPort: `${host},i,0x00023d000001`, targetPort: scene.asked };
      const start = { type: "sanitizeStart", nexus, allowUnrestrictedExit: false } as const;
      const volume = scene.cluster.volumeAt(scene.asked, spareName);
      const changed = await volume?.changeUnit({ ...start, method: "crypto" });
      if (changed?.ok === true && changed.outcome === "done") return { ok: true, value: null };
      return { ok: false, fault: { code: "unavailable", message: JSON.stringify(changed) } };
    },
    // The first key of a cluster has the number 1, and no number is used again.
    effect: (scene) => (keyOf(scene) === 1 ? "absent" : "whole"),
    isUnderWay: ({ state }) =>
      (state.units?.[state.volumes[spareName]!.uuid]?.sanitize ?? null) !== null,
    takes: { volume: spareName, fate: "erased" },
  };
}

function joins(name: string, spare: boolean): Verb {
  return {
    name,
    prepare: async (scene) => {
      await scene.order((api) => api.tokenAdd(tokenId, tokenHash, hourMs));
      scene.subject = scene.cluster.bricks.length + 1;
    },
    // As `endisk brick --join`: once it has its number the new brick runs.
    ask: async (scene, api) => {
      const { subject, cluster } = scene;
      const told = await api.join(tokenId, { ...cluster.factsOf(subject), spare });
      if (told.ok && told.value.number !== subject) throw new Error("the brick has two numbers");
      if (told.ok && !cluster.bricks.includes(subject)) cluster.admit(subject);
      return told;
    },
    effect: ({ state, subject, cluster }) => {
      const brick = state.bricks[subject];
      if (brick === undefined) return "absent";
      if (brick.status === "joining" && !cluster.bricks.includes(subject)) return "begun";
      if ((brick.spare === true) !== spare) return { half: "it forgot whether it is a spare" };
      return isReachable(brick) ? "whole" : { half: `the new brick is ${brick.status}` };
    },
  };
}

const four = { bricks: 4 };

function drains(name: string, subjectOf: (scene: VerbScene) => BrickNumber): Verb {
  return {
    name,
    cluster: four,
    prepare: async (scene) => {
      scene.subject = subjectOf(scene);
    },
    ask: (scene, api) => api.brickDrain(scene.subject),
    effect: ({ state, subject }) =>
      state.bricks[subject]!.status === "draining" ? "whole" : "absent",
    refusedWhenDone: "conflict",
  };
}

const slowPieces = 120;
const slowBytesPerSecond = 256 * KiB;
const slowCopies = {
  floorBytesPerSecond: slowBytesPerSecond,
  ceilingBytesPerSecond: slowBytesPerSecond,
  gentleBytesPerSecond: slowBytesPerSecond,
};

/** As the advice of `endisk status` goes: a removal is asked for until nothing needs the brick any more. */
async function drainAndRemove(scene: VerbScene, api: AdminBackend) {
  const { subject, cluster } = scene;
  const drained = await api.brickDrain(subject);
  if (!drained.ok && drained.fault.code !== "conflict") return drained;
  for (let asks = 0; ; asks += 1) {
    const removed = await api.brickRemove(subject, false);
    if (removed.ok) {
      const others = cluster.bricks.filter((one) => one !== subject);
      const doRun = others.every((one) => cluster.nodes.has(one));
      const short = doRun ? await shortWithout(scene) : null;
      if (short !== null) throw new Error(`removed too early: ${short}`);
      return removed;
    }
    // Of one that is removed already, or is still needed when the operator's patience ends.
    const isOver = scene.state.bricks[subject]!.status === "removed" || asks >= removalsMax;
    if (removed.fault.code !== "conflict" || isOver) return removed;
    await pause(scene, askAgainMs);
  }
}

/** Its machine is taken away as soon as it is removed: what is short of copies then. */
async function shortWithout(scene: VerbScene): Promise<string | null> {
  const { cluster, subject } = scene;
  cluster.dismiss(subject);
  const short = lackOfCopies(cluster);
  if (short !== null) return short;
  // What a brick led before it lost power is led again soon.
  for (let looks = 0; lackOfPrimaries(cluster) !== null; looks += 1) {
    if (looks === ledLooksMax) return lackOfPrimaries(cluster);
    await pause(scene, askAgainMs);
  }
  return lackOfCopies(cluster);
}

function isRemoved({ state, subject }: VerbScene): Effect {
  return state.bricks[subject]!.status === "removed" ? "whole" : "absent";
}

/** A brick's machine is lost, with whatever it led and kept. */
async function lose(scene: VerbScene): Promise<void> {
  scene.subject = scene.otherThan(scene.leader, scene.gateway, scene.asked);
  scene.cluster.dismiss(scene.subject);
  await scene.until(() => !isReachable(scene.state.bricks[scene.subject]));
  await scene.calm();
}

async function addSpare(scene: VerbScene): Promise<BrickNumber> {
  const spare = await scene.cluster.join({ spare: true });
  await scene.calm();
  return spare;
}

const bricks: readonly Verb[] = [
  joins("brick --join", false),
  joins("brick --join --spare", true),
  {
    name: "brick use",
    prepare: async (scene) => {
      scene.subject = await addSpare(scene);
    },
    ask: (scene, api) => api.brickUse(scene.subject),
    effect: ({ state, subject }) => (state.bricks[subject]!.spare === true ? "absent" : "whole"),
    refusedWhenDone: "conflict",
  },
  drains("brick drain, of the gateway", ({ gateway }) => gateway),
  drains("brick drain, of the leader", ({ leader }) => leader),
  {
    name: "brick drain, and remove",
    // There is so much to copy, and so slowly, that the map has left the brick long before.
    cluster: { ...four, copyRates: slowCopies },
    prepare: async (scene) => {
      scene.subject = scene.gateway;
      await scene.load.fill(scene.gateway, volumeName, slowPieces);
    },
    ask: drainAndRemove,
    effect: ({ state, subject }) => {
      const { status } = state.bricks[subject]!;
      if (status === "draining") return "begun";
      return status === "removed" ? "whole" : "absent";
    },
    refusedWhenDone: "conflict",
  },
  {
    name: "brick remove",
    cluster: { ...four, encrypt: true },
    prepare: async (scene) => {
      scene.subject = scene.gateway;
      await scene.order((api) => api.brickDrain(scene.subject));
      await scene.calm();
      scene.gateway = scene.cluster.volumeHolder(volumeName) ?? scene.leader;
    },
    ask: (scene, api) => api.brickRemove(scene.subject, false),
    effect: isRemoved,
    refusedWhenDone: "conflict",
  },
  {
    name: "brick remove --lost",
    cluster: four,
    prepare: lose,
    ask: (scene, api) => api.brickRemove(scene.subject, true),
    effect: isRemoved,
    refusedWhenDone: "conflict",
  },
  {
    name: "brick remove --lost, with a spare",
    cluster: four,
    prepare: async (scene) => {
      await addSpare(scene);
      await lose(scene);
    },
    ask: (scene, api) => api.brickRemove(scene.subject, true),
    effect: (scene) => {
      const isSpare = Object.values(scene.state.bricks).some(({ spare }) => spare === true);
      const effect = isRemoved(scene);
      if (isSpare === (effect === "absent")) return effect;
      return { half: isSpare ? "the spare did not take its place" : "the spare is used" };
    },
    refusedWhenDone: "conflict",
  },
];

/** The last brick is started with the new build: the feature level rises, step by step. */
function upgrade(): Verb {
  const builds = new Map<BrickNumber, LevelRange>();
  const restart = ({ cluster }: VerbScene, brick: BrickNumber) => {
    builds.set(brick, ownLevels);
    cluster.crash(brick);
    cluster.start(brick);
  };
  return {
    name: "upgrade",
    cluster: { levelsOf: (brick) => builds.get(brick) ?? levelsBefore },
    prepare: async (scene) => {
      scene.subject = scene.asked;
      for (const brick of [scene.gateway, scene.leader]) {
        restart(scene, brick);
        await scene.calm();
      }
      scene.asked = scene.gateway;
    },
    ask: async (scene) => {
      if (builds.get(scene.subject) === undefined) restart(scene, scene.subject);
      return { ok: true, value: null };
    },
    effect: ({ state }) => {
      const level = levelOf(state);
      if (level === ownLevels.newest) return "whole";
      return level === levelsBefore.newest ? "absent" : { half: `the level is ${level}` };
    },
    isUnderWay: ({ state }) => levelOf(state) < ownLevels.newest && builds.size === 3,
  };
}

/** One that keeps something of a run is made anew for each. */
function verbs(): readonly Verb[] {
  return [...access, ...volumes, ...bricks, upgrade()];
}

export const verbNames: readonly string[] = verbs().map(({ name }) => name);

export function verbOf(name: string): Verb {
  const verb = verbs().find((one) => one.name === name);
  if (verb === undefined) throw new Error(`there is no verb "${name}"`);
  return verb;
}
