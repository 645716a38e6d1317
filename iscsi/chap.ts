import { createHash, timingSafeEqual } from "node:crypto";

/**
 * The Challenge-Handshake Authentication Protocol (RFC 1994) as iSCSI uses it (RFC 7143 §12.1.3):
 * the arithmetic and the encodings. Who must prove what is in login-security.ts.
 */

/** IANA, PPP authentication algorithms, as CHAP_A names them. */
const hashes: ReadonlyMap<number, { name: string; bytes: number }> = new Map([
  [5, { name: "md5", bytes: 16 }],
  [6, { name: "sha1", bytes: 20 }],
  [7, { name: "sha256", bytes: 32 }],
  [8, { name: "sha3-256", bytes: 32 }],
]);
/** Strongest first. */
export const chapAlgorithms: readonly number[] = [...hashes.keys()].sort((a, b) => b - a);

export const challengeBytes = 32;
/** Of the other side's challenge: RFC 7143 §12.1.3 sets the most; less could be a table's entry. */
export const challengeBytesMin = 16;
export const challengeBytesMax = 1024;

/** RFC 1994 §4.1: the hash over identifier, secret and challenge. */
export function chapResponse(
  algorithm: number,
  identifier: number,
  secret: Buffer,
  challenge: Buffer,
): Buffer {
  const hash = createHash(hashes.get(algorithm)!.name);
  return hash
    .update(Buffer.from([identifier]))
    .update(secret)
    .update(challenge)
    .digest();
}

/** Whether they are the same, in a time that tells nothing of where they differ. */
export function sameBytes(a: Buffer, b: Buffer): boolean {
  const sum = (bytes: Buffer) => createHash("sha256").update(bytes).digest();
  return timingSafeEqual(sum(a), sum(b));
}

/**
 * The algorithm for an offered CHAP_A list: the strongest of both sides; the strongest that is
 * known at all when both sides agree on none; undefined when none of the list is known.
 */
export function chooseAlgorithm(
  offered: string,
  accepted: readonly number[],
): { algorithm: number; isAccepted: boolean } | undefined {
  const numbers = new Set(offered.split(",").map(Number));
  const strongest = (among: readonly number[]) => {
    return chapAlgorithms.find((one) => numbers.has(one) && among.includes(one));
  };
  const agreed = strongest(accepted);
  if (agreed !== undefined) return { algorithm: agreed, isAccepted: true };
  const known = strongest(chapAlgorithms);
  return known === undefined ? undefined : { algorithm: known, isAccepted: false };
}

/** A binary value (RFC 7143 §6.1): 0x and hexadecimal, or 0b and base64; undefined when neither. */
export function decodeBinary(value: string): Buffer | undefined {
  const digits = value.slice(2);
  switch (value.slice(0, 2).toLowerCase()) {
    case "0x":
      return /^(?:[0-9a-fA-F]{2})+$/.test(digits) ? Buffer.from(digits, "hex") : undefined;
    case "0b":
      return /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(digits) &&
        digits.length > 0
        ? Buffer.from(digits, "base64")
        : undefined;
    default:
      return undefined;
  }
}

export function encodeBinary(bytes: Buffer): string {
  return `0x${bytes.toString("hex")}`;
}
