import type { ChapAlgorithm, ChapRecord, RebalanceMode } from "../brick/cluster-state.ts";
import { volumeBytesMax, volumeBytesStep } from "../brick/units.ts";
import type { Severity } from "./events.ts";

/**
 * Administration as plain values: what the gRPC service carries, what the brick behind it answers.
 * The messages are in api.proto under the same names.
 */

export type AdminFaultCode =
  /** The request itself is wrong; asking again is of no use. */
  | "invalid"
  /** No leader, or a brick that is needed is away: try again. */
  | "unavailable"
  | "not_found"
  | "exists"
  /** The present state forbids it. */
  | "conflict"
  | "no_space"
  /** The secret or the token is wrong, spent or past its time. */
  | "refused"
  | "failed";

export interface AdminFault {
  code: AdminFaultCode;
  /** For people: what was asked, why not, what would help. */
  message: string;
}

export type AdminReply<T> = { ok: true; value: T } | { ok: false; fault: AdminFault };

export interface BrickSummary {
  number: number;
  uuid: string;
  status: string;
  reachable: boolean;
  voter: boolean;
  leader: boolean;
  peerAddress: string;
  portalAddress: string;
  apiAddress: string;
  domain: string;
  capacityBytes: number;
  usedBytes: number;
  full: boolean;
  boot: number;
  /** It takes no data until another brick is lost. */
  spare: boolean;
  /** It is being filled, until it has its share. */
  growing: boolean;
  /** What its process may take (0: not bounded) and takes; both 0 when it does not answer. */
  memoryBytes: number;
  residentBytes: number;
  /** What it runs, and the newest feature level that it knows; "" and 0 when it does not answer. */
  build: string;
  levelNewest: number;
}

export interface BrickDetail {
  brick: BrickSummary;
  shardsLed: number;
  shardsMember: number;
  shardsCandidate: number;
  chunkCount: number;
  chunkBytes: number;
  dedupHits: number;
  dedupBytes: number;
}

export interface VolumeSummary {
  name: string;
  uuid: string;
  /** iqn of its iSCSI target. */
  target: string;
  sizeBytes: number;
  copies: number;
  status: string;
  /** Mapped bytes, before copies and deduplication. */
  usedBytes: number;
  /** What can still be written, by the volume's size and by the bricks' free space. */
  freeBytes: number;
  /** 0 when no gateway serves it now. */
  attachedBrick: number;
  /** Everyone may use it, unproven. */
  open: boolean;
  encrypted: boolean;
  /** Initiators that may use it; nobody is named while there are none. */
  access: AccessSummary[];
}

export interface AccessSummary {
  initiator: string;
  /** As which LUN of the cluster's common target; -1: as none. */
  lun: number;
}

/** What is shown of an initiator: never a secret. */
export interface InitiatorSummary {
  name: string;
  /** CHAP_N; empty: known by its name alone. */
  user: string;
  /** The weakest algorithm that is accepted; empty without CHAP. */
  weakest: ChapAlgorithm | "";
  /** CHAP_N by which the target proves itself in return; empty: it does not. */
  mutualUser: string;
  volumes: { name: string; lun: number }[];
}

export interface ShardsSummary {
  total: number;
  whole: number;
  short: number;
  unavailable: number;
}

export interface ClusterStatus {
  clusterId: string;
  version: number;
  /** 0 when none is known. */
  leader: number;
  /** iqn of the target in which initiators see several volumes as LUNs. */
  commonTarget: string;
  /** CHAP_N that every discovery session must prove; empty: its own initiator's. */
  discoveryUser: string;
  bricks: BrickSummary[];
  volumes: VolumeSummary[];
  shards: ShardsSummary;
  capacityBytes: number;
  usedBytes: number;
  freeBytes: number;
  /** capacity = used + free + reserve. */
  reserveBytes: number;
  chunkCount: number;
  /** used = chunks + overhead + reclaimable. */
  chunkBytes: number;
  overheadBytes: number;
  reclaimableBytes: number;
  /** Mapped by all volumes, before copies and deduplication. */
  writtenBytes: number;
  /** Of garbage collection: the present epoch, and the last one that every shard has marked. */
  gcEpoch: number;
  gcMarked: number;
  /** The feature level that every brick knows, and the cluster uses. */
  level: number;
  /** When data is moved to bricks that grow. */
  rebalance: RebalanceMode;
  dedupHits: number;
  dedupBytes: number;
  /** What is wrong, the worst first. */
  problems: ProblemSummary[];
}

/** Something that is wrong, for people and programs. */
export interface ProblemSummary {
  /** For programs. */
  code: string;
  severity: Severity;
  subject: string;
  what: string;
  /** Wall clock, milliseconds since 1970; 0: not known. */
  sinceMs: number;
  /** What END does about it, and what the operator should do. */
  doing: string;
  advice: string;
}

