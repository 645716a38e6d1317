import type { Proof } from "./authority.ts";
import { loginAnswerBytesMax, loginRequestsMax, textBytesMax } from "./limits.ts";
import {
  defaultParameters,
  type Negotiation,
  negotiate,
  type SessionParameters,
  settleParameters,
} from "./login-keys.ts";
import {
  headerFault,
  identify,
  type LoginIdentity,
  type LoginRequest,
  loginStage,
  readLoginRequest,
} from "./login-request.ts";
import {
  type ChallengeSource,
  type SecurityContext,
  type SecurityStep,
  securityKeys,
  stepSecurity,
} from "./login-security.ts";
import { loginStatus } from "./login-status.ts";
import type { Pdu } from "./pdu-stream.ts";
import { decodeText, encodeText, type TextPair } from "./text-keys.ts";

/** What the target says about an identity. */
export interface LoginPolicy {
  readonly portalGroupTag: number;
  readonly challenges: ChallengeSource;
  /** Another portal's address, to which normal sessions are sent; null: they may stay. */
  redirect(): string | null;
  proof(identity: LoginIdentity): Proof;
  /** A login status; asked once the proof, if any, has been given. */
  admit(identity: LoginIdentity, tsih: number): number;
}

/**
 * One connection's login. The stage moves forward only; `security` may be skipped only by those who
 * need not prove anything, and is left only when what had to be proven was.
 *
 *     security ──T──▶ operational ──T──▶ full feature
 *        └───────────────T──────────────────┘
 */
export interface Login {
  readonly policy: LoginPolicy;
  requests: number;
  stage: number | null;
  identity: LoginIdentity | null;
  security: SecurityContext | null;
  readonly negotiation: Negotiation;
  /** Text of requests with the C bit, until the last one. */
  text: Buffer[];
  textBytes: number;
  /** What is left of an answer that does not fit in one PDU. */
  rest: Buffer | null;
  /** What may not change from one request to the next. */
  first: LoginRequest | null;
}

export type LoginStep =
  | {
      type: "answer";
      request: LoginRequest;
      transit: boolean;
      continues: boolean;
      nextStage: number;
      text: Buffer;
    }
  | { type: "refuse"; request: LoginRequest; status: number; reason: string; text: Buffer }
  /** The final answer is owed once an older session of the same nexus has ended. */
  | { type: "accept"; request: LoginRequest; text: Buffer; identity: LoginIdentity }
  /** A proof was given; `examine` goes on, when the caller lets it. */
  | { type: "examine"; identity: LoginIdentity; examine: () => LoginStep };

export function startLogin(policy: LoginPolicy): Login {
  const negotiation: Negotiation = {
    parameters: defaultParameters(),
    discovery: false,
    seen: new Map(),
    declared: false,
  };
  return {
    policy,
    requests: 0,
    stage: null,
    identity: null,
    security: null,
    negotiation,
    text: [],
    textBytes: 0,
    rest: null,
    first: null,
  };
}

/** The login is over, either way: its challenge is void. */
export function endLogin(login: Login): void {
  const security = login.security?.security;
  if (security?.state === "response") login.policy.challenges.back(security.challenge);
}

/** Whether the initiator has proven itself, rather than that nothing was asked. */
export function isProven({ security }: Login): boolean {
  return security?.proof.method === "chap" && security.security.state === "proven";
}

export function loginParameters(login: Login): SessionParameters {
  return login.negotiation.parameters;
}

function refusal(request: LoginRequest, status: number, reason: string): LoginStep {
  return { type: "refuse", request, status, reason, text: Buffer.alloc(0) };
}

/** One Login Request in, one answer out. */
export function stepLogin(login: Login, pdu: Pdu): LoginStep {
  const request = readLoginRequest(pdu.bhs);
  const refuse = (status: number, reason: string) => refusal(request, status, reason);
  login.requests += 1;
  if (login.requests > loginRequestsMax) return refuse(loginStatus.initiatorError, "too long");
  const fault = headerFault(request, login.first, login.stage);
  if (fault !== null) return refuse(fault.status, fault.reason);
  login.first ??= request;
  login.stage = request.currentStage;
  if (login.rest !== null) {
    // §6.2: until our answer is whole the initiator has nothing to say.
    if (pdu.dataLength > 0)
      return refuse(loginStatus.initiatorError, "text before our answer ended");
    return sendAnswer(login, request, login.rest);
  }
  login.textBytes += pdu.dataLength;
  if (login.textBytes > textBytesMax) return refuse(loginStatus.initiatorError, "text too long");
  // Copies: a part must not keep the chunk that it came in.
  for (const part of pdu.data) login.text.push(Buffer.from(part));
  if (request.continue) {
    // §6.2: an empty answer asks for the rest.
    return answer(request, { transit: false, continues: false, text: Buffer.alloc(0) });
  }
  const offers = decodeText(Buffer.concat(login.text));
  login.text = [];
  login.textBytes = 0;
  if (offers === undefined) return refuse(loginStatus.initiatorError, "text is not key=value");
  return takeOffers(login, request, offers);
}

