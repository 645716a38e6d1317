import { createHash, randomBytes } from "node:crypto";
import type { LoginAnswer, ScriptedInitiator } from "./scripted-initiator.ts";

/** CHAP from the initiator's side (RFC 7143 §12.1.3, RFC 1994 §4.1). */

/** CHAP_A -> the name by which node:crypto knows it (IANA, PPP authentication algorithms). */
export const chapHashes = { 5: "md5", 6: "sha1", 7: "sha256", 8: "sha3-256" } as const;
export type ChapNumber = keyof typeof chapHashes;

export interface ChapLogin {
  /** Keys of the first request besides AuthMethod. */
  names: readonly (readonly [string, string])[];
  user: string;
  secret: string;
  /** CHAP_A as offered, such as "7,5". */
  algorithms: string;
  /** What the target must prove in return. */
  mutual?: { user: string; secret: string };
  /** Instead of a challenge of its own: the target's, sent back to it. */
  reflects?: boolean;
  /** How CHAP_R is written. */
  encoding?: "hex" | "HEX" | "base64";
}

export interface ChapOutcome {
  /** Login status of the last response. */
  status: number;
  /** CHAP_A that the target chose; 0: it chose none. */
  algorithm: number;
  challenge: string;
  /** Whether the target has proven itself; null: it was not asked. */
  targetProven: boolean | null;
}

/** Goes through the security stage, up to the operational one. */
export async function loginWithChap(
  initiator: ScriptedInitiator,
  login: ChapLogin,
): Promise<ChapOutcome> {
  const nothing = { algorithm: 0, challenge: "", targetProven: null };
  const security = (keys: readonly (readonly [string, string])[], transit = false) =>
    initiator.login({ currentStage: 0, nextStage: transit ? 1 : null, keys });
  const method = await security([...login.names, ["AuthMethod", "CHAP"]]);
  if (method.status !== 0) return { status: method.status, ...nothing };
  const chosen = await security([["CHAP_A", login.algorithms]]);
  if (chosen.status !== 0) return { status: chosen.status, ...nothing };
  const algorithm = Number(chosen.keys.get("CHAP_A"));
  const challenge = chosen.keys.get("CHAP_C") ?? "";
  const hash = chapHashes[algorithm as ChapNumber];
  if (hash === undefined) return { status: chosen.status, ...nothing };
  const identifier = Number(chosen.keys.get("CHAP_I"));
  const response = chapResponse(hash, identifier, login.secret, bytesOfText(challenge));
  const own = login.reflects === true ? challenge : `0x${randomBytes(24).toString("hex")}`;
  const ownIdentifier = login.reflects === true ? identifier : 77;
  const asked = login.mutual !== undefined || login.reflects === true;
  const answer = await security(
    [
      ["CHAP_N", login.user],
      ["CHAP_R", written(response, login.encoding ?? "hex")],
      ...(asked
        ? ([
            ["CHAP_I", String(ownIdentifier)],
            ["CHAP_C", own],
          ] as const)
        : []),
    ],
    true,
  );
  const proven =
    login.mutual === undefined ? null : isProven(answer, hash, ownIdentifier, own, login.mutual);
  return { status: answer.status, algorithm, challenge, targetProven: proven };
}

function isProven(
  answer: LoginAnswer,
  hash: string,
  identifier: number,
  challenge: string,
  mutual: { user: string; secret: string },
): boolean {
  const wanted = chapResponse(hash, identifier, mutual.secret, bytesOfText(challenge));
  const given = bytesOfText(answer.keys.get("CHAP_R") ?? "");
  return answer.keys.get("CHAP_N") === mutual.user && given.equals(wanted);
}

function chapResponse(hash: string, identifier: number, secret: string, challenge: Buffer): Buffer {
  return createHash(hash)
    .update(Buffer.from([identifier]))
    .update(secret)
    .update(challenge)
    .digest();
}

/** RFC 7143 §6.1: a binary value, hex or base64. */
function bytesOfText(text: string): Buffer {
  if (/^0x/i.test(text)) return Buffer.from(text.slice(2), "hex");
  return /^0b/i.test(text) ? Buffer.from(text.slice(2), "base64") : Buffer.alloc(0);
}

function written(bytes: Buffer, encoding: "hex" | "HEX" | "base64"): string {
  if (encoding === "base64") return `0b${bytes.toString("base64")}`;
  const digits = bytes.toString("hex");
  return encoding === "hex" ? `0x${digits}` : `0X${digits.toUpperCase()}`;
}
