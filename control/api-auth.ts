import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  hkdfSync,
  timingSafeEqual,
} from "node:crypto";

/**
 * How members of a cluster recognise each other at the api port, and how a brick becomes one. Pure:
 * time and random bytes are arguments.
 *
 * A call's proof is HMAC-SHA-256 under the cluster secret over method, time, nonce and the hash of
 * the request's bytes; the reply's proof covers the same nonce and the reply's bytes. Joining uses
 * keys derived from a one-time token instead.
 */

export const secretBytes = 32;
export const nonceBytes = 16;
/** A call's time may differ from ours by this much: the clocks of two machines, and the way. */
export const callAgeMsMax = 120_000;
/** Nonces kept for at least the time in which their call could be played again. */
export const noncesMax = 50_000;

export interface CallStamp {
  /** Wall-clock milliseconds at the caller. */
  timeMs: number;
  /** Hex digits. */
  nonce: string;
}

export function callProof(secret: Buffer, method: string, stamp: CallStamp, body: Buffer): Buffer {
  return proof(secret, ["endisk admin call 1", method, String(stamp.timeMs), stamp.nonce], body);
}

export function replyProof(secret: Buffer, method: string, nonce: string, body: Buffer): Buffer {
  return proof(secret, ["endisk admin reply 1", method, nonce], body);
}

/** Of an answer that says at which time a call was not admitted. */
export function staleProof(secret: Buffer, method: string, nonce: string, timeMs: number): Buffer {
  const words = ["endisk admin stale 1", method, nonce, String(timeMs)];
  return proof(secret, words, Buffer.alloc(0));
}

function proof(key: Buffer, words: readonly string[], body: Buffer): Buffer {
  const bodyHash = createHash("sha256").update(body).digest("hex");
  return createHmac("sha256", key)
    .update([...words, bodyHash].join("\n"))
    .digest();
}

/** In constant time; false for any other length. */
export function proofEquals(given: Buffer, expected: Buffer): boolean {
  return given.length === expected.length && timingSafeEqual(given, expected);
}

/**
 * "stale": made before this process was started, or too long ago or ahead by its clock. It was not
 * carried out, and may be made again with a time that is right here.
 */
export type Admission = "admitted" | "stale" | "refused";

/**
 * Which calls have been seen. Two generations of nonces, each filled for as long as a call may be
 * played again, so that memory is bounded and nothing is forgotten too early.
 */
export class ReplayWindow {
  readonly #startedMs: number;
  #turnedMs: number;
  #present = new Set<string>();
  #before = new Set<string>();

  constructor(nowMs: number) {
    this.#startedMs = nowMs;
    this.#turnedMs = nowMs;
  }

  /** Call only with a stamp whose proof holds: strangers must not fill the window. */
  admit(nowMs: number, stamp: CallStamp): Admission {
    if (!(Math.abs(nowMs - stamp.timeMs) <= callAgeMsMax)) return "stale";
    // The nonces of an earlier life of this process are not known any more.
    if (stamp.timeMs < this.#startedMs) return "stale";
    if (nowMs - this.#turnedMs > 2 * callAgeMsMax) {
      this.#before = this.#present;
      this.#present = new Set();
      this.#turnedMs = nowMs;
    }
    if (this.#present.has(stamp.nonce) || this.#before.has(stamp.nonce)) return "refused";
    if (this.#present.size >= noncesMax) return "refused";
    this.#present.add(stamp.nonce);
    return "admitted";
  }
}

/** "endisk1-ID-SECRET": the id names the token, the secret is never sent. */
export interface JoinToken {
  /** 16 hex digits. */
  id: string;
  /** SHA-256 of the secret part: what the cluster keeps, and what both sides derive keys from. */
  hash: string;
}

export function joinTokenText(id: Buffer, secret: Buffer): string {
  return `endisk1-${id.toString("hex")}-${secret.toString("hex")}`;
}

/** null when the text is no token. */
export function parseJoinToken(text: string): JoinToken | null {
  const match = /^endisk1-([0-9a-f]{16})-([0-9a-f]{64})$/.exec(text.trim());
  if (match === null) return null;
  return { id: match[1]!, hash: tokenHash(Buffer.from(match[2]!, "hex")) };
}

export function tokenHash(secret: Buffer): string {
  return createHash("sha256").update("endisk join token 1").update(secret).digest("hex");
}

export function joinProof(hash: string, id: string, nonce: Buffer, details: Buffer): Buffer {
  const key = joinKey(hash, nonce, "endisk join proof 1");
  return proof(key, ["endisk join 1", id, nonce.toString("hex")], details);
}

const ivBytes = 12;
const tagBytes = 16;

/** Seals a grant for the one who knows the token; `iv` is 12 random bytes. */
export function sealGrant(hash: string, nonce: Buffer, iv: Buffer, grant: Buffer): Buffer {
  const cipher = createCipheriv("aes-256-gcm", joinKey(hash, nonce, "endisk join seal 1"), iv);
  return Buffer.concat([iv, cipher.update(grant), cipher.final(), cipher.getAuthTag()]);
}

/** null when it was not sealed with this token for this request. */
export function openGrant(hash: string, nonce: Buffer, sealed: Buffer): Buffer | null {
  if (sealed.length < ivBytes + tagBytes) return null;
  const key = joinKey(hash, nonce, "endisk join seal 1");
  const decipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(0, ivBytes), {
    authTagLength: tagBytes,
  });
  decipher.setAuthTag(sealed.subarray(sealed.length - tagBytes));
  try {
    const inner = sealed.subarray(ivBytes, sealed.length - tagBytes);
    return Buffer.concat([decipher.update(inner), decipher.final()]);
  } catch {
    return null;
  }
}

function joinKey(hash: string, nonce: Buffer, purpose: string): Buffer {
  return Buffer.from(hkdfSync("sha256", Buffer.from(hash, "hex"), nonce, purpose, 32));
}
