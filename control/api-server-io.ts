import { randomBytes } from "node:crypto";
import {
  status as grpcStatus,
  Metadata,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type sendUnaryData,
} from "@grpc/grpc-js";
import { rebalanceModes } from "../brick/cluster-state.ts";
import type { AdminBackend, AdminReply, JoinDetails } from "./api.ts";
import { checkVolume, invalid, tokenValidMsDefault, tokenValidMsMax } from "./api.ts";
import { type AccessMethod, decodeAccess } from "./api-access.ts";
import {
  type CallStamp,
  callProof,
  joinProof,
  joinTokenText,
  nonceBytes,
  proofEquals,
  ReplayWindow,
  replyProof,
  sealGrant,
  staleProof,
  tokenHash,
} from "./api-auth.ts";
import { type ApiFront, listenApiFront } from "./api-front-io.ts";
import {
  type AdminMethod,
  adminMethods,
  adminPath,
  decodeNested,
  decodeRequest,
  encodeJoinReply,
  encodeNested,
  encodeReply,
  type JoinRequestMessage,
  requestBytesMax,
} from "./api-messages.ts";

/** Calls under way at once, all callers together; more are told to come back. */
export const callsMax = 64;

export interface ApiServerOptions {
  host: string;
  port: number;
  backend: AdminBackend;
  /** The cluster's secret: 32 bytes. */
  secret: Buffer;
  wallMs: () => number;
  /** Text in Prometheus' format. */
  metrics: () => Promise<string>;
  health: () => Health;
  log: (line: string) => void;
  /** TLS comes in here; without it the proofs guard the calls, and nothing hides their text. */
  credentials?: ServerCredentials;
}

export interface Health {
  /** Whether initiators that log in here now are served. */
  ready: boolean;
  /** Facts for people; plain JSON. */
  facts: Record<string, unknown>;
}

export interface ApiServer {
  readonly port: number;
  close(): Promise<void>;
}

type BytesCall = ServerUnaryCall<Buffer, Buffer>;

/** gRPC, /metrics and /health on one port. */
export async function startApiServer(options: ApiServerOptions): Promise<ApiServer> {
  const server = new Server({
    "grpc.max_receive_message_length": requestBytesMax,
    "grpc.max_concurrent_streams": callsMax,
  });
  server.addService(bytesService(), handlers(options));
  const injector = server.createConnectionInjector(
    options.credentials ?? ServerCredentials.createInsecure(),
  );
  const front: ApiFront = await listenApiFront({
    host: options.host,
    port: options.port,
    http2: (socket) => injector.injectConnection(socket),
    metrics: options.metrics,
    health: options.health,
    log: options.log,
  });
  return {
    port: front.port,
    async close() {
      await front.close();
      server.forceShutdown();
    },
  };
}

/** The service with bytes for messages: proofs cover what travels. */
export function bytesService(): Record<AdminMethod, MethodDefinition<Buffer, Buffer>> {
  const same = (bytes: Buffer) => bytes;
  const entries = adminMethods.map((method) => [
    method,
    {
      path: adminPath(method),
      requestStream: false,
      responseStream: false,
      requestSerialize: same,
      requestDeserialize: same,
      responseSerialize: same,
      responseDeserialize: same,
    },
  ]);
  return Object.fromEntries(entries) as Record<AdminMethod, MethodDefinition<Buffer, Buffer>>;
}

function handlers(options: ApiServerOptions) {
  const window = new ReplayWindow(options.wallMs());
  let underWay = 0;
  const serve =
    (method: AdminMethod) =>
    (call: BytesCall, done: sendUnaryData<Buffer>): void => {
      if (underWay >= callsMax) {
        done({ code: grpcStatus.RESOURCE_EXHAUSTED });
        return;
      }
      const stamp = method === "Join" ? null : admit(options, window, method, call, done);
      if (method !== "Join" && stamp === null) return;
      underWay += 1;
      answer(options, method, call.request)
        .then((bytes) => {
          if (bytes === null) {
            refuse(done);
            return;
          }
          if (stamp !== null) {
            const proof = replyProof(options.secret, method, stamp.nonce, bytes);
            const metadata = new Metadata();
            metadata.set("endisk-proof", proof.toString("hex"));
            call.sendMetadata(metadata);
          }
          done(null, bytes);
        })
        .catch((error) => {
          options.log(`api: ${method} failed: ${error?.stack ?? error}`);
          done({ code: grpcStatus.INTERNAL, details: "failed" });
        })
        .finally(() => {
          underWay -= 1;
        });
    };
  return Object.fromEntries(adminMethods.map((method) => [method, serve(method)]));
}