function takeOffers(login: Login, request: LoginRequest, offers: readonly TextPair[]): LoginStep {
  const values = new Map(offers);
  const answers: TextPair[] = [];
  const negotiated = negotiate(login.negotiation, request.currentStage, offers);
  if (negotiated === undefined) {
    return refusal(request, loginStatus.initiatorError, "a key was offered twice");
  }
  if (login.identity === null) {
    const refused = introduce(login, request, values);
    if (refused !== null) return refused;
    if (login.identity!.targetName !== "") {
      answers.push(["TargetPortalGroupTag", String(login.policy.portalGroupTag)]);
    }
  }
  // Only now is it known whether this is a discovery session.
  answers.push(...negotiated());
  if (request.currentStage === loginStage.security) {
    const security = new Map(offers.filter(([key]) => securityKeys.has(key)));
    return secure(
      login,
      request,
      answers,
      stepSecurity(login.security!, security, request.transit),
    );
  }
  // §6.3.2: whoever must prove something may not begin, nor go on, without having done so.
  if (!isSecured(login)) {
    return refusal(request, loginStatus.authenticationFailed, "the security stage was skipped");
  }
  return sendAnswer(login, request, encodeText(answers));
}

/** The first request says who it is; a refusal, or null when the login may go on. */
function introduce(
  login: Login,
  request: LoginRequest,
  values: ReadonlyMap<string, string>,
): LoginStep | null {
  const { policy } = login;
  const identified = identify(request, values);
  if (!identified.ok) return refusal(request, identified.status, identified.reason);
  const { identity } = identified;
  const address = identity.discovery ? null : policy.redirect();
  if (address !== null) {
    const { status, reason } = {
      status: loginStatus.targetMovedTemporarily,
      reason: `${identity.targetName} is served by ${address}`,
    };
    // §13.8: without the portal group tag.
    return {
      type: "refuse",
      request,
      status,
      reason,
      text: encodeText([["TargetAddress", address]]),
    };
  }
  const proof = policy.proof(identity);
  if (proof.method === "none") {
    const status = policy.admit(identity, request.tsih);
    if (status !== loginStatus.success) return refusal(request, status, notAdmitted(identity));
  }
  login.identity = identity;
  login.negotiation.discovery = identity.discovery;
  login.security = { proof, challenges: policy.challenges, security: { state: "method" } };
  return null;
}

function notAdmitted({ discovery, targetName }: LoginIdentity): string {
  return discovery ? "discovery is not admitted" : `${targetName} does not admit it`;
}

function isSecured({ security }: Login): boolean {
  return security!.proof.method === "none" || security!.security.state === "proven";
}

function secure(
  login: Login,
  request: LoginRequest,
  answers: readonly TextPair[],
  step: SecurityStep,
): LoginStep {
  switch (step.type) {
    case "refuse":
      return refusal(request, step.status, step.reason);
    case "answer":
      return sendAnswer(login, request, encodeText([...answers, ...step.pairs]));
    case "examine": {
      const identity = login.identity!;
      const before = login.security!.security;
      const examine = (): LoginStep => {
        const examined = step.examine();
        if (examined.type === "refuse") return refusal(request, examined.status, examined.reason);
        if (before.state === "response") login.policy.challenges.back(before.challenge);
        // Only who has proven itself learns what there is and what is not for it.
        const status = login.policy.admit(identity, request.tsih);
        if (status !== loginStatus.success) return refusal(request, status, notAdmitted(identity));
        return sendAnswer(login, request, encodeText([...answers, ...examined.pairs]));
      };
      return { type: "examine", identity, examine };
    }
  }
}

/** Sends what fits in one PDU; the stage changes, if it may, with the last. */
function sendAnswer(login: Login, request: LoginRequest, text: Buffer): LoginStep {
  if (text.length > loginAnswerBytesMax) {
    login.rest = text.subarray(loginAnswerBytesMax);
    const part = text.subarray(0, loginAnswerBytesMax);
    return answer(request, { transit: false, continues: true, text: part });
  }
  login.rest = null;
  // §6.3.3: an initiator that wants to go on before its proof is complete is held back.
  const transit = request.transit && isSecured(login);
  if (!transit) return answer(request, { transit, continues: false, text });
  login.stage = request.nextStage;
  if (request.nextStage !== loginStage.fullFeature) {
    return answer(request, { transit, continues: false, text });
  }
  settleParameters(login.negotiation.parameters);
  return { type: "accept", request, text, identity: login.identity! };
}

function answer(
  request: LoginRequest,
  { transit, continues, text }: { transit: boolean; continues: boolean; text: Buffer },
): LoginStep {
  const nextStage = transit ? request.nextStage : 0;
  return { type: "answer", request, transit, continues, nextStage, text };
}
