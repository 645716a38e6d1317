import { z } from "zod";
import { sanitizeWhole } from "../brick/unit/sanitize.ts";
import type { UnitChange } from "../brick/unit/unit-changes.ts";
import { registrationsMax, reservationType } from "../brick/unit/unit-record.ts";

const reservationKey = z.string().regex(/^[0-9a-f]{16}$/, "16 lower-case hex digits");
/** A name of at most 223 bytes, ",i,0x" and 12 hex digits. */
const initiatorPort = z.string().min(1).max(240);
const nexus = z.object({
  initiatorPort,
  targetPort: z.number().int().min(1).max(65_535),
});
const nexusOnly = ["reserve6", "release6", "nexusLost", "reset", "clearTaskSet"] as const;

/** What a brick may ask to be changed in a unit. */
export const unitChange: z.ZodType<UnitChange> = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("reserveOut"),
    nexus,
    action: z.enum([
      ...(["register", "registerAndIgnore", "reserve", "release", "clear"] as const),
      ...(["preempt", "preemptAndAbort", "registerAndMove"] as const),
    ]),
    reservation: z.literal(Object.values(reservationType)).nullable(),
    key: reservationKey,
    actionKey: reservationKey,
    aptpl: z.boolean(),
    allTargetPorts: z.boolean(),
    initiatorPorts: z.array(initiatorPort).max(registrationsMax),
    move: z.object({ to: nexus, unregister: z.boolean() }).nullable(),
  }),
  ...nexusOnly.map((type) => z.object({ type: z.literal(type), nexus })),
  z.object({
    type: z.literal("setMode"),
    nexus,
    mode: z.object({
      descriptorSense: z.boolean(),
      writeProtected: z.boolean(),
      taskAborted: z.boolean().optional(),
    }),
  }),
  z.object({
    type: z.literal("sanitizeStart"),
    nexus,
    allowUnrestrictedExit: z.boolean(),
    method: z.literal("crypto").optional(),
  }),
  z.object({ type: z.literal("sanitizeExitFailure"), nexus }),
  z.object({
    type: z.literal("sanitizeProgress"),
    progress: z
      .number()
      .int()
      .min(0)
      .max(sanitizeWhole - 1),
  }),
  z.object({ type: z.literal("sanitizeEnd"), ok: z.boolean() }),
]);
