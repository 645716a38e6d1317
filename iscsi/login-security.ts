import { assertNever } from "../brick/assert.ts";
import type { ChapAccount, Proof } from "./authority.ts";
import {
  challengeBytes,
  challengeBytesMax,
  challengeBytesMin,
  chapResponse,
  chooseAlgorithm,
  decodeBinary,
  encodeBinary,
  sameBytes,
} from "./chap.ts";
import { loginStatus } from "./login-status.ts";
import { parseNumber, type TextPair } from "./text-keys.ts";

/**
 * The security stage of a login (RFC 7143 §6.3.2, §12.1): what must be proven, and whether it was.
 *
 *     method ──AuthMethod──▶ algorithm ──CHAP_A──▶ response ──CHAP_N, CHAP_R──▶ proven
 *        └──────────────────────── None, when no proof is asked ────────────────▲
 */
export type Security =
  | { state: "method" }
  | { state: "algorithm" }
  | ({ state: "response" } & Challenge)
  | { state: "proven" };

interface Challenge {
  readonly algorithm: number;
  /** The initiator offers nothing that its account accepts: it will not get in. */
  readonly isAccepted: boolean;
  readonly identifier: number;
  readonly challenge: Buffer;
}

/** Where challenges come from; those that are out are remembered (RFC 7143 §9.2.1). */
export interface ChallengeSource {
  /** Bytes that nobody can foretell. */
  draw(lengthBytes: number): Buffer;
  /** Whether a challenge of ours, of any login under way, is the same. */
  isOut(challenge: Buffer): boolean;
  out(challenge: Buffer): void;
  back(challenge: Buffer): void;
}

export type SecurityStep =
  | { type: "answer"; pairs: TextPair[] }
  | { type: "refuse"; status: number; reason: string }
  /** The proof is here. `examine` may be called later: guessing is slowed by whoever calls. */
  | { type: "examine"; examine: () => Exclude<SecurityStep, { type: "examine" }> };

/** The keys that are answered here and nowhere else. */
export const securityKeys: ReadonlySet<string> = new Set([
  "AuthMethod",
  "CHAP_A",
  "CHAP_I",
  "CHAP_C",
  "CHAP_N",
  "CHAP_R",
]);

export interface SecurityContext {
  readonly proof: Proof;
  readonly challenges: ChallengeSource;
  security: Security;
}

/** One request's security keys. `transit`: the initiator wants to leave the stage. */
export function stepSecurity(
  context: SecurityContext,
  offers: ReadonlyMap<string, string>,
  transit: boolean,
): SecurityStep {
  const { proof, security } = context;
  switch (security.state) {
    case "method": {
      const methods = offers.get("AuthMethod")?.split(",");
      if (methods === undefined) {
        if (proof.method === "none" && !hasChapKeys(offers)) return { type: "answer", pairs: [] };
        return transit || hasChapKeys(offers) ? failed("no AuthMethod") : nothing();
      }
      const wanted = proof.method === "none" ? "None" : "CHAP";
      if (!methods.includes(wanted)) return failed(`AuthMethod is not ${wanted}`);
      context.security = { state: proof.method === "none" ? "proven" : "algorithm" };
      const answer: TextPair = ["AuthMethod", wanted];
      if (proof.method === "none" || !offers.has("CHAP_A"))
        return { type: "answer", pairs: [answer] };
      const next = chooseChap(context, offers);
      return next.type === "answer" ? { ...next, pairs: [answer, ...next.pairs] } : next;
    }
    case "algorithm":
      if (offers.size === 0 && !transit) return nothing();
      return chooseChap(context, offers);
    case "response":
      return takeResponse(context, security, offers);
    case "proven":
      return hasChapKeys(offers) ? wrong("CHAP keys after the proof") : nothing();
    default:
      return assertNever(security);
  }
}

function hasChapKeys(offers: ReadonlyMap<string, string>): boolean {
  return [...offers.keys()].some((key) => key.startsWith("CHAP_"));
}

function nothing(): SecurityStep {
  return { type: "answer", pairs: [] };
}

function failed(reason: string): { type: "refuse"; status: number; reason: string } {
  return { type: "refuse", status: loginStatus.authenticationFailed, reason };
}

function missing(key: string): { type: "refuse"; status: number; reason: string } {
  return { type: "refuse", status: loginStatus.missingParameter, reason: `no ${key}` };
}

function wrong(reason: string): { type: "refuse"; status: number; reason: string } {
  return { type: "refuse", status: loginStatus.initiatorError, reason };
}

