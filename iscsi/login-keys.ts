import { assertNever } from "../brick/assert.ts";
import {
  firstBurstBytesMax,
  maxBurstBytesOffered,
  outstandingR2tMax,
  receiveDataBytesMax,
  valueBytesMax,
} from "./limits.ts";
import { parseNumber, type TextPair } from "./text-keys.ts";

/** What a session's two sides agreed on; to begin with, the defaults of RFC 7143 §13. */
export interface SessionParameters {
  headerDigest: boolean;
  dataDigest: boolean;
  initialR2t: boolean;
  immediateData: boolean;
  /** What the initiator takes in one PDU. */
  initiatorDataBytesMax: number;
  /** What we take in one PDU: the default until we have said more. */
  targetDataBytesMax: number;
  maxBurstBytes: number;
  firstBurstBytes: number;
  outstandingR2tMax: number;
  /** iSCSIProtocolLevel: 1 is RFC 7143, 2 adds RFC 7144. */
  protocolLevel: number;
}

export function defaultParameters(): SessionParameters {
  return {
    headerDigest: false,
    dataDigest: false,
    initialR2t: true,
    immediateData: true,
    initiatorDataBytesMax: 8192,
    targetDataBytesMax: 8192,
    maxBurstBytes: 262_144,
    firstBurstBytes: 65_536,
    outstandingR2tMax: 1,
    protocolLevel: 1,
  };
}

type Range = readonly [min: number, max: number];
type Apply<V> = (parameters: SessionParameters, value: V) => void;
const ignore = (): void => {};

/** `rule` says how the result follows from the initiator's offer and from `ours`. */
type LoginKey = { stages: readonly number[]; discovery: "yes" | "irrelevant" } & (
  | { rule: "list"; ours: readonly string[]; set: Apply<string> }
  | { rule: "and" | "or"; ours: boolean; set: Apply<boolean> }
  | { rule: "minimum" | "maximum"; ours: number; range: Range; set: Apply<number> }
  /** Each side states its own, in its own direction. */
  | { rule: "declare"; ours: number; range: Range; set: Apply<number> }
  /** Answered, never agreed to: keys that newer standards took back, or that are the target's. */
  | { rule: "refuse"; answer: string }
  /** Says who speaks: not answered; may be said again, but not otherwise. */
  | { rule: "name" }
  /** Part of the proof (login-security.ts). */
  | { rule: "security" }
);

const security = 0;
const operational = 1;
const either = [security, operational];