/** A stranger learns nothing but this. */
function refuse(done: sendUnaryData<Buffer>): void {
  done({ code: grpcStatus.UNAUTHENTICATED, details: "refused" });
}

/** null: refused, and told so. */
function admit(
  options: ApiServerOptions,
  window: ReplayWindow,
  method: AdminMethod,
  call: BytesCall,
  done: sendUnaryData<Buffer>,
): CallStamp | null {
  const stamp = provenStamp(options.secret, method, call);
  if (stamp === null) {
    refuse(done);
    return null;
  }
  const nowMs = options.wallMs();
  const admission = window.admit(nowMs, stamp);
  if (admission === "admitted") return stamp;
  if (admission === "stale") refuseStale(options.secret, method, stamp.nonce, nowMs, done);
  else refuse(done);
  return null;
}

/** Who made the call knows the secret, and is told what time it is here. */
function refuseStale(
  secret: Buffer,
  method: AdminMethod,
  nonce: string,
  nowMs: number,
  done: sendUnaryData<Buffer>,
): void {
  const metadata = new Metadata();
  metadata.set("endisk-time", String(nowMs));
  metadata.set("endisk-proof", staleProof(secret, method, nonce, nowMs).toString("hex"));
  done({ code: grpcStatus.UNAUTHENTICATED, details: "stale", metadata });
}

/** The call's stamp when its proof holds. */
function provenStamp(secret: Buffer, method: AdminMethod, call: BytesCall): CallStamp | null {
  const word = (key: string) => String(call.metadata.get(key)[0] ?? "");
  const nonce = word("endisk-nonce");
  const time = word("endisk-time");
  const proof = word("endisk-proof");
  if (nonce.length !== 2 * nonceBytes || !/^[0-9a-f]+$/.test(nonce)) return null;
  if (!/^\d{1,15}$/.test(time) || !/^[0-9a-f]{64}$/.test(proof)) return null;
  const stamp = { timeMs: Number(time), nonce };
  const expected = callProof(secret, method, stamp, call.request);
  return proofEquals(Buffer.from(proof, "hex"), expected) ? stamp : null;
}

/** The reply's bytes; null when the caller is a stranger. */
async function answer(
  options: ApiServerOptions,
  method: AdminMethod,
  request: Buffer,
): Promise<Buffer | null> {
  if (method === "Join") return join(options, request);
  return encodeReply(method, await callBackend(options.backend, method, request));
}

interface VolumeWish {
  name: string;
  sizeBytes: number;
  copies: number;
  encrypt: boolean;
}

async function callBackend(
  backend: AdminBackend,
  method: Exclude<AdminMethod, "Join">,
  request: Buffer,
): Promise<AdminReply<unknown>> {
  const brick = () => decodeRequest<{ number: number; lost: boolean }>("BrickRemove", request);
  const name = () => decodeRequest<{ name: string }>("VolumeShow", request).name;
  switch (method) {
    case "Status":
      return backend.status();
    case "Events":
      return backend.events(decodeRequest<{ since: number }>(method, request).since);
    case "BrickList":
    case "VolumeList": {
      const reply = await backend.status();
      if (!reply.ok) return reply;
      const { bricks, volumes } = reply.value;
      return { ok: true, value: method === "BrickList" ? { bricks } : { volumes } };
    }
    case "BrickShow":
      return backend.brickShow(brick().number);
    case "BrickDrain":
      return backend.brickDrain(brick().number);
    case "BrickUse":
      return backend.brickUse(brick().number);
    case "Rebalance": {
      const { mode } = decodeRequest<{ mode: string }>(method, request);
      const known = rebalanceModes.find((one) => one === mode);
      if (known !== undefined) return backend.rebalance(known);
      return { ok: false, fault: invalid(`rebalancing is ${rebalanceModes.join(", ")}`) };
    }
    case "BrickRemove":
      return backend.brickRemove(brick().number, brick().lost);
    case "VolumeCreate": {
      const asked = decodeRequest<VolumeWish>(method, request);
      const fault = checkVolume(asked.name, asked.sizeBytes, asked.copies);
      if (fault !== null) return { ok: false, fault };
      return backend.volumeCreate(asked.name, asked.sizeBytes, asked.copies, asked.encrypt);
    }
    case "VolumeShow":
      return backend.volumeShow(name());
    case "VolumeResize": {
      const asked = decodeRequest<{ name: string; sizeBytes: number }>(method, request);
      const fault = checkVolume(asked.name, asked.sizeBytes, null);
      if (fault !== null) return { ok: false, fault };
      return backend.volumeResize(asked.name, asked.sizeBytes);
    }
    case "VolumeDelete":
      return backend.volumeDelete(name());
    case "VolumeAllow":
    case "VolumeDeny":
    case "VolumeOpen":
    case "InitiatorList":
    case "InitiatorShow":
    case "InitiatorSet":
    case "InitiatorRemove":
    case "DiscoveryChap":
      return callAccess(backend, method, request);
    case "Token":
      return makeToken(backend, decodeRequest<{ validMs: number }>(method, request).validMs);
  }
}

