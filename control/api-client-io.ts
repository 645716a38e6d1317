import { randomBytes } from "node:crypto";
import {
  ChannelCredentials,
  Client,
  type Metadata as GrpcMetadata,
  status as grpcStatus,
  Metadata,
  type ServiceError,
} from "@grpc/grpc-js";
import type { ChapRecord, RebalanceMode } from "../brick/cluster-state.ts";
import type {
  AdminReply,
  BrickDetail,
  BrickSummary,
  ClusterStatus,
  EventSummary,
  InitiatorSummary,
  JoinDetails,
  JoinGrant,
  VolumeSummary,
} from "./api.ts";
import {
  type CallStamp,
  callProof,
  type JoinToken,
  joinProof,
  nonceBytes,
  openGrant,
  proofEquals,
  replyProof,
  staleProof,
} from "./api-auth.ts";
import {
  type AdminMethod,
  adminPath,
  decodeJoinReply,
  decodeNested,
  decodeReply,
  encodeNested,
  encodeRequest,
  replyBytesMax,
} from "./api-messages.ts";

/** A call ends by then, one way or another. */
export const callDeadlineMsDefault = 10_000;

/** A call that was under way to a brick while it started is told that it is stale, and made again. */
const attemptsMax = 3;

export interface ApiClientOptions {
  /** "HOST:PORT" of bricks' api ports; the first that answers is used. */
  addresses: readonly string[];
  secret: Buffer;
  wallMs: () => number;
  deadlineMs?: number;
  /** TLS comes in here. */
  credentials?: ChannelCredentials;
}

type Sent =
  | { kind: "reply"; bytes: Buffer; metadata: GrpcMetadata | null }
  | { kind: "refused"; metadata: GrpcMetadata }
  /** Nobody answered there: another brick may be asked. */
  | { kind: "away"; why: string }
  | { kind: "failed"; why: string };

const sameBytes = (bytes: Buffer) => bytes;

/** Administration of a cluster from outside it. */
export class ApiClient {
  readonly #options: ApiClientOptions;

  constructor(options: ApiClientOptions) {
    this.#options = options;
  }

  status(): Promise<AdminReply<ClusterStatus>> {
    return this.#call("Status", {});
  }
  events(since: number): Promise<AdminReply<{ events: EventSummary[] }>> {
    return this.#call("Events", { since });
  }
  async brickList(): Promise<AdminReply<{ bricks: BrickSummary[] }>> {
    return this.#call("BrickList", {});
  }
  brickShow(number: number): Promise<AdminReply<BrickDetail>> {
    return this.#call("BrickShow", { number });
  }
  brickDrain(number: number): Promise<AdminReply<BrickSummary>> {
    return this.#call("BrickDrain", { number });
  }
  brickUse(number: number): Promise<AdminReply<BrickSummary>> {
    return this.#call("BrickUse", { number });
  }
  rebalance(mode: RebalanceMode): Promise<AdminReply<null>> {
    return this.#call("Rebalance", { mode });
  }
  brickRemove(number: number, lost: boolean): Promise<AdminReply<BrickSummary>> {
    return this.#call("BrickRemove", { number, lost });
  }
  volumeCreate(
    name: string,
    sizeBytes: number,
    copies: number,
    encrypt = false,
  ): Promise<AdminReply<VolumeSummary>> {
    return this.#call("VolumeCreate", { name, sizeBytes, copies, encrypt });
  }
  volumeList(): Promise<AdminReply<{ volumes: VolumeSummary[] }>> {
    return this.#call("VolumeList", {});
  }
  volumeShow(name: string): Promise<AdminReply<VolumeSummary>> {
    return this.#call("VolumeShow", { name });
  }
  volumeResize(name: string, sizeBytes: number): Promise<AdminReply<VolumeSummary>> {
    return this.#call("VolumeResize", { name, sizeBytes });
  }
  volumeDelete(name: string): Promise<AdminReply<VolumeSummary>> {
    return this.#call("VolumeDelete", { name });
  }
  volumeAllow(name: string, initiator: string, lun: number): Promise<AdminReply<VolumeSummary>> {
    return this.#call("VolumeAllow", { name, initiator, lun });
  }
  volumeDeny(name: string, initiator: string): Promise<AdminReply<VolumeSummary>> {
    return this.#call("VolumeDeny", { name, initiator });
  }
  volumeOpen(name: string, open: boolean): Promise<AdminReply<VolumeSummary>> {
    return this.#call("VolumeOpen", { name, open });
  }
  initiatorList(): Promise<AdminReply<{ initiators: InitiatorSummary[] }>> {
    return this.#call("InitiatorList", {});
  }
  initiatorShow(name: string): Promise<AdminReply<InitiatorSummary>> {
    return this.#call("InitiatorShow", { name });
  }
  /** The secrets must be sealed already. */
  initiatorSet(name: string, chap: ChapRecord | null): Promise<AdminReply<InitiatorSummary>> {
    return this.#call("InitiatorSet", { name, chap });
  }
  initiatorRemove(name: string): Promise<AdminReply<null>> {
    return this.#call("InitiatorRemove", { name });
  }
  discoveryChap(chap: ChapRecord | null): Promise<AdminReply<null>> {
    return this.#call("DiscoveryChap", { chap });
  }
  token(validMs: number): Promise<AdminReply<{ token: string; validMs: number }>> {
    return this.#call("Token", { validMs });
  }

