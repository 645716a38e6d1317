import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { assert } from "../assert.ts";
import type { BrickNumber } from "../units.ts";

/**
 * Two bricks prove to each other that they know the cluster's secret, before either listens to
 * anything else. The dialer proves first: a stranger who calls learns nothing that a secret could
 * be guessed from.
 *
 *     dialer                        accepter
 *       hello(nonce)       ------>
 *                          <------   challenge(nonce)
 *       proof(HMAC)        ------>
 *                          <------   welcome(HMAC)       or, at any step, refusal(reason)
 *
 * Each step is one record, version 1, big-endian, 96 bytes:
 *
 *     offset  bytes  field
 *          0      4  magic "ENDh"
 *          4      1  version = 1
 *          5      1  step: 1 hello, 2 challenge, 3 proof, 4 welcome, 5 refusal
 *          6      2  number of the brick that sends
 *          8      2  number of the brick that it means to talk to
 *         10      1  reason of a refusal; else zero
 *         11      3  zero
 *         14      2  in hello and challenge the oldest and the newest version of frames that the
 *                    sender speaks; both zero, from who speaks version 1 alone; else zero
 *         16     16  first half of the SHA-256 of the cluster id; zero in a refusal
 *         32     32  nonce: random in hello and challenge, zero in the others
 *         64     32  proof: HMAC-SHA256(secret, label || hello record || challenge record) in proof
 *                    (label "END dialer 1") and welcome (label "END accepter 1"); zero in the others
 *
 * The records under the HMAC hold both nonces, both brick numbers, the cluster and all versions: nobody
 * between them can have two bricks speak an older version than the newest that both know.
 */
export const handshakeRecordBytes = 96;
export const nonceBytes = 32;
/** Shorter ones could be guessed from a recorded proof. */
export const secretBytesMin = 16;

const handshakeMagic = 0x454e4468;
const handshakeVersion = 1;
const clusterBytes = 16;
const step = { hello: 1, challenge: 2, proof: 3, welcome: 4, refusal: 5 };

export const refusalReasons = {
  malformed: 1,
  version: 2,
  cluster: 3,
  brick: 4,
  proof: 5,
} as const;
export type RefusalReason = keyof typeof refusalReasons;

/** Versions of frames. */
export interface FrameVersions {
  readonly oldest: number;
  readonly newest: number;
}

/** Of this build (frame.ts). */
export const ownFrameVersions: FrameVersions = { oldest: 1, newest: 1 };

export interface HandshakeIdentity {
  self: BrickNumber;
  clusterId: string;
  secret: Buffer;
  /** When they are not this build's. */
  frames?: FrameVersions;
}

export type HandshakeStep =
  /** Send this and wait for the next record. */
  | { type: "send"; record: Buffer }
  /** The peer is who it says; send the record, if there is one, and go on with frames. */
  | { type: "done"; record: Buffer | null; peer: BrickNumber; frameVersion: number }
  /** Send the record, if there is one, and close. */
  | { type: "refused"; record: Buffer | null; reason: RefusalReason };

/** One side of one handshake. It holds no socket and no clock: records in, records out. */
export class Handshake {
  readonly #identity: HandshakeIdentity;
  readonly #cluster: Buffer;
  readonly #nonce: Buffer;
  readonly #dialed: boolean;
  #peer: BrickNumber;
  #awaited: number;
  #hello: Buffer | null = null;
  #challenge: Buffer | null = null;
  readonly #frames: FrameVersions;
  /** The newest that both speak, once both have said what they do. */
  #frameVersion = 0;

  /** `nonce` must be fresh and from the secure generator. `peer` is whom we dialed, else null. */
  constructor(identity: HandshakeIdentity, nonce: Buffer, peer: BrickNumber | null) {
    assert(identity.secret.length >= secretBytesMin, "the cluster secret is too short");
    assert(nonce.length === nonceBytes);
    this.#identity = identity;
    this.#frames = identity.frames ?? ownFrameVersions;
    this.#nonce = nonce;
    this.#dialed = peer !== null;
    this.#peer = peer ?? 0;
    this.#awaited = this.#dialed ? step.challenge : step.hello;
    this.#cluster = createHash("sha256")
      .update(identity.clusterId, "utf8")
      .digest()
      .subarray(0, clusterBytes);
  }

