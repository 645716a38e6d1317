import { loginRequestsMax, nameBytesMax, textBytesMax } from "./limits.ts";
import {
  defaultParameters,
  type Negotiation,
  negotiate,
  type SessionParameters,
  settleParameters,
} from "./login-keys.ts";
import { bhsBytes, decode, loginRequest, type Values } from "./pdu.ts";
import type { Pdu } from "./pdu-stream.ts";
import { decodeText, encodeText, type TextPair } from "./text-keys.ts";

/** RFC 7143 §11.12.3. */
export const loginStage = { security: 0, operational: 1, fullFeature: 3 } as const;

/** RFC 7143 §11.13.5: status class and detail in one number. */
export const loginStatus = {
  success: 0x0000,
  initiatorError: 0x0200,
  authenticationFailed: 0x0201,
  notAuthorized: 0x0202,
  notFound: 0x0203,
  unsupportedVersion: 0x0205,
  tooManyConnections: 0x0206,
  missingParameter: 0x0207,
  unsupportedSessionType: 0x0209,
  sessionUnknown: 0x020a,
  targetError: 0x0300,
  serviceUnavailable: 0x0301,
  outOfResources: 0x0302,
} as const;

export type LoginRequest = Values<typeof loginRequest.fields>;

/** Who wants in, known from the first request (RFC 7143 §6.3.1). */
export interface LoginIdentity {
  initiatorName: string;
  /** Hex of the six ISID bytes. */
  isid: string;
  connectionId: number;
  discovery: boolean;
  /** Empty in a discovery session that names none. */
  targetName: string;
}

/** What the target says about an identity: a login status, and its portal group tag. */
export interface LoginPolicy {
  admit(identity: LoginIdentity, tsih: number): number;
  readonly portalGroupTag: number;
}

/**
 * One connection's login. The stage moves forward only; `security` may be skipped because the
 * only method yet is None, and is where an authentication exchange would hold the transit back.
 *
 *     security ──T──▶ operational ──T──▶ full feature
 *        └───────────────T──────────────────┘
 */
export interface Login {
  policy: LoginPolicy;
  requests: number;
  stage: number | null;
  identity: LoginIdentity | null;
  negotiation: Negotiation;
  /** Text of requests with the C bit, until the last one. */
  text: Buffer[];
  textBytes: number;
  /** What may not change from one request to the next. */
  first: LoginRequest | null;
}

export type LoginStep =
  | { type: "answer"; request: LoginRequest; transit: boolean; nextStage: number; text: Buffer }
  | { type: "refuse"; request: LoginRequest; status: number; reason: string }
  /** The final answer is owed once an older session of the same nexus has ended. */
  | { type: "accept"; request: LoginRequest; text: Buffer; identity: LoginIdentity };

export function startLogin(policy: LoginPolicy): Login {
  const negotiation: Negotiation = {
    parameters: defaultParameters(),
    discovery: false,
    seen: new Set(),
    declared: false,
  };
  return {
    policy,
    requests: 0,
    stage: null,
    identity: null,
    negotiation,
    text: [],
    textBytes: 0,
    first: null,
  };
}

export function loginParameters(login: Login): SessionParameters {
  return login.negotiation.parameters;
}

