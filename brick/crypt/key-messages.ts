import type { BrickNumber } from "../units.ts";
import { nonceBytes, open, seal, sealingKey, tagBytes } from "./master-key.ts";
import { dataKeyBytes, isDataKey } from "./xts.ts";

/**
 * The talk of bricks about keys, big-endian. A key is sealed for the one brick that it is sent to: the
 * links are authenticated, but not encrypted.
 *
 *     keyPut: version[1] = 1, zero[1], domain[2], nonce[12], sealed key[64], tag[16]
 *     its answer: version[1] = 1, status[1]: 0 not now, 1 the key is durable
 *     keyGet, keyGone: version[1] = 1, zero[1], domain[2]
 *     the answer to keyGet: as keyPut; or of 4 bytes, without a key: it is not there
 *     the answer to keyGone: version[1] = 1, status[1]: 1 no key of that domain is left there
 */
const version = 1;
const headBytes = 4;
const keyBytes = headBytes + nonceBytes + dataKeyBytes + tagBytes;

/** Whose key it is, and for whom it is sealed. */
export interface KeyAddress {
  readonly clusterId: string;
  readonly domain: number;
  readonly to: BrickNumber;
}

export function encodeKey(
  clusterSecret: Buffer,
  address: KeyAddress,
  key: Buffer,
  nonce: Buffer,
): Buffer[] {
  const sealed = seal(sealingKey(clusterSecret, "key wire"), nonce, addressBytes(address), key);
  return [...encodeDomain(address.domain), nonce, sealed];
}

/** null: no key, or one that was not sealed for that address. */
export function decodeKey(clusterSecret: Buffer, address: KeyAddress, body: Buffer): Buffer | null {
  if (body.length !== keyBytes || domainIn(body) !== address.domain) return null;
  const nonce = body.subarray(headBytes, headBytes + nonceBytes);
  const sealed = body.subarray(headBytes + nonceBytes);
  const key = open(sealingKey(clusterSecret, "key wire"), nonce, addressBytes(address), sealed);
  return key !== null && isDataKey(key) ? key : null;
}

export function encodeDomain(domain: number): Buffer[] {
  const out = Buffer.alloc(headBytes);
  out[0] = version;
  out.writeUInt16BE(domain, 2);
  return [out];
}

/** Of any message but a status; null: malformed. */
export function domainIn(body: Buffer): number | null {
  if (body.length < headBytes || body[0] !== version || body[1] !== 0) return null;
  return body.readUInt16BE(2);
}

export function encodeKeyStatus(done: boolean): Buffer[] {
  return [Buffer.from([version, done ? 1 : 0])];
}

export function decodeKeyStatus(body: Buffer): boolean {
  return body.length === 2 && body[0] === version && body[1] === 1;
}

function addressBytes({ clusterId, domain, to }: KeyAddress): Buffer {
  return Buffer.from(JSON.stringify(["endisk key wire 1", clusterId, domain, to]));
}