/** RFC 7143 §13. */
export const loginKeys = {
  HeaderDigest: {
    rule: "list",
    ours: ["CRC32C", "None"],
    set: (parameters, value) => {
      parameters.headerDigest = value === "CRC32C";
    },
    stages: [operational],
    discovery: "yes",
  },
  DataDigest: {
    rule: "list",
    ours: ["CRC32C", "None"],
    set: (parameters, value) => {
      parameters.dataDigest = value === "CRC32C";
    },
    stages: [operational],
    discovery: "yes",
  },
  MaxConnections: {
    rule: "minimum",
    ours: 1,
    range: [1, 65_535],
    set: ignore,
    stages: [operational],
    discovery: "irrelevant",
  },
  InitialR2T: {
    rule: "or",
    ours: false,
    set: (parameters, value) => {
      parameters.initialR2t = value;
    },
    stages: [operational],
    discovery: "irrelevant",
  },
  ImmediateData: {
    rule: "and",
    ours: true,
    set: (parameters, value) => {
      parameters.immediateData = value;
    },
    stages: [operational],
    discovery: "irrelevant",
  },
  MaxRecvDataSegmentLength: {
    rule: "declare",
    ours: receiveDataBytesMax,
    range: [512, 16_777_215],
    set: (parameters, value) => {
      parameters.initiatorDataBytesMax = value;
    },
    stages: either,
    discovery: "yes",
  },
  MaxBurstLength: {
    rule: "minimum",
    ours: maxBurstBytesOffered,
    range: [512, 16_777_215],
    set: (parameters, value) => {
      parameters.maxBurstBytes = value;
    },
    stages: [operational],
    discovery: "irrelevant",
  },
  FirstBurstLength: {
    rule: "minimum",
    ours: firstBurstBytesMax,
    range: [512, 16_777_215],
    set: (parameters, value) => {
      parameters.firstBurstBytes = value;
    },
    stages: [operational],
    discovery: "irrelevant",
  },
  DefaultTime2Wait: {
    rule: "maximum",
    ours: 2,
    range: [0, 3600],
    set: ignore,
    stages: [operational],
    discovery: "yes",
  },
  // A session ends with its connection: its tasks are settled at once, nothing is retained.
  DefaultTime2Retain: {
    rule: "minimum",
    ours: 0,
    range: [0, 3600],
    set: ignore,
    stages: [operational],
    discovery: "yes",
  },
  MaxOutstandingR2T: {
    rule: "minimum",
    ours: outstandingR2tMax,
    range: [1, 65_535],
    set: (parameters, value) => {
      parameters.outstandingR2tMax = value;
    },
    stages: [operational],
    discovery: "irrelevant",
  },
  DataPDUInOrder: {
    rule: "or",
    ours: true,
    set: ignore,
    stages: [operational],
    discovery: "irrelevant",
  },
  DataSequenceInOrder: {
    rule: "or",
    ours: true,
    set: ignore,
    stages: [operational],
    discovery: "irrelevant",
  },
  ErrorRecoveryLevel: {
    rule: "minimum",
    ours: 0,
    range: [0, 2],
    set: ignore,
    stages: [operational],
    discovery: "yes",
  },
  iSCSIProtocolLevel: {
    rule: "minimum",
    ours: 2,
    range: [0, 31],
    set: (parameters, value) => {
      parameters.protocolLevel = value;
    },
    stages: [operational],
    discovery: "yes",
  },
  TaskReporting: {
    rule: "list",
    ours: ["RFC3720"],
    set: ignore,
    stages: [operational],
    discovery: "irrelevant",
  },
  // Markers are gone since RFC 7143 §13.25.
  AuthMethod: { rule: "security", stages: [security], discovery: "yes" },
  CHAP_A: { rule: "security", stages: [security], discovery: "yes" },
  CHAP_I: { rule: "security", stages: [security], discovery: "yes" },
  CHAP_C: { rule: "security", stages: [security], discovery: "yes" },
  CHAP_N: { rule: "security", stages: [security], discovery: "yes" },
  CHAP_R: { rule: "security", stages: [security], discovery: "yes" },
  IFMarker: { rule: "refuse", answer: "No", stages: [operational], discovery: "irrelevant" },
  OFMarker: { rule: "refuse", answer: "No", stages: [operational], discovery: "irrelevant" },
  IFMarkInt: { rule: "refuse", answer: "Irrelevant", stages: [operational], discovery: "yes" },
  OFMarkInt: { rule: "refuse", answer: "Irrelevant", stages: [operational], discovery: "yes" },
  InitiatorName: { rule: "name", stages: either, discovery: "yes" },
  InitiatorAlias: { rule: "name", stages: either, discovery: "yes" },
  TargetName: { rule: "name", stages: either, discovery: "yes" },
  SessionType: { rule: "name", stages: either, discovery: "yes" },
  "X#NodeArchitecture": { rule: "name", stages: either, discovery: "yes" },
  TargetAlias: { rule: "refuse", answer: "Reject", stages: either, discovery: "yes" },
  TargetAddress: { rule: "refuse", answer: "Reject", stages: either, discovery: "yes" },
  TargetPortalGroupTag: { rule: "refuse", answer: "Reject", stages: either, discovery: "yes" },
  SendTargets: { rule: "refuse", answer: "Reject", stages: either, discovery: "yes" },
} as const satisfies Record<string, LoginKey>;