/** One Login Request in, one answer out. */
export function stepLogin(login: Login, pdu: Pdu): LoginStep {
  const request = copyRequest(pdu.bhs);
  const refuse = (status: number, reason: string): LoginStep => {
    return { type: "refuse", request, status, reason };
  };
  login.requests += 1;
  if (login.requests > loginRequestsMax) return refuse(loginStatus.initiatorError, "too long");
  const illegal = illegalRequest(login, request);
  if (illegal !== null) return refuse(illegal.status, illegal.reason);
  login.first ??= request;
  login.stage = request.currentStage;

  login.textBytes += pdu.dataLength;
  if (login.textBytes > textBytesMax) return refuse(loginStatus.initiatorError, "text too long");
  login.text.push(...pdu.data);
  if (request.continue) {
    // RFC 7143 §6.2: an empty answer asks for the rest.
    const text = Buffer.alloc(0);
    return { type: "answer", request, transit: false, nextStage: 0, text };
  }
  const offers = decodeText(Buffer.concat(login.text));
  login.text = [];
  login.textBytes = 0;
  if (offers === undefined) return refuse(loginStatus.initiatorError, "text is not key=value");

  const answers: TextPair[] = [];
  if (login.identity === null) {
    const identity = identify(request, offers);
    if (identity.ok === false) return refuse(identity.status, identity.reason);
    const status = login.policy.admit(identity.identity, request.tsih);
    if (status !== loginStatus.success) return refuse(status, identity.identity.targetName);
    login.identity = identity.identity;
    login.negotiation.discovery = identity.identity.discovery;
    if (identity.identity.targetName !== "") {
      answers.push(["TargetPortalGroupTag", String(login.policy.portalGroupTag)]);
    }
  }
  const negotiated = negotiate(login.negotiation, request.currentStage, offers);
  if (negotiated === undefined) return refuse(loginStatus.initiatorError, "key offered twice");
  if (negotiated.some(([key, value]) => key === "AuthMethod" && value === "Reject")) {
    return refuse(loginStatus.authenticationFailed, "no common AuthMethod");
  }
  answers.push(...negotiated);
  const text = encodeText(answers);
  if (!request.transit || request.nextStage !== loginStage.fullFeature) {
    const nextStage = request.transit ? request.nextStage : 0;
    if (request.transit) login.stage = request.nextStage;
    return { type: "answer", request, transit: request.transit, nextStage, text };
  }
  settleParameters(login.negotiation.parameters);
  return { type: "accept", request, text, identity: login.identity };
}

/** The request outlives the chunk that it came in. */
function copyRequest(bhs: Buffer): LoginRequest {
  return decode(loginRequest, Buffer.from(bhs.subarray(0, bhsBytes)));
}

function illegalRequest(
  login: Login,
  request: LoginRequest,
): { status: number; reason: string } | null {
  const error = (reason: string) => ({ status: loginStatus.initiatorError, reason });
  if (request.versionMin > 0) {
    return { status: loginStatus.unsupportedVersion, reason: `version ${request.versionMin}` };
  }
  const { currentStage, nextStage, transit } = request;
  // RFC 7143 §11.12.1-3: C and T exclude each other, stages go forward, 2 is reserved.
  if (request.continue && transit) return error("C and T bits together");
  if (currentStage !== loginStage.security && currentStage !== loginStage.operational) {
    return error(`current stage ${currentStage}`);
  }
  if (transit && (nextStage <= currentStage || nextStage === 2)) {
    return error(`next stage ${nextStage} from ${currentStage}`);
  }
  if (login.stage !== null && currentStage !== login.stage) {
    return error(`current stage ${currentStage} in stage ${login.stage}`);
  }
  const { first } = login;
  if (first === null) return null;
  const same =
    first.isid.equals(request.isid) &&
    first.tsih === request.tsih &&
    first.connectionId === request.connectionId &&
    first.initiatorTaskTag === request.initiatorTaskTag;
  return same ? null : error("ISID, TSIH, CID or task tag changed during login");
}

type Identified =
  | { ok: true; identity: LoginIdentity }
  | { ok: false; status: number; reason: string };

function identify(request: LoginRequest, offers: readonly TextPair[]): Identified {
  const values = new Map(offers);
  const initiatorName = values.get("InitiatorName") ?? "";
  if (initiatorName === "" || Buffer.byteLength(initiatorName) > nameBytesMax) {
    return { ok: false, status: loginStatus.missingParameter, reason: "no InitiatorName" };
  }
  const sessionType = values.get("SessionType") ?? "Normal";
  if (sessionType !== "Normal" && sessionType !== "Discovery") {
    const status = loginStatus.unsupportedSessionType;
    return { ok: false, status, reason: "SessionType is neither Normal nor Discovery" };
  }
  const discovery = sessionType === "Discovery";
  // Names compare after case folding (RFC 7143 §4.2.7.2); ours are lower case.
  const targetName = (values.get("TargetName") ?? "").toLowerCase();
  if (targetName === "" && !discovery) {
    return { ok: false, status: loginStatus.missingParameter, reason: "no TargetName" };
  }
  const identity = {
    initiatorName: initiatorName.toLowerCase(),
    isid: request.isid.toString("hex"),
    connectionId: request.connectionId,
    discovery,
    targetName,
  };
  return { ok: true, identity };
}
