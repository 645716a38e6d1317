import { z } from "zod";
import type { ChapRecord } from "../brick/cluster-state.ts";
import { chap, initiatorName, lun } from "./access-schema.ts";
import { type AdminReply, invalid, volumeNamePattern } from "./api.ts";
import { type AdminMethod, decodeRequest } from "./api-messages.ts";

/** Requests about initiators and access, checked before the cluster is asked. */

export type AccessMethod = Extract<
  AdminMethod,
  `Initiator${string}` | "VolumeAllow" | "VolumeDeny" | "VolumeOpen" | "DiscoveryChap"
>;

export interface AccessRequest {
  /** Of the volume, or of the initiator. */
  readonly name: string;
  readonly initiator: string;
  /** -1: none. */
  readonly lun: number;
  readonly open: boolean;
  readonly chap: ChapRecord | null;
}

const nothing: AccessRequest = { name: "", initiator: "", lun: -1, open: false, chap: null };
const volume = z.string().regex(volumeNamePattern, "is not a volume name");

const forms: Readonly<Record<AccessMethod, z.ZodType<Partial<AccessRequest>>>> = {
  VolumeAllow: z.object({ name: volume, initiator: initiatorName, lun: lun.or(z.literal(-1)) }),
  VolumeDeny: z.object({ name: volume, initiator: initiatorName }),
  VolumeOpen: z.object({ name: volume, open: z.boolean() }),
  InitiatorList: z.object({}),
  InitiatorShow: z.object({ name: initiatorName }),
  InitiatorSet: z.object({ name: initiatorName, chap: chap.nullable() }),
  InitiatorRemove: z.object({ name: initiatorName }),
  DiscoveryChap: z.object({ chap: chap.nullable() }),
};

export function decodeAccess(method: AccessMethod, request: Buffer): AdminReply<AccessRequest> {
  const checked = forms[method].safeParse(decodeRequest(method, request));
  if (checked.success) return { ok: true, value: { ...nothing, ...checked.data } };
  const why = checked.error.issues.map((one) => `${one.path.join(".")}: ${one.message}`);
  return { ok: false, fault: invalid(`${method}: ${why.join("; ")}`) };
}
