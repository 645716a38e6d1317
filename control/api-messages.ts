import { fileURLToPath } from "node:url";
import type { MethodDefinition } from "@grpc/grpc-js";
import { loadSync, type MessageTypeDefinition } from "@grpc/proto-loader";
import type { AdminFault, AdminFaultCode, AdminReply } from "./api.ts";

/**
 * The service of api.proto with bytes as its messages: proofs cover the exact bytes that travel, so
 * encoding happens here, around gRPC rather than inside it.
 */

const protoPath = fileURLToPath(new URL("api.proto", import.meta.url));
const definitions = loadSync(protoPath, { longs: Number, enums: String, defaults: true });
const service = definitions["endisk.admin.v1.Admin"] as unknown as Record<
  AdminMethod,
  MethodDefinition<object, object>
>;

export const adminMethods = [
  "Status",
  "Events",
  "BrickList",
  "BrickShow",
  "BrickDrain",
  "BrickUse",
  "Rebalance",
  "BrickRemove",
  "VolumeCreate",
  "VolumeList",
  "VolumeShow",
  "VolumeResize",
  "VolumeDelete",
  "VolumeAllow",
  "VolumeDeny",
  "VolumeOpen",
  "InitiatorList",
  "InitiatorShow",
  "InitiatorSet",
  "InitiatorRemove",
  "DiscoveryChap",
  "Token",
  "Join",
] as const;

export type AdminMethod = (typeof adminMethods)[number];

/** Larger requests and replies are refused before they are read. */
export const requestBytesMax = 64 * 1024;
export const replyBytesMax = 4 * 1024 * 1024;

export function adminPath(method: AdminMethod): string {
  return service[method].path;
}

export function encodeRequest(method: AdminMethod, value: object): Buffer {
  return service[method].requestSerialize(value);
}

export function decodeRequest<T>(method: AdminMethod, bytes: Buffer): T {
  return service[method].requestDeserialize(bytes) as T;
}

export function encodeReply(method: AdminMethod, reply: AdminReply<unknown>): Buffer {
  const message = reply.ok ? { value: reply.value } : { fault: reply.fault };
  return service[method].responseSerialize(message);
}

export function decodeReply<T>(method: AdminMethod, bytes: Buffer): AdminReply<T> {
  const message = service[method].responseDeserialize(bytes) as {
    fault: { code: string; message: string } | null;
    value: T;
  };
  if (message.fault) return { ok: false, fault: checkedFault(message.fault) };
  return { ok: true, value: message.value };
}

/** Join's reply has sealed bytes where the others have a value. */
export function encodeJoinReply(reply: AdminReply<Buffer>): Buffer {
  const message = reply.ok ? { sealed: reply.value } : { fault: reply.fault };
  return service.Join.responseSerialize(message);
}

export function decodeJoinReply(bytes: Buffer): AdminReply<Buffer> {
  const message = service.Join.responseDeserialize(bytes) as {
    fault: { code: string; message: string } | null;
    sealed: Buffer;
  };
  if (message.fault) return { ok: false, fault: checkedFault(message.fault) };
  return { ok: true, value: message.sealed };
}

const faultCodes = {
  invalid: true,
  unavailable: true,
  not_found: true,
  exists: true,
  conflict: true,
  no_space: true,
  refused: true,
  failed: true,
} as const satisfies Record<AdminFaultCode, true>;

/** A newer brick may know faults that we do not. */
function checkedFault(fault: { code: string; message: string }): AdminFault {
  const code = fault.code in faultCodes ? (fault.code as AdminFaultCode) : "failed";
  return { code, message: fault.message };
}

/** The parts of a join travel as messages of their own inside bytes fields. */
export interface JoinRequestMessage {
  tokenId: string;
  nonce: Buffer;
  details: Buffer;
  proof: Buffer;
}

type Nested = "JoinDetails" | "JoinGrant";

function nested(name: Nested): MessageTypeDefinition<object, object> {
  return definitions[`endisk.admin.v1.${name}`] as MessageTypeDefinition<object, object>;
}

export function encodeNested(name: Nested, value: object): Buffer {
  return nested(name).serialize(value);
}

/** Throws when the bytes are no such message. */
export function decodeNested<T>(name: Nested, bytes: Buffer): T {
  return nested(name).deserialize(bytes) as T;
}
