import { assert } from "../assert.ts";
import { crc32 } from "../crc32.ts";
import {
  masterIdBytes,
  masterIdOf,
  nonceBytes,
  open,
  seal,
  sealingKey,
  tagBytes,
} from "./master-key.ts";
import { dataKeyBytes, isDataKey } from "./xts.ts";

/**
 * Key file, version 1, big-endian, 128 bytes:
 *
 *     0 magic[4] = "ENDk" version[1] = 1 zero[1] domain[2]   8 masterId[8]   16 nonce[12] zero[4]
 *     32 sealed key[64]   96 tag[16]   112 zero[12] crc32[4] of all before it
 *
 * `masterId` tells which master key it is sealed under, so that the wrong one is told from damage.
 */
export const keyFileBytes = 128;
const magic = Buffer.from("ENDk");
const version = 1;
const at = { masterId: 8, nonce: 16, sealed: 32, zero: 112, sum: 124 } as const;
const sealedBytes = dataKeyBytes + tagBytes;

export const keysFolder = "keys";
export const keyDomainMax = 65_535;

export function keyFileName(domain: number): string {
  return `${String(domain).padStart(5, "0")}.key`;
}

/** null: not the name of a key file. */
export function domainOfName(name: string): number | null {
  const digits = /^(\d{5})\.key$/.exec(name)?.[1];
  const domain = Number(digits);
  return digits !== undefined && domain >= 1 && domain <= keyDomainMax ? domain : null;
}

export interface KeyFileOwner {
  readonly clusterId: string;
  readonly domain: number;
}

export function encodeKeyFile(
  masterKey: Buffer,
  owner: KeyFileOwner,
  key: Buffer,
  nonce: Buffer,
): Buffer {
  assert(isDataKey(key) && nonce.length === nonceBytes);
  assert(owner.domain >= 1 && owner.domain <= keyDomainMax);
  const out = Buffer.alloc(keyFileBytes);
  magic.copy(out);
  out[4] = version;
  out.writeUInt16BE(owner.domain, 6);
  masterIdOf(masterKey).copy(out, at.masterId);
  nonce.copy(out, at.nonce);
  const sealed = seal(sealingKey(masterKey, "key file"), nonce, ownerBytes(owner), key);
  assert(sealed.copy(out, at.sealed) === sealedBytes);
  out.writeUInt32BE(crc32(out.subarray(0, at.sum)), at.sum);
  return out;
}

export type KeyFileRead =
  | { readonly ok: true; readonly key: Buffer }
  /** Whole, but sealed under another master key. */
  | { readonly ok: false; readonly fault: "other_master" }
  /** Not what was written there: bits have changed, or somebody has changed them. */
  | { readonly ok: false; readonly fault: "damaged" };

export function decodeKeyFile(masterKey: Buffer, owner: KeyFileOwner, bytes: Buffer): KeyFileRead {
  const whole =
    bytes.length === keyFileBytes &&
    bytes.readUInt32BE(at.sum) === crc32(bytes.subarray(0, at.sum)) &&
    bytes.subarray(0, magic.length).equals(magic) &&
    bytes[4] === version &&
    bytes[5] === 0 &&
    bytes.readUInt16BE(6) === owner.domain;
  if (!whole) return { ok: false, fault: "damaged" };
  const masterId = bytes.subarray(at.masterId, at.masterId + masterIdBytes);
  if (!masterId.equals(masterIdOf(masterKey))) return { ok: false, fault: "other_master" };
  const nonce = bytes.subarray(at.nonce, at.nonce + nonceBytes);
  const sealed = bytes.subarray(at.sealed, at.sealed + sealedBytes);
  const key = open(sealingKey(masterKey, "key file"), nonce, ownerBytes(owner), sealed);
  return key !== null && isDataKey(key) ? { ok: true, key } : { ok: false, fault: "damaged" };
}

function ownerBytes({ clusterId, domain }: KeyFileOwner): Buffer {
  return Buffer.from(JSON.stringify(["endisk key file 1", clusterId, domain]));
}
