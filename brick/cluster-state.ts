import type { UnitRecord } from "./unit/unit-record.ts";
import type { BrickNumber } from "./units.ts";

/**
 * The value that Raft replicates: by it everyone is placed and fenced. It is plain JSON data,
 * changed only by control/cluster-machine.ts, and never mutated in place: each applied command
 * makes a new value that shares what did not change.
 */
export interface ClusterState {
  /** 32 hex digits, made by `endisk init`. */
  readonly clusterId: string;
  /** Counts applied commands; a larger version is newer. */
  readonly version: number;
  /** What all bricks know of commands and messages (feature-level.ts); absent: 1. */
  readonly level?: number;
  /** Milliseconds of the cluster's own monotonic time, advanced by commands; never goes back. */
  readonly clusterTimeMs: number;
  readonly bricks: { readonly [number: string]: BrickRecord };
  readonly brickNumberNext: BrickNumber;
  /** Fixed at init: how many shards the address map is cut into. Index = shard number. */
  readonly shards: readonly ShardRecord[];
  /**
   * Fixed at init: over how many consecutive shards a family of branches is spread, so that what its
   * gateway needs can be near it. Absent: over all, as in clusters made before feature level 3.
   */
  readonly shardSpan?: number;
  /** Volumes by name. */
  readonly volumes: { readonly [name: string]: VolumeRecord };
  readonly branchNext: number;
  /** Attachments by volume uuid. */
  readonly attachments: { readonly [uuid: string]: AttachmentRecord };
  readonly attachmentEpochNext: number;
  /** SCSI state by volume uuid; absent: `newUnit`. */
  readonly units?: { readonly [uuid: string]: UnitRecord };
  /** Initiators that are known, by iSCSI name in lower case. */
  readonly initiators?: { readonly [name: string]: InitiatorRecord };
  /** What every discovery session must prove, when set; else its own initiator's credentials. */
  readonly discoveryChap?: ChapRecord;
  /** The next key domain's number, never used again; absent: 1 (crypt/key-domains.ts). */
  readonly keyDomainNext?: number;
  /** Key domains that were reserved for volumes and are not used yet, by number. */
  readonly pendingKeys?: { readonly [domain: string]: PendingKey };
  /** The epoch of garbage collection; carried in records, and with every new chunk. */
  readonly gcEpoch: number;
  /** How far garbage collection is in it; absent: no epoch has begun yet. */
  readonly gc?: GcRecord;
  /** When data is moved to bricks that grow; absent: "idle". */
  readonly rebalance?: RebalanceMode;
  /** One-time join tokens by their id: SHA-256 of the token, and when it ends in clusterTimeMs. */
  readonly joinTokens: {
    /** `usedBy`: the uuid of the brick that joined by it; its retry gets the same number. */
    readonly [id: string]: {
      readonly hash: string;
      readonly endsMs: number;
      readonly usedBy?: string;
    };
  };
}

/**
 *     joining ──first keepalive──▶ up ◀──keepalive── down ──permanentAfter──▶ failed ──▶ (removed)
 *                                  up ──lease ended──▶ down
 *                                  up ──drain──▶ draining ──nothing left──▶ removed
 * `down` is committed only after the brick's lease has ended, so whoever sees it may act at once.
 */
export type BrickStatus = "joining" | "up" | "down" | "draining" | "failed" | "removed";

export interface BrickRecord {
  readonly number: BrickNumber;
  /** 32 hex digits, random, from the superblock. */
  readonly uuid: string;
  readonly status: BrickStatus;
  /** True while `draining` and also heard from; `up` implies it. */
  readonly reachable: boolean;
  /** The newest boot number announced; a message or lease of an older boot is void. */
  readonly boot: number;
  /** Random per start of the process; tells two starts of copies of one store apart. */
  readonly incarnation?: string;
  /** "HOST:PORT" of the peer, portal and api listeners. */
  readonly peerAddress: string;
  readonly portalAddress: string;
  readonly apiAddress: string;
  /** Failure domain; "" means a domain of its own. */
  readonly domain: string;
  readonly capacityBytes: number;
  /** Coarse (updated in steps of 1/64 of the capacity). */
  readonly usedBytes: number;
  /** No new chunks go there: the brick said that it is nearly full. */
  readonly full: boolean;
  /** Raft voter; everyone else is a learner. */
  readonly voter: boolean;
  /** It takes no data until a brick is lost, and then that one's place. */
  readonly spare?: true;
  /** It came with much more room than the others had: balance moves some of theirs to it. */
  readonly growing?: true;
  /** What it last said of its own state under this boot; absent: nothing worth telling. */
  readonly health?: BrickHealth;
  /** clusterTimeMs when it became `down`; 0 when it is not. */
  readonly downSinceMs: number;
  /**
   * How often it was set down: a command that its portal forwarded before the last time must not
   * begin at a gateway any more, however long the network held it. Absent: never.
   */
  readonly absences?: number;
  /**
   * It has started, and no brick that ran before has been heard since: all may have been without
   * power at once. Absent: one was heard.
   */
  readonly unwitnessed?: boolean;
}