const keys: ReadonlyMap<string, LoginKey> = new Map(Object.entries(loginKeys));

export interface Negotiation {
  parameters: SessionParameters;
  discovery: boolean;
  /** What was offered, by key: RFC 7143 §6.2 lets a key be negotiated once. */
  seen: Map<string, string>;
  /** Whether our own MaxRecvDataSegmentLength has been stated. */
  declared: boolean;
}

/**
 * Takes one request's offers; undefined when a key came twice (a protocol error). What is returned
 * answers them, and changes the parameters: unknown keys are NotUnderstood, values outside their
 * range or stage are refused with Reject.
 */
export function negotiate(
  negotiation: Negotiation,
  stage: number,
  offers: readonly TextPair[],
): (() => TextPair[]) | undefined {
  const { seen } = negotiation;
  const fresh: TextPair[] = [];
  const here = new Set<string>();
  for (const [name, value] of offers) {
    const before = seen.get(name);
    // Initiators in use name themselves again in the next stage.
    const again = before === value && keys.get(name)?.rule === "name" && !here.has(name);
    if (before !== undefined && !again) return undefined;
    here.add(name);
    seen.set(name, value);
    if (!again) fresh.push([name, value]);
  }
  return () => {
    const answers = fresh.flatMap((offer) => answerOffer(negotiation, stage, offer));
    if (stage === operational && !negotiation.declared) {
      negotiation.declared = true;
      negotiation.parameters.targetDataBytesMax = receiveDataBytesMax;
      answers.push(["MaxRecvDataSegmentLength", String(receiveDataBytesMax)]);
    }
    return answers;
  };
}

function answerOffer(negotiation: Negotiation, stage: number, [name, value]: TextPair): TextPair[] {
  const key = keys.get(name);
  if (key === undefined) return [[name, "NotUnderstood"]];
  if (!key.stages.includes(stage)) return [[name, "Reject"]];
  if (key.rule === "name" || key.rule === "security") return [];
  if (negotiation.discovery && key.discovery === "irrelevant") return [[name, "Irrelevant"]];
  // §6.1: no value of these keys is longer, a list of all that a key knows included.
  if (Buffer.byteLength(value) > valueBytesMax) return [[name, "Reject"]];
  const answer = resultOf(key, value, negotiation.parameters);
  return answer === null ? [] : [[name, answer]];
}

/** The answer to one offer, and its effect on the parameters; null when none is sent. */
function resultOf(
  key: Exclude<LoginKey, { rule: "name" | "security" }>,
  value: string,
  parameters: SessionParameters,
): string | null {
  switch (key.rule) {
    case "list": {
      const chosen = value.split(",").find((one) => key.ours.includes(one));
      if (chosen === undefined) return "Reject";
      key.set(parameters, chosen);
      return chosen;
    }
    case "and":
    case "or": {
      if (value !== "Yes" && value !== "No") return "Reject";
      const offered = value === "Yes";
      const result = key.rule === "and" ? offered && key.ours : offered || key.ours;
      key.set(parameters, result);
      return result ? "Yes" : "No";
    }
    case "minimum":
    case "maximum":
    case "declare": {
      const number = parseNumber(value);
      if (number === undefined || number < key.range[0] || number > key.range[1]) return "Reject";
      const choose = key.rule === "maximum" ? Math.max : Math.min;
      const result = key.rule === "declare" ? number : choose(number, key.ours);
      key.set(parameters, result);
      return key.rule === "declare" ? null : String(result);
    }
    case "refuse":
      return key.answer;
    default:
      return assertNever(key);
  }
}

/** RFC 7143 §13.14: FirstBurstLength must not exceed MaxBurstLength. */
export function settleParameters(parameters: SessionParameters): void {
  parameters.firstBurstBytes = Math.min(parameters.firstBurstBytes, parameters.maxBurstBytes);
}
