import { z } from "zod";
import { rebalanceModes } from "../brick/cluster-state.ts";
import { keyDomainMax } from "../brick/crypt/key-file.ts";
import { chap, initiatorName, lun } from "./access-schema.ts";
import { unitChange } from "./unit-change-schema.ts";

/**
 * What may be done to the cluster state: the payload of a Raft entry. A command is JSON, so that
 * fields may be added; `envelopeVersion` grows when an older brick could not apply it rightly, and
 * a brick that meets a newer one stops rather than let its state part from the others'.
 */
export const envelopeVersion = 1;

export const shardCountMax = 4096;
/** Replicas of a shard in one view, candidates included. */
export const replicasMax = 16;
export const copiesMax = 4;
export const commandBytesMax = 256 * 1024;

const brickNumber = z.number().int().min(1).max(65_535);
const counter = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const keyDomain = z.number().int().min(1).max(keyDomainMax);
const id128 = z.string().regex(/^[0-9a-f]{32}$/, "32 lower-case hex digits");
const shortText = z.string().max(255);
const replicas = z.array(brickNumber).max(replicasMax);
const name = z
  .string()
  .regex(
    /^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$/,
    "1 to 63 of a-z, 0-9, '.' and '-', beginning and ending with a letter or digit",
  );

/** What a brick says of itself. */
const brickFacts = {
  uuid: id128,
  boot: counter,
  /** Random per start: two starts of copies of one store have the same boot number, not this. */
  incarnation: z.string().max(64),
  peerAddress: shortText,
  portalAddress: shortText,
  apiAddress: shortText,
  domain: shortText,
  capacityBytes: counter,
};

/** What a brick says of its own state, since its start. */
export const brickHealth = z.object({
  /** Chunks that it found damaged. */
  corruptChunks: counter,
  /** While bricks leave or are lost: shards that it leads and has not put in order yet. */
  repairPending: counter,
  /** Encrypted volumes whose keys it lacks. */
  keysLacking: counter.optional(),
});

