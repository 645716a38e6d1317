import { createCipheriv, createDecipheriv, createHmac, hkdfSync } from "node:crypto";
import { assert } from "../assert.ts";

/** Keys are sealed with AES-256-GCM: on a brick's disk under its master key, between bricks under the
 * cluster's secret. What a sealed key belongs to is authenticated with it: it opens for nothing else. */

export const masterKeyBytes = 32;
export const nonceBytes = 12;
export const tagBytes = 16;
export const masterIdBytes = 8;

/** Tells master keys apart; says nothing of them. */
export function masterIdOf(masterKey: Buffer): Buffer {
  assert(masterKey.length === masterKeyBytes);
  const id = createHmac("sha256", masterKey).update("endisk master key id 1").digest();
  return id.subarray(0, masterIdBytes);
}

/** What keys are sealed with: one for each purpose of a secret. */
export function sealingKey(secret: Buffer, purpose: "key file" | "key wire"): Buffer {
  return Buffer.from(hkdfSync("sha256", secret, "", `endisk ${purpose} 1`, 32));
}

export function seal(sealing: Buffer, nonce: Buffer, owner: Buffer, key: Buffer): Buffer {
  assert(nonce.length === nonceBytes);
  const cipher = createCipheriv("aes-256-gcm", sealing, nonce);
  cipher.setAAD(owner);
  return Buffer.concat([cipher.update(key), cipher.final(), cipher.getAuthTag()]);
}

/** `sealed`: as long as the key and its tag. null: sealed for something else, or changed since. */
export function open(sealing: Buffer, nonce: Buffer, owner: Buffer, sealed: Buffer): Buffer | null {
  const tagAt = sealed.length - tagBytes;
  if (tagAt < 0) return null;
  const decipher = createDecipheriv("aes-256-gcm", sealing, nonce, { authTagLength: tagBytes });
  decipher.setAAD(owner);
  decipher.setAuthTag(sealed.subarray(tagAt));
  try {
    return Buffer.concat([decipher.update(sealed.subarray(0, tagAt)), decipher.final()]);
  } catch {
    return null;
  }
}

/**
 * By which a key is known to be the one that a volume was made with: 32 hex digits. It stands in the
 * cluster state and says nothing of the key.
 */
export function keyCheckOf(key: Buffer, clusterId: string, volumeUuid: string): string {
  const check = createHmac("sha256", key);
  check.update(`endisk key check 1 ${clusterId} ${volumeUuid}`);
  return check.digest("hex").slice(0, 32);
}