  async #call<T>(method: AdminMethod, request: object): Promise<AdminReply<T>> {
    const away: string[] = [];
    for (const address of this.#options.addresses) {
      const reply = await this.#callOne<T>(address, method, encodeRequest(method, request));
      if (reply.ok || reply.fault.code !== "unavailable") return reply;
      away.push(`${address}: ${reply.fault.message}`);
    }
    return unavailable(away.join("; "));
  }

  async #callOne<T>(address: string, method: AdminMethod, body: Buffer): Promise<AdminReply<T>> {
    let timeMs = this.#options.wallMs();
    for (let attempt = 1; ; attempt += 1) {
      const stamp = { timeMs, nonce: randomBytes(nonceBytes).toString("hex") };
      const reply = await this.#callAt<T>(address, method, stamp, body);
      if (!("staleAtMs" in reply)) return reply;
      if (attempt === attemptsMax) return unavailable("it goes on saying that the call is too old");
      timeMs = reply.staleAtMs;
    }
  }

  /** `staleAtMs`: not carried out, and to be made again at that time of the brick's clock. */
  async #callAt<T>(
    address: string,
    method: AdminMethod,
    stamp: CallStamp,
    body: Buffer,
  ): Promise<AdminReply<T> | { staleAtMs: number }> {
    const { secret } = this.#options;
    const metadata = new Metadata();
    metadata.set("endisk-time", String(stamp.timeMs));
    metadata.set("endisk-nonce", stamp.nonce);
    metadata.set("endisk-proof", callProof(secret, method, stamp, body).toString("hex"));
    const sent = await send(address, method, body, metadata, this.#options);
    if (sent.kind === "away") return unavailable(sent.why);
    if (sent.kind === "failed") return { ok: false, fault: { code: "failed", message: sent.why } };
    const given = Buffer.from(String(sent.metadata?.get("endisk-proof")[0] ?? ""), "hex");
    if (sent.kind === "refused") {
      const staleAtMs = Number(sent.metadata.get("endisk-time")[0]);
      if (proofEquals(given, staleProof(secret, method, stamp.nonce, staleAtMs)))
        return { staleAtMs };
      return refused(`the brick at ${address} refuses: its cluster has another secret`);
    }
    if (!proofEquals(given, replyProof(secret, method, stamp.nonce, sent.bytes))) {
      return refused(`what answers at ${address} does not know the cluster's secret`);
    }
    return decodeReply<T>(method, sent.bytes);
  }
}

/** Asks the cluster to take a new brick in. */
export async function joinCluster(
  address: string,
  token: JoinToken,
  details: JoinDetails,
  options: { deadlineMs?: number; credentials?: ChannelCredentials } = {},
): Promise<AdminReply<JoinGrant>> {
  const nonce = randomBytes(32);
  const detailsBytes = encodeNested("JoinDetails", details);
  const proof = joinProof(token.hash, token.id, nonce, detailsBytes);
  const body = encodeRequest("Join", { tokenId: token.id, nonce, details: detailsBytes, proof });
  const sent = await send(address, "Join", body, new Metadata(), options);
  if (sent.kind === "away") return unavailable(sent.why);
  if (sent.kind === "failed") return { ok: false, fault: { code: "failed", message: sent.why } };
  if (sent.kind === "refused") {
    return refused(
      `the brick at ${address} does not take this token: it is spent, old or another's`,
    );
  }
  const reply = decodeJoinReply(sent.bytes);
  if (!reply.ok) return reply;
  const grant = openGrant(token.hash, nonce, reply.value);
  if (grant === null) return refused(`what answers at ${address} does not know the token`);
  return { ok: true, value: decodeNested<JoinGrant>("JoinGrant", grant) };
}

function send(
  address: string,
  method: AdminMethod,
  body: Buffer,
  metadata: GrpcMetadata,
  options: { deadlineMs?: number; credentials?: ChannelCredentials },
): Promise<Sent> {
  const client = new Client(address, options.credentials ?? ChannelCredentials.createInsecure(), {
    "grpc.max_receive_message_length": replyBytesMax,
    "grpc.enable_retries": 0,
    // An address is used as it stands: no proxy from the environment.
    "grpc.enable_http_proxy": 0,
    "grpc.use_local_subchannel_pool": 1,
  });
  const deadlineMs = options.deadlineMs ?? callDeadlineMsDefault;
  return new Promise<Sent>((resolve) => {
    let first: GrpcMetadata | null = null;
    const call = client.makeUnaryRequest<Buffer, Buffer>(
      adminPath(method),
      sameBytes,
      sameBytes,
      body,
      metadata,
      { deadline: new Date(Date.now() + deadlineMs) },
      (error, bytes) => {
        client.close();
        if (error === null && bytes !== undefined) {
          resolve({ kind: "reply", bytes, metadata: first });
        } else {
          resolve(sendFailure(error));
        }
      },
    );
    call.on("metadata", (received) => {
      first = received;
    });
  });
}

function sendFailure(error: ServiceError | null): Sent {
  switch (error?.code) {
    case grpcStatus.UNAUTHENTICATED:
      return { kind: "refused", metadata: error.metadata };
    case grpcStatus.UNAVAILABLE:
    case grpcStatus.RESOURCE_EXHAUSTED:
      return { kind: "away", why: error.details };
    case grpcStatus.DEADLINE_EXCEEDED:
      return { kind: "away", why: "no answer in time" };
    default:
      return { kind: "failed", why: error?.details ?? "no reply" };
  }
}

function unavailable(message: string): {
  ok: false;
  fault: { code: "unavailable"; message: string };
} {
  return { ok: false, fault: { code: "unavailable", message } };
}

function refused(message: string): { ok: false; fault: { code: "refused"; message: string } } {
  return { ok: false, fault: { code: "refused", message } };
}