const command = z.discriminatedUnion("type", [
  /** The first command of every cluster: makes brick 1, which leads every shard alone. */
  z.object({
    type: z.literal("initCluster"),
    clusterId: id128,
    shardCount: z.number().int().min(1).max(shardCountMax),
    /** How many of them a family of branches is spread over; absent: all. Of feature level 3. */
    shardSpan: z.number().int().min(1).max(shardCountMax).optional(),
    /** The feature level that the cluster begins at; absent: 1. */
    level: z.number().int().min(1).optional(),
    ...brickFacts,
  }),
  z.object({ type: z.literal("advanceTime"), toMs: counter }),
  z.object({
    type: z.literal("addJoinToken"),
    id: z.string().min(1).max(64),
    hash: z.string().regex(/^[0-9a-f]{64}$/, "64 lower-case hex digits (SHA-256)"),
    lifeMs: counter.max(365 * 24 * 3600 * 1000),
  }),
  /** Gives the brick its number. `tokenHash` is the SHA-256 of the token that was shown. */
  z.object({
    type: z.literal("joinBrick"),
    tokenId: z.string().max(64),
    tokenHash: z.string().max(64),
    uuid: id128,
    peerAddress: shortText,
    portalAddress: shortText,
    apiAddress: shortText,
    domain: shortText,
    capacityBytes: counter,
    /** It takes no data until another is lost; absent: it takes some at once. */
    spare: z.boolean().optional(),
  }),
  /** The spare brick takes data from now on, though none was lost. */
  z.object({ type: z.literal("useSpare"), number: brickNumber }),
  /** The brick has its share. */
  z.object({ type: z.literal("brickGrown"), number: brickNumber }),
  z.object({ type: z.literal("setRebalance"), mode: z.enum(rebalanceModes) }),
  /** A brick's process has started: from now on only this boot counts. It was heard, so it is up. */
  z.object({
    type: z.literal("announceBrick"),
    number: brickNumber,
    ...brickFacts,
    /** The log lost its tail: its replicas may lack what they acknowledged. */
    cut: z.boolean(),
    /** The brick was `failed`, and has durably dropped its replicas of the map. */
    discarded: z.boolean(),
    /** Another that ran before has been heard since; absent: yes. */
    witnessed: z.boolean().optional(),
  }),
  /** A brick that ran before has been heard beside those that are unwitnessed. */
  z.object({ type: z.literal("witness") }),
  z.object({ type: z.literal("brickUp"), number: brickNumber, boot: counter }),
  /** Only from the Raft leader, after the brick's lease under this boot has ended. */
  z.object({ type: z.literal("brickDown"), number: brickNumber, boot: counter }),
  z.object({ type: z.literal("brickFailed"), number: brickNumber }),
  z.object({ type: z.literal("drainBrick"), number: brickNumber, drain: z.boolean() }),
  z.object({
    type: z.literal("removeBrick"),
    number: brickNumber,
    /** The repair planner found every chunk of it on enough other bricks. */
    emptied: z.boolean(),
    /** The operator accepts that data may be lost with it. */
    force: z.boolean(),
  }),
  z.object({
    type: z.literal("brickSpace"),
    number: brickNumber,
    capacityBytes: counter,
    usedBytes: counter,
    full: z.boolean(),
    health: brickHealth.optional(),
  }),
  /** View expect + 1 of a shard, if its view is `expect`. */
  z.object({
    type: z.literal("changeView"),
    shard: counter,
    expect: counter,
    primary: brickNumber,
    members: replicas,
    candidates: replicas,
    transfer: z.boolean(),
    /** Candidates of `expect` that reported, in that view, to be complete. */
    completed: replicas,
    /** The old primary lives, and said that it answers nothing in view `expect` any more. */
    released: z.boolean(),
    /** The primary holds the durable union of the chain, gathered under view expect + 1. */
    recovery: z.boolean(),
  }),
  z.object({
    type: z.literal("setTransfer"),
    shard: counter,
    view: counter,
    transfer: z.boolean(),
  }),
  /** A brick found its replica of the shard damaged, in that view. */
  z.object({
    type: z.literal("markDamaged"),
    shard: counter,
    view: counter,
    brick: brickNumber,
  }),
  /** Begins epoch expect + 1 of garbage collection: the shards mark what they refer to. */
  z.object({ type: z.literal("beginGc"), expect: counter }),
  /** Every shard has marked all of it in that epoch: the bricks may sweep. */
  z.object({ type: z.literal("finishGc"), epoch: counter }),
  z.object({
    type: z.literal("createVolume"),
    name,
    uuid: id128,
    sizeBytes: counter,
    copies: z.number().int(),
    degradedWrites: z.boolean(),
    /** It is encrypted with this domain's key, which was reserved for it; absent: it is not. */
    keyDomain: keyDomain.optional(),
  }),
  /** Gives out the number of a key, by which it is then brought to the bricks (never by Raft). */
  z.object({ type: z.literal("reserveKeyDomain"), uuid: id128, check: id128 }),
  /** The erased volume is encrypted with this domain's key from now on; its old one is retired. */
  z.object({ type: z.literal("rekeyVolume"), uuid: id128, keyDomain }),
  z.object({
    type: z.literal("resizeVolume"),
    name,
    sizeBytes: counter,
    /** Without it a smaller size is refused: what lies beyond the new end would be lost. */
    shrink: z.boolean(),
  }),
  /** Nobody may write any more; `forgetVolume` follows, from who asked or from the leader. */
  z.object({ type: z.literal("deleteVolume"), name }),
  z.object({ type: z.literal("forgetVolume"), uuid: id128 }),
  /** Takes the attachment, if its present epoch is `expectEpoch` (0: nobody holds it). */
  z.object({
    type: z.literal("attach"),
    uuid: id128,
    brick: brickNumber,
    boot: counter,
    expectEpoch: counter,
    /** The brick and boot that ask: the holder may give its attachment to another brick. */
    by: z.object({ brick: brickNumber, boot: counter }),
  }),
  z.object({ type: z.literal("detach"), uuid: id128, epoch: counter }),
  /** A device server's request on the SCSI state that all portals share; answers an outcome. */
  z.object({ type: z.literal("changeUnit"), uuid: id128, change: unitChange }),
  /** Adds or replaces. The secrets are sealed before they come here. */
  z.object({ type: z.literal("setInitiator"), name: initiatorName, chap: chap.nullable() }),
  z.object({ type: z.literal("removeInitiator"), name: initiatorName }),
  z.object({
    type: z.literal("allowVolume"),
    name,
    initiator: initiatorName,
    /** As which LUN of the cluster's common target; null: as none. */
    lun: lun.nullable(),
  }),
  z.object({ type: z.literal("denyVolume"), name, initiator: initiatorName }),
  /** Whether everyone may use it, unproven. */
  z.object({ type: z.literal("openVolume"), name, open: z.boolean() }),
  /** null: discovery has no credentials of its own. */
  z.object({ type: z.literal("setDiscoveryChap"), chap: chap.nullable() }),
  /** Feature level expect + 1: every brick has said that it knows it. */
  z.object({ type: z.literal("raiseLevel"), expect: counter }),
  /** Mirrors Raft's own configuration, which is what counts for Raft. */
  z.object({ type: z.literal("setVoter"), number: brickNumber, voter: z.boolean() }),
]);