  /** What the dialer sends first. */
  hello(): Buffer {
    assert(this.#dialed && this.#hello === null);
    this.#hello = this.#encode(step.hello, this.#nonce, null);
    return this.#hello;
  }

  /** Takes the next record of the other side; 96 bytes that may be anything. */
  receive(record: Buffer): HandshakeStep {
    assert(record.length === handshakeRecordBytes);
    const fault = this.#check(record);
    if (fault !== null) return this.#refuse(fault);
    switch (record[5]) {
      case step.hello: {
        this.#peer = record.readUInt16BE(6);
        // Bytes that we were lent may be gone by the time the proof comes.
        this.#hello = Buffer.from(record);
        this.#challenge = this.#encode(step.challenge, this.#nonce, null);
        this.#awaited = step.proof;
        return { type: "send", record: this.#challenge };
      }
      case step.challenge: {
        this.#challenge = Buffer.from(record);
        this.#awaited = step.welcome;
        return { type: "send", record: this.#encode(step.proof, null, this.#proof("dialer")) };
      }
      case step.proof: {
        if (!this.#proves(record, "dialer")) return this.#refuse("proof");
        this.#awaited = 0;
        const welcome = this.#encode(step.welcome, null, this.#proof("accepter"));
        return { ...this.#done(), record: welcome };
      }
      case step.welcome: {
        if (!this.#proves(record, "accepter"))
          return { type: "refused", record: null, reason: "proof" };
        this.#awaited = 0;
        return { ...this.#done(), record: null };
      }
      default:
        return this.#refuse("malformed");
    }
  }

  #done() {
    return { type: "done", peer: this.#peer, frameVersion: this.#frameVersion } as const;
  }

  /** Settles on the newest version that both speak; false: there is none. */
  #settle(record: Buffer): boolean {
    const said = { oldest: record[14]! || 1, newest: record[15]! || 1 };
    this.#frameVersion = Math.min(said.newest, this.#frames.newest);
    return this.#frameVersion >= Math.max(said.oldest, this.#frames.oldest);
  }

  #check(record: Buffer): RefusalReason | null {
    if (record.readUInt32BE(0) !== handshakeMagic) return "malformed";
    if (record[4] !== handshakeVersion) return "version";
    if (this.#dialed && record[5] === step.refusal) return reasonOf(record[10]!);
    if (record[5] !== this.#awaited || record.readUInt32BE(10) !== 0) return "malformed";
    const isProof = this.#awaited === step.proof || this.#awaited === step.welcome;
    if (isProof && record.readUInt16BE(14) !== 0) return "malformed";
    const zeros = isProof ? record.subarray(32, 64) : record.subarray(64, 96);
    if (zeros.some((byte) => byte !== 0)) return "malformed";
    if (!record.subarray(16, 16 + clusterBytes).equals(this.#cluster)) return "cluster";
    if (!isProof && !this.#settle(record)) return "version";
    const from = record.readUInt16BE(6);
    const knownPeer = this.#dialed || this.#awaited === step.proof;
    if (from === 0 || from === this.#identity.self || (knownPeer && from !== this.#peer)) {
      return "brick";
    }
    return record.readUInt16BE(8) === this.#identity.self ? null : "brick";
  }

  /** The accepter says why, in one word; the dialer just hangs up. */
  #refuse(reason: RefusalReason): HandshakeStep {
    this.#awaited = 0;
    if (this.#dialed) return { type: "refused", record: null, reason };
    return { type: "refused", record: encodeRefusal(this.#identity.self, reason), reason };
  }

  #proof(role: "dialer" | "accepter"): Buffer {
    assert(this.#hello !== null && this.#challenge !== null);
    return createHmac("sha256", this.#identity.secret)
      .update(`END ${role} 1`)
      .update(this.#hello)
      .update(this.#challenge)
      .digest();
  }

  #proves(record: Buffer, role: "dialer" | "accepter"): boolean {
    return timingSafeEqual(record.subarray(64, 96), this.#proof(role));
  }

  #encode(which: number, nonce: Buffer | null, proof: Buffer | null): Buffer {
    const record = Buffer.alloc(handshakeRecordBytes);
    let at = record.writeUInt32BE(handshakeMagic, 0);
    at = record.writeUInt8(handshakeVersion, at);
    at = record.writeUInt8(which, at);
    at = record.writeUInt16BE(this.#identity.self, at);
    at = record.writeUInt16BE(this.#peer, at) + 6;
    at += this.#cluster.copy(record, at);
    at += nonce === null ? nonceBytes : nonce.copy(record, at);
    at += proof === null ? 32 : proof.copy(record, at);
    const { oldest, newest } = this.#frames;
    // Who speaks the first version alone says so by zeros, as it did before there were others.
    if (proof === null && newest > 1) {
      record[14] = oldest;
      record[15] = newest;
    }
    assert(at === handshakeRecordBytes);
    return record;
  }
}

export function encodeRefusal(self: BrickNumber, reason: RefusalReason): Buffer {
  const record = Buffer.alloc(handshakeRecordBytes);
  record.writeUInt32BE(handshakeMagic, 0);
  record.writeUInt8(handshakeVersion, 4);
  record.writeUInt8(step.refusal, 5);
  record.writeUInt16BE(self, 6);
  record.writeUInt8(refusalReasons[reason], 10);
  return record;
}

function reasonOf(code: number): RefusalReason {
  for (const [reason, number] of Object.entries(refusalReasons)) {
    if (number === code) return reason as RefusalReason;
  }
  return "malformed";
}