/** Never; while initiators are quiet; or always, within the same budget. */
export const rebalanceModes = ["off", "idle", "on"] as const;
export type RebalanceMode = (typeof rebalanceModes)[number];

export interface BrickHealth {
  /** Chunks that it found damaged since its start. */
  readonly corruptChunks: number;
  /** While bricks leave or are lost: shards that it leads and has not put in order yet. Coarse. */
  readonly repairPending: number;
  /** Encrypted volumes whose keys it lacks. Absent: none. */
  readonly keysLacking?: number | undefined;
}

/** An initiator and what it must prove (RFC 7143 §12.1.3, CHAP). */
export interface InitiatorRecord {
  /** iSCSI name, lower case. */
  readonly name: string;
  /** null: it is known by its name alone. */
  readonly chap: ChapRecord | null;
}

export interface ChapRecord {
  /** CHAP_N that the initiator sends; compared byte for byte. */
  readonly user: string;
  readonly secret: SealedSecret;
  /** The weakest algorithm that is accepted. */
  readonly weakest: ChapAlgorithm;
  /** What the target proves in return, when the initiator asks for it. */
  readonly mutual: { readonly user: string; readonly secret: SealedSecret } | null;
}

/** The state holds no secret in clear (control/secret-seal.ts). */
export interface SealedSecret {
  /** Sealed with a key of the cluster secret: hex digits. */
  readonly sealed: string;
  /** The same for the same secret, by which two that are equal are refused: 32 hex digits. */
  readonly fingerprint: string;
}

/** Weakest first. */
export const chapAlgorithms = ["md5", "sha1", "sha256", "sha3-256"] as const;
export type ChapAlgorithm = (typeof chapAlgorithms)[number];

/** docs/garbage.md. */
export interface GcRecord {
  /** Every shard has marked what it refers to, in this epoch; below `gcEpoch`: not in the present. */
  readonly marked: number;
  /** clusterTimeMs when the present epoch began. */
  readonly begunMs: number;
  /** Bricks that have been there without a break since the epoch `since` began. */
  readonly steady: { readonly [number: string]: SteadyBrick };
}

export interface SteadyBrick {
  readonly boot: number;
  readonly absences: number;
  readonly since: number;
}

/** One view of a shard. `members` are complete replicas, `candidates` log new ops but lack older. */
export interface ShardView {
  readonly view: number;
  readonly primary: BrickNumber;
  /** The primary leads only under this boot number. */
  readonly primaryBoot: number;
  /** Includes the primary. Sorted. */
  readonly members: readonly BrickNumber[];
  /** Sorted; disjoint from members. */
  readonly candidates: readonly BrickNumber[];
}

/** Every brick that takes part in the view. */
export function replicasOf(view: Pick<ShardView, "members" | "candidates">): BrickNumber[] {
  return [...view.members, ...view.candidates];
}

export interface ShardRecord extends ShardView {
  /** Whether the primary copies older records to the candidates now. */
  readonly transfer: boolean;
  /**
   * The views before the present one, oldest first, from the newest whole view (as many complete
   * members as wanted, no candidates) on. Empty while the present view is whole.
   */
  readonly chain: readonly ShardView[];
  /** clusterTimeMs since which fewer than the wanted number of complete members are up; 0 = enough. */
  readonly shortSinceMs: number;
  /**
   * Members and candidates of the present view whose replica may lack what it acknowledged (the
   * log was cut). They neither lead nor count as complete until a newer view has them as candidates.
   */
  readonly damaged?: readonly BrickNumber[];
  /**
   * The primary was down for a while in this view, so that others may have promised a newer one:
   * when it leads again, it does so in a new view.
   */
  readonly interrupted?: boolean;
}