export type Command = z.infer<typeof command>;
export type CommandOf<Type extends Command["type"]> = Extract<Command, { type: Type }>;

/** Only the Raft leader itself may propose these: they rest on what it alone has seen. */
export const leaderOnly: ReadonlySet<Command["type"]> = new Set([
  "advanceTime",
  "announceBrick",
  "witness",
  "brickUp",
  "brickDown",
  "brickGrown",
  "changeView",
  "setTransfer",
  "markDamaged",
  "beginGc",
  "finishGc",
  "raiseLevel",
  "setVoter",
]);

/**
 * Names one submission for good: a retry carries the same id, and is applied once. `settled` is
 * the lowest sequence that the submitter still waits for; results below it are forgotten.
 */
const commandId = z.object({
  brick: brickNumber,
  boot: counter,
  sequence: counter,
  settled: counter,
});
export type CommandId = z.infer<typeof commandId>;

const envelope = z.object({
  version: z.literal(envelopeVersion),
  id: commandId.nullable(),
  /** The leader's estimate of the cluster's time; 0 when it has none to give. */
  timeMs: counter,
  /** For the event log: the leader's wall clock, and which brick it is. Absent: not known. */
  wallMs: counter.optional(),
  leader: brickNumber.optional(),
  command,
});
export type Envelope = Omit<z.infer<typeof envelope>, "version">;

export type EnvelopeDecode =
  | { ok: true; envelope: Envelope }
  /** Written by a newer END: this brick must be upgraded before it can go on. */
  | { ok: false; fault: { code: "newer_version"; message: string } }
  | { ok: false; fault: { code: "malformed"; message: string } };

export function encodeEnvelope(value: Envelope): Buffer {
  return Buffer.from(JSON.stringify({ version: envelopeVersion, ...value }));
}

export function decodeEnvelope(bytes: Buffer): EnvelopeDecode {
  if (bytes.length > commandBytesMax) {
    return malformed(`a command of ${bytes.length} bytes; at most ${commandBytesMax}`);
  }
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    return malformed(`a command that is no JSON: ${String(error)}`);
  }
  if (!isObject(json) || typeof json.version !== "number") {
    return malformed("a command without a version number");
  }
  const version = json.version;
  if (version > envelopeVersion) {
    return newer(`command version ${version}; this brick knows up to ${envelopeVersion}`);
  }
  const kind = isObject(json.command) ? json.command.type : undefined;
  if (typeof kind === "string" && !commandTypes.has(kind)) {
    return newer(`command "${kind}" is not known to this brick; upgrade it`);
  }
  const checked = envelope.safeParse(json);
  if (!checked.success) return malformed(issuesOf(checked.error));
  const { version: _version, ...rest } = checked.data;
  return { ok: true, envelope: rest };
}

/** Checks a command that comes from outside, before it is proposed. */
export function checkCommand(
  value: unknown,
): { ok: true; command: Command } | { ok: false; message: string } {
  const checked = command.safeParse(value);
  if (checked.success) return { ok: true, command: checked.data };
  return { ok: false, message: issuesOf(checked.error) };
}

const commandTypes: ReadonlySet<string> = new Set(
  command.options.map((option) => option.shape.type.value),
);

function issuesOf(error: z.ZodError): string {
  return error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`).join("; ");
}

function malformed(message: string): EnvelopeDecode {
  return { ok: false, fault: { code: "malformed", message } };
}

function newer(message: string): EnvelopeDecode {
  return { ok: false, fault: { code: "newer_version", message } };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