function accountOf(proof: Proof): ChapAccount | null {
  return proof.method === "chap" ? proof.account : null;
}

/**
 * Sends the challenge. An initiator without an account, and one that offers less than its account
 * accepts, is challenged like any other: refusing here would tell which names have accounts.
 */
function chooseChap(
  context: SecurityContext,
  offers: ReadonlyMap<string, string>,
): Exclude<SecurityStep, { type: "examine" }> {
  const offered = offers.get("CHAP_A");
  if (offered === undefined) return missing("CHAP_A");
  const chosen = chooseAlgorithm(offered, accountOf(context.proof)?.algorithms ?? []);
  if (chosen === undefined) return failed("no CHAP_A that is known");
  const { challenges } = context;
  const identifier = challenges.draw(1)[0]!;
  const challenge = challenges.draw(challengeBytes);
  challenges.out(challenge);
  context.security = { state: "response", ...chosen, identifier, challenge };
  return {
    type: "answer",
    pairs: [
      ["CHAP_A", String(chosen.algorithm)],
      ["CHAP_I", String(identifier)],
      ["CHAP_C", encodeBinary(challenge)],
    ],
  };
}

/** What the initiator wants proven in return. */
interface Counter {
  readonly identifier: number;
  readonly challenge: Buffer;
}

function takeResponse(
  context: SecurityContext,
  security: Challenge,
  offers: ReadonlyMap<string, string>,
): SecurityStep {
  const name = offers.get("CHAP_N");
  const responseText = offers.get("CHAP_R");
  if (name === undefined) return missing("CHAP_N");
  if (responseText === undefined) return missing("CHAP_R");
  const response = decodeBinary(responseText);
  if (response === undefined) return wrong("CHAP_R is no binary value");
  const counter = readCounter(context, offers);
  if (counter !== null && "type" in counter) return counter;
  return {
    type: "examine",
    examine: () => examine(context, security, { name, response, counter }),
  };
}

function readCounter(
  context: SecurityContext,
  offers: ReadonlyMap<string, string>,
): Counter | null | { type: "refuse"; status: number; reason: string } {
  const identifierText = offers.get("CHAP_I");
  const challengeText = offers.get("CHAP_C");
  if (identifierText === undefined && challengeText === undefined) return null;
  if (identifierText === undefined) return missing("CHAP_I");
  if (challengeText === undefined) return missing("CHAP_C");
  const identifier = parseNumber(identifierText);
  if (identifier === undefined || identifier > 255) return wrong("CHAP_I is no byte");
  const challenge = decodeBinary(challengeText);
  const length = challenge?.length ?? 0;
  if (challenge === undefined || length < challengeBytesMin || length > challengeBytesMax) {
    return wrong(`CHAP_C is not of ${challengeBytesMin} to ${challengeBytesMax} B`);
  }
  // §9.2.1: a challenge of ours must not come back, over this or any other connection.
  return context.challenges.isOut(challenge)
    ? failed("CHAP_C is our own")
    : { identifier, challenge };
}

/** Stands for the secret of those who have none: the same work is done for them. */
const noAccount: ChapAccount = {
  user: "",
  secret: Buffer.alloc(16),
  algorithms: [],
  mutual: null,
};

function examine(
  context: SecurityContext,
  { algorithm, isAccepted, identifier, challenge }: Challenge,
  given: { name: string; response: Buffer; counter: Counter | null },
): Exclude<SecurityStep, { type: "examine" }> {
  const known = accountOf(context.proof);
  const account = known ?? noAccount;
  const expected = chapResponse(algorithm, identifier, account.secret, challenge);
  const rightName = sameBytes(Buffer.from(given.name), Buffer.from(account.user));
  const rightResponse = sameBytes(given.response, expected);
  const right = rightName && rightResponse && isAccepted && known !== null;
  // One reason for all: what was wrong is for nobody to learn.
  if (!right) return failed("wrong name or response");
  const { counter } = given;
  const { mutual } = account;
  if (counter === null) {
    context.security = { state: "proven" };
    return { type: "answer", pairs: [] };
  }
  if (mutual === null) return failed("it wants a proof of the target, which has none");
  const ours = chapResponse(algorithm, counter.identifier, mutual.secret, counter.challenge);
  // §9.2.1: equal responses mean that one secret serves both directions.
  if (sameBytes(ours, given.response)) return failed("both sides have one secret");
  context.security = { state: "proven" };
  return {
    type: "answer",
    pairs: [
      ["CHAP_N", mutual.user],
      ["CHAP_R", encodeBinary(ours)],
    ],
  };
}
