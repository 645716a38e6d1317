import { z } from "zod";
import { memoryBytesMax, memoryBytesMin } from "../brick/memory-budget.ts";
import { sizeText } from "../brick/size-text.ts";
import { canonicalName, iscsiNameBytesMax } from "../brick/unit/iscsi-name.ts";
import { GiB, KiB, MiB, TiB, volumeBytesMax, volumeBytesStep } from "../brick/units.ts";
import { lunMax } from "../control/access-schema.ts";

export { sizeText } from "../brick/size-text.ts";

/**
 * The values of command line options. Every refusal says what the value was for, the value, and
 * what would be right.
 */

/** A wrong option or argument; exit code `usage`. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

const sizeUnits: Readonly<Record<string, number>> = {
  "": 1,
  B: 1,
  KIB: KiB,
  MIB: MiB,
  GIB: GiB,
  TIB: TiB,
  PIB: 1024 * TiB,
  K: KiB,
  M: MiB,
  G: GiB,
  T: TiB,
  P: 1024 * TiB,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  PB: 1e15,
};

/** "1TiB", "512 MiB", "1.5GiB", "1048576". K, M, G, T, P alone are powers of 1024. */
export const sizeSchema = z.string().transform((text, context) => {
  const match = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/.exec(text.trim());
  const unit = match === null ? undefined : sizeUnits[match[2]!.toUpperCase()];
  const bytes = match === null || unit === undefined ? Number.NaN : Number(match[1]) * unit;
  if (bytes > volumeBytesMax) {
    context.addIssue({ code: "custom", message: "is above the largest size, 8192TiB" });
    return z.NEVER;
  }
  if (!(bytes >= 1)) {
    context.addIssue({
      code: "custom",
      message: `is not a size: write a number and a unit, as in 512MiB, 64GiB or 1TiB`,
    });
    return z.NEVER;
  }
  return Math.round(bytes);
});

export const volumeSizeSchema = sizeSchema.superRefine((bytes, context) => {
  if (bytes % volumeBytesStep !== 0) {
    context.addIssue({ code: "custom", message: "must be a whole number of MiB" });
  }
});

export const brickCapacityMin = 256 * MiB;

export const capacitySchema = sizeSchema.superRefine((bytes, context) => {
  if (bytes < brickCapacityMin) {
    context.addIssue({ code: "custom", message: "is below the smallest brick, 256MiB" });
  }
});

export interface Endpoint {
  host: string;
  port: number;
}

/** "127.0.0.1:3260", "brick1.example:3260", "[::1]:3260". */
export const endpointSchema = z.string().transform((text, context): Endpoint => {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(text);
  const port = match === null ? 0 : Number(match[3]);
  if (match === null || port < 1 || port > 65_535) {
    context.addIssue({
      code: "custom",
      message: "is not an address: write HOST:PORT, as in 127.0.0.1:3260 or [::1]:3260",
    });
    return z.NEVER;
  }
  return { host: match[1] ?? match[2]!, port };
});

export function endpointText(endpoint: Endpoint): string {
  const host = endpoint.host.includes(":") ? `[${endpoint.host}]` : endpoint.host;
  return `${host}:${endpoint.port}`;
}

/** The same host, `by` ports further. */
export function endpointAfter(endpoint: Endpoint, by: number): Endpoint {
  return { host: endpoint.host, port: endpoint.port + by };
}

/** The address as text, checked. */
export const addressSchema = endpointSchema.transform(endpointText);

/** RFC 3722 names inside an iqn, so that any initiator can write it. */
export const volumeNameSchema = z
  .string()
  .regex(
    /^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$/,
    "is not a volume name: 1 to 63 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit",
  );

/** In its normal form, as the cluster compares it. */
export const initiatorNameSchema = z.string().transform((text, context) => {
  const name = canonicalName(text);
  if (name !== undefined) return name;
  context.addIssue({
    code: "custom",
    message: `is not an iSCSI name: iqn.YYYY-MM.DOMAIN:NAME, eui. and 16 hex digits, or naa. and 16 or 32; at most ${iscsiNameBytesMax} bytes`,
  });
  return z.NEVER;
});

export const domainSchema = z
  .string()
  .regex(
    /^[A-Za-z0-9._-]{0,63}$/,
    "is not a failure domain: at most 63 letters, digits, '.', '_', '-'",
  );

/** "disk0:1TiB". */
export const volumeSpecSchema = z.string().transform((text, context) => {
  const colon = text.indexOf(":");
  if (colon < 1) {
    context.addIssue({ code: "custom", message: "is not NAME:SIZE, as in disk0:1TiB" });
    return z.NEVER;
  }
  const parts = { name: text.slice(0, colon), sizeBytes: text.slice(colon + 1) };
  const name = volumeNameSchema.safeParse(parts.name);
  const size = volumeSizeSchema.safeParse(parts.sizeBytes);
  for (const result of [name, size]) {
    if (!result.success) {
      context.addIssue({ code: "custom", message: `: ${result.error.issues[0]!.message}` });
    }
  }
  if (!name.success || !size.success) return z.NEVER;
  return { name: name.data, sizeBytes: size.data };
});

function wholeNumberSchema(min: number, max: number) {
  return z
    .string()
    .regex(/^\d{1,9}$/, `is not a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be from ${min} to ${max}`);
}

/** What a brick's process may take. */
export const memorySchema = sizeSchema
  .refine(
    (bytes) => bytes >= memoryBytesMin,
    `is too little: a brick needs ${sizeText(memoryBytesMin)} at least`,
  )
  .refine((bytes) => bytes <= memoryBytesMax, `is more than ${sizeText(memoryBytesMax)}`);

/** Bricks of one machine under `endisk up`. */
export const brickCountSchema = wholeNumberSchema(1, 16);
export const brickNumberSchema = wholeNumberSchema(1, 65_535);
export const copiesSchema = wholeNumberSchema(1, 4);
export const lunSchema = wholeNumberSchema(0, lunMax);

/** Reads one option's value; `what` names it as the user wrote it ("--size"). */
export function parseOption<T>(what: string, value: unknown, schema: z.ZodType<T>): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  if (value === undefined) throw new UsageError(`${what} is missing`);
  throw new UsageError(`${what} ${JSON.stringify(value)} ${result.error.issues[0]!.message}`);
}

export function parseOptional<T>(what: string, value: unknown, schema: z.ZodType<T>): T | null {
  return value === undefined ? null : parseOption(what, value, schema);
}
