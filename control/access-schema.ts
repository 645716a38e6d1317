import { z } from "zod";
import { type ChapRecord, chapAlgorithms } from "../brick/cluster-state.ts";
import { canonicalName, iscsiNameBytesMax } from "../brick/unit/iscsi-name.ts";

/** The forms of what says who may use which volume, and by which proof. */

export const lunMax = 255;
const chapUserBytesMax = 223;
/** 12 bytes of iv, at most 128 of secret, 16 of tag. */
const sealedHexMax = 2 * (12 + 128 + 16);

export const initiatorName = z
  .string()
  .max(iscsiNameBytesMax)
  .refine((name) => canonicalName(name) === name, "an iSCSI name in its normal form");

const user = z
  .string()
  .max(chapUserBytesMax)
  .regex(/^[\x21-\x7e]+$/, "1 to 223 printable ASCII characters without spaces");

const sealedSecret = z.object({
  sealed: z
    .string()
    .max(sealedHexMax)
    .regex(/^(?:[0-9a-f]{2})+$/, "lower-case hex digits"),
  fingerprint: z.string().regex(/^[0-9a-f]{32}$/, "32 lower-case hex digits"),
});

export const chap: z.ZodType<ChapRecord> = z.object({
  user,
  secret: sealedSecret,
  weakest: z.enum(chapAlgorithms),
  mutual: z.object({ user, secret: sealedSecret }).nullable(),
});

export const lun = z.number().int().min(0).max(lunMax);