export interface EventSummary {
  /** Larger is newer. An event that gathers more of its like gets a new one. */
  sequence: number;
  /** The leader's wall clock, milliseconds since 1970 (0: not known), and the cluster's own time. */
  wallMs: number;
  clusterMs: number;
  severity: Severity;
  kind: string;
  subject: string;
  text: string;
  /** How many of its like it stands for. */
  count: number;
}

/** Where a new brick is reached and what it brings. */
export interface JoinDetails {
  uuid: string;
  peerAddress: string;
  portalAddress: string;
  apiAddress: string;
  domain: string;
  capacityBytes: number;
  spare: boolean;
}

/** What makes a brick a member. */
export interface JoinGrant {
  clusterId: string;
  number: number;
  secret: Buffer;
  peers: { number: number; peerAddress: string; apiAddress: string }[];
}

/** The brick behind the api port. Every method may be called on any brick of the cluster. */
export interface AdminBackend {
  status(): Promise<AdminReply<ClusterStatus>>;
  /** Events with a larger sequence, oldest first. */
  events(since: number): Promise<AdminReply<{ events: EventSummary[] }>>;
  brickShow(number: number): Promise<AdminReply<BrickDetail>>;
  brickDrain(number: number): Promise<AdminReply<BrickSummary>>;
  /** The spare takes data from now on. */
  brickUse(number: number): Promise<AdminReply<BrickSummary>>;
  rebalance(mode: RebalanceMode): Promise<AdminReply<null>>;
  /** `lost`: not drained first, its data is given up. */
  brickRemove(number: number, lost: boolean): Promise<AdminReply<BrickSummary>>;
  volumeCreate(
    name: string,
    sizeBytes: number,
    copies: number,
    encrypt: boolean,
  ): Promise<AdminReply<VolumeSummary>>;
  volumeShow(name: string): Promise<AdminReply<VolumeSummary>>;
  volumeResize(name: string, sizeBytes: number): Promise<AdminReply<VolumeSummary>>;
  volumeDelete(name: string): Promise<AdminReply<VolumeSummary>>;
  initiatorList(): Promise<AdminReply<{ initiators: InitiatorSummary[] }>>;
  initiatorShow(name: string): Promise<AdminReply<InitiatorSummary>>;
  /** Adds or replaces; the secrets come sealed (secret-seal.ts). */
  initiatorSet(name: string, chap: ChapRecord | null): Promise<AdminReply<InitiatorSummary>>;
  initiatorRemove(name: string): Promise<AdminReply<null>>;
  /** `lun`: -1 for none of the common target. */
  volumeAllow(name: string, initiator: string, lun: number): Promise<AdminReply<VolumeSummary>>;
  volumeDeny(name: string, initiator: string): Promise<AdminReply<VolumeSummary>>;
  volumeOpen(name: string, open: boolean): Promise<AdminReply<VolumeSummary>>;
  discoveryChap(chap: ChapRecord | null): Promise<AdminReply<null>>;
  /** Commits a token by its id; `hash` is 64 hex digits (SHA-256 of the token's secret part). */
  tokenAdd(id: string, hash: string, validMs: number): Promise<AdminReply<null>>;
  /** The hash under that id, if it may still be used; read so that a token just made is seen. */
  tokenHash(id: string): Promise<AdminReply<string>>;
  /** Commits the new brick and spends the token in the same step; the secret is not its affair. */
  join(tokenId: string, details: JoinDetails): Promise<AdminReply<Omit<JoinGrant, "secret">>>;
}

/** 1 to 63 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit (RFC 3722). */
export const volumeNamePattern = /^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$/;
export const copiesMax = 4;
/** A join token may be used for this long at most, and for an hour when nothing is said. */
export const tokenValidMsMax = 7 * 24 * 3_600_000;
export const tokenValidMsDefault = 3_600_000;

/** What is wrong with the values of a volume, before the cluster is asked; null when nothing. */
export function checkVolume(
  name: string,
  sizeBytes: number | null,
  copies: number | null,
): AdminFault | null {
  if (!volumeNamePattern.test(name)) {
    return invalid(`${JSON.stringify(name.slice(0, 80))} is not a volume name`);
  }
  if (sizeBytes !== null) {
    const fits = Number.isSafeInteger(sizeBytes) || sizeBytes === volumeBytesMax;
    if (!fits || sizeBytes < volumeBytesStep || sizeBytes > volumeBytesMax) {
      return invalid(`a size of ${sizeBytes} bytes is outside 1MiB to 8192TiB`);
    }
    if (sizeBytes % volumeBytesStep !== 0) {
      return invalid(`a size of ${sizeBytes} bytes is not a whole number of MiB`);
    }
  }
  if (copies !== null && !(Number.isInteger(copies) && copies >= 1 && copies <= copiesMax)) {
    return invalid(`${copies} copies: from 1 to ${copiesMax} are possible`);
  }
  return null;
}

export function invalid(message: string): AdminFault {
  return { code: "invalid", message };
}