export interface VolumeRecord {
  readonly name: string;
  /** 32 hex digits; the volume's identity towards initiators. */
  readonly uuid: string;
  readonly sizeBytes: number;
  readonly copies: number;
  /** Whether writes may be acknowledged with fewer copies while fewer bricks are up. */
  readonly degradedWrites: boolean;
  /** The line of history that is written now. */
  readonly branch: number;
  /** The root branch of the family; clones share it, so that they share shards. */
  readonly family: number;
  /** The snapshot counter under which map records are written now. */
  readonly generation: number;
  readonly status: "ready" | "deleting";
  /** Its data are encrypted with this domain's key, 1 to 65535; absent: they are not. */
  readonly keyDomain?: number;
  /** By which that key is known: 32 hex digits. With `keyDomain`. */
  readonly keyCheck?: string;
  /**
   * Initiators that may use it, by name. Absent or empty: nobody has been named; then portals on
   * loopback let anyone in and others nobody, unless `open`.
   */
  readonly access?: { readonly [initiator: string]: AccessRecord };
  /** Anyone may use it, unproven, at every portal: the operator has said so. */
  readonly open?: boolean;
}

/** A key that bricks may keep for a while though no volume has it yet. */
export interface PendingKey {
  /** The volume that it is meant for. */
  readonly uuid: string;
  readonly check: string;
  /** In clusterTimeMs; not taken by then, it is retired. */
  readonly endsMs: number;
}

export interface AccessRecord {
  /**
   * The volume is LUN 0 of its own target in any case; a number makes it that LUN of the cluster's
   * common target too, as this initiator sees it. null: not there.
   */
  readonly lun: number | null;
}

/** The right of one gateway (brick, boot) to serve a volume. */
export interface AttachmentRecord {
  readonly brick: BrickNumber;
  readonly boot: number;
  /** Unique over all attachments of the cluster; larger is newer. */
  readonly epoch: number;
}

/** Grains that lie side by side share a shard in runs of this many (64 MiB). */
export const grainsPerShardRun = 1024;

/** The shard that holds a grain of a family of branches. */
export function shardOf(state: ClusterState, family: number, grain: number): number {
  return shardOfRun(state, family, Math.floor(grain / grainsPerShardRun));
}

/** Every shard that may hold grains of the family, each once. */
export function shardsOfFamily(state: ClusterState, family: number): number[] {
  const span = Math.min(state.shardSpan ?? state.shards.length, state.shards.length);
  return Array.from({ length: span }, (_, run) => shardOfRun(state, family, run));
}

/**
 * Consecutive runs go to consecutive shards and round again: those of the family's own span, which
 * follows that of the family before it; without spans through all, from a start that depends on the
 * family.
 */
function shardOfRun({ shards, shardSpan }: ClusterState, family: number, run: number): number {
  if (shardSpan === undefined) {
    const start = Math.imul(family, 0x9e3779b1) >>> 0;
    return (start + run) % shards.length;
  }
  return ((family % shards.length) * shardSpan + (run % shardSpan)) % shards.length;
}

/** Bricks that keep a replica of every shard while enough are up: R = max(2, largest copies). */
export function replicasWanted(state: ClusterState): number {
  let wanted = 2;
  for (const volume of Object.values(state.volumes)) wanted = Math.max(wanted, volume.copies);
  return wanted;
}

export function brickOf(state: ClusterState, number: BrickNumber): BrickRecord | undefined {
  return state.bricks[String(number)];
}

/** Whether the boot that it was given to is still there. */
export function isHeld(state: ClusterState, { brick, boot }: AttachmentRecord): boolean {
  const holder = brickOf(state, brick);
  return isReachable(holder) && holder!.boot === boot;
}

/** Heard from and taking part: up, or draining and reachable. */
export function isReachable(brick: BrickRecord | undefined): boolean {
  return (
    brick !== undefined && (brick.status === "up" || brick.status === "draining") && brick.reachable
  );
}
