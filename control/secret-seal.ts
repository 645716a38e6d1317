import { createCipheriv, createDecipheriv, createHmac, hkdfSync } from "node:crypto";
import type { SealedSecret } from "../brick/cluster-state.ts";

/**
 * CHAP secrets as the cluster keeps them: sealed with AES-256-GCM under a key of the cluster
 * secret, so that neither logs of Raft, nor snapshots, nor the api show them. Whoever has the
 * cluster secret can open them: a target needs the secret itself to prove and to check.
 */

export const sealIvBytes = 12;
const tagBytes = 16;
const fingerprintBytes = 16;

/**
 * What a secret belongs to; one that was sealed for something else does not open, so that nobody
 * who can only move sealed secrets about can give one to another user.
 */
export interface SecretOwner {
  /** iSCSI name of the initiator; null: the cluster's discovery credentials. */
  readonly initiator: string | null;
  /** Who proves by it. */
  readonly prover: "initiator" | "target";
  /** CHAP_N of the prover. */
  readonly user: string;
}

/** `iv`: random bytes, new each time. */
export function sealSecret(
  clusterSecret: Buffer,
  owner: SecretOwner,
  secret: Buffer,
  iv: Buffer,
): SealedSecret {
  const cipher = createCipheriv("aes-256-gcm", keyFor(clusterSecret, "seal"), iv);
  cipher.setAAD(ownerBytes(owner));
  const inner = Buffer.concat([cipher.update(secret), cipher.final()]);
  const sealed = Buffer.concat([iv, inner, cipher.getAuthTag()]).toString("hex");
  return { sealed, fingerprint: fingerprintOf(clusterSecret, secret) };
}

/** null when it was sealed by another cluster, or for something else. */
export function openSecret(
  clusterSecret: Buffer,
  owner: SecretOwner,
  { sealed }: SealedSecret,
): Buffer | null {
  const bytes = Buffer.from(sealed, "hex");
  if (bytes.length < sealIvBytes + tagBytes) return null;
  const iv = bytes.subarray(0, sealIvBytes);
  const decipher = createDecipheriv("aes-256-gcm", keyFor(clusterSecret, "seal"), iv, {
    authTagLength: tagBytes,
  });
  decipher.setAAD(ownerBytes(owner));
  decipher.setAuthTag(bytes.subarray(bytes.length - tagBytes));
  try {
    const inner = bytes.subarray(sealIvBytes, bytes.length - tagBytes);
    return Buffer.concat([decipher.update(inner), decipher.final()]);
  } catch {
    return null;
  }
}

/** Equal for equal secrets of one cluster; says nothing to those without the cluster secret. */
function fingerprintOf(clusterSecret: Buffer, secret: Buffer): string {
  const hash = createHmac("sha256", keyFor(clusterSecret, "fingerprint")).update(secret).digest();
  return hash.subarray(0, fingerprintBytes).toString("hex");
}

function keyFor(clusterSecret: Buffer, purpose: "seal" | "fingerprint"): Buffer {
  return Buffer.from(hkdfSync("sha256", clusterSecret, "", `endisk chap ${purpose} 1`, 32));
}

function ownerBytes({ initiator, prover, user }: SecretOwner): Buffer {
  return Buffer.from(JSON.stringify([initiator, prover, user]));
}