async function callAccess(
  backend: AdminBackend,
  method: AccessMethod,
  request: Buffer,
): Promise<AdminReply<unknown>> {
  const asked = decodeAccess(method, request);
  if (!asked.ok) return asked;
  const { name, initiator, lun, open, chap } = asked.value;
  switch (method) {
    case "VolumeAllow":
      return backend.volumeAllow(name, initiator, lun);
    case "VolumeDeny":
      return backend.volumeDeny(name, initiator);
    case "VolumeOpen":
      return backend.volumeOpen(name, open);
    case "InitiatorList":
      return backend.initiatorList();
    case "InitiatorShow":
      return backend.initiatorShow(name);
    case "InitiatorSet":
      return backend.initiatorSet(name, chap);
    case "InitiatorRemove":
      return backend.initiatorRemove(name);
    case "DiscoveryChap":
      return backend.discoveryChap(chap);
  }
}

async function makeToken(backend: AdminBackend, asked: number): Promise<AdminReply<unknown>> {
  const validMs = asked === 0 ? tokenValidMsDefault : asked;
  if (validMs < 1000 || validMs > tokenValidMsMax) {
    return { ok: false, fault: invalid("a token may be valid for 1 second to 7 days") };
  }
  const id = randomBytes(8);
  const secret = randomBytes(32);
  const added = await backend.tokenAdd(id.toString("hex"), tokenHash(secret), validMs);
  if (!added.ok) return added;
  return { ok: true, value: { token: joinTokenText(id, secret), validMs } };
}

/** Only who knows the token is told even that something is wrong with the rest. */
async function join(options: ApiServerOptions, request: Buffer): Promise<Buffer | null> {
  const asked = decodeRequest<JoinRequestMessage>("Join", request);
  if (!/^[0-9a-f]{16}$/.test(asked.tokenId) || asked.nonce.length !== 32) return null;
  const hash = await options.backend.tokenHash(asked.tokenId);
  if (!hash.ok) {
    // That there is no leader now is no secret, and worth another try.
    return hash.fault.code === "unavailable" ? encodeJoinReply(hash) : null;
  }
  const expected = joinProof(hash.value, asked.tokenId, asked.nonce, asked.details);
  if (!proofEquals(asked.proof, expected)) return null;
  const details = decodeNested<JoinDetails>("JoinDetails", asked.details);
  const fault = checkDetails(details);
  if (fault !== null) return encodeJoinReply({ ok: false, fault: invalid(fault) });
  const joined = await options.backend.join(asked.tokenId, details);
  if (!joined.ok) return encodeJoinReply(joined);
  const grant = encodeNested("JoinGrant", { ...joined.value, secret: options.secret });
  const sealed = sealGrant(hash.value, asked.nonce, randomBytes(12), grant);
  return encodeJoinReply({ ok: true, value: sealed });
}

function checkDetails(details: JoinDetails): string | null {
  if (!/^[0-9a-f]{32}$/.test(details.uuid)) return "the brick's uuid is not 32 hex digits";
  for (const address of [details.peerAddress, details.portalAddress, details.apiAddress]) {
    if (!/^[A-Za-z0-9.:[\]-]{3,255}:\d{1,5}$/.test(address)) return "an address is not HOST:PORT";
  }
  if (!/^[A-Za-z0-9._-]{0,63}$/.test(details.domain)) return "the failure domain's name is wrong";
  if (!Number.isSafeInteger(details.capacityBytes) || details.capacityBytes < 1) {
    return "the capacity is not a number of bytes";
  }
  return null;
}
