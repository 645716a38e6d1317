import { createHash } from "node:crypto";
import type { Prng } from "../../brick/prng.ts";
import type { TextPair } from "../../iscsi/text-keys.ts";

/** An initiator's half of CHAP (RFC 1994, RFC 7143 §12.1.3), with arithmetic of its own. */

export interface ChapProof {
  readonly user: string;
  readonly secret: Buffer;
}

const hashNames: Readonly<Record<string, string>> = {
  "5": "md5",
  "6": "sha1",
  "7": "sha256",
  "8": "sha3-256",
};

/** The answer to a challenge, and now and then a challenge in return. */
export function chapPairs(
  { user, secret }: ChapProof,
  asked: ReadonlyMap<string, string>,
  prng: Prng,
): TextPair[] {
  const challenge = Buffer.from((asked.get("CHAP_C") ?? "").slice(2), "hex");
  const identifier = Buffer.from([Number(asked.get("CHAP_I") ?? 0) & 0xff]);
  const hash = createHash(hashNames[asked.get("CHAP_A") ?? ""] ?? "sha256");
  const response = hash.update(identifier).update(secret).update(challenge).digest();
  const pairs: TextPair[] = [
    ["CHAP_N", user],
    ["CHAP_R", prng.chance(0.5) ? `0x${response.toString("hex")}` : base64(response)],
  ];
  if (prng.chance(0.7)) return pairs;
  const counter = prng.fill(Buffer.alloc(prng.between(16, 64)));
  return [...pairs, ["CHAP_I", String(prng.between(0, 255))], ["CHAP_C", base64(counter)]];
}

function base64(bytes: Buffer): string {
  return `0b${bytes.toString("base64")}`;
}
