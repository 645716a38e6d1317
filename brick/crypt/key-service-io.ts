import { brickOf, type ClusterState, isReachable, type VolumeRecord } from "../cluster-state.ts";
import { DiskError, type Host } from "../host.ts";
import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { BrickNumber } from "../units.ts";
import {
  isRemoved,
  isRetired,
  keepers,
  keepersNeeded,
  keyDomainNext,
  liveKeys,
  type WantedKey,
  wantedKey,
} from "./key-domains.ts";
import {
  decodeKey,
  decodeKeyStatus,
  domainIn,
  encodeDomain,
  encodeKey,
  encodeKeyStatus,
} from "./key-messages.ts";
import type { Keyring } from "./keyring-io.ts";
import { keyCheckOf, nonceBytes } from "./master-key.ts";
import { type CipherSource, VolumeCipher } from "./volume-cipher.ts";
import { dataKeyBytes, isDataKey } from "./xts.ts";

export type KeyCommand =
  | { readonly type: "reserveKeyDomain"; readonly uuid: string; readonly check: string }
  | { readonly type: "rekeyVolume"; readonly uuid: string; readonly keyDomain: number };

type Submitted =
  | { readonly ok: true; readonly value: number }
  | { readonly ok: false; readonly fault: { readonly code: string; readonly message: string } };

export interface KeyServiceParts {
  readonly host: Host;
  readonly calls: Calls;
  readonly self: BrickNumber;
  readonly keyring: Keyring;
  /** Keys are sealed with a key of it on their way between bricks. */
  readonly clusterSecret: Buffer;
  random(bytes: number): Buffer;
  state(): ClusterState;
  submit(command: KeyCommand): Promise<Submitted>;
  /** Volumes may be served now that could not be before. */
  changed(): void;
}

export type NewKey =
  | { readonly ok: true; readonly domain: number }
  | { readonly ok: false; readonly reason: string };

const askTimeoutMs = 1000;
const againMs = 100;
/** A key that is lacking, or could not be destroyed, is looked after again after this. */
const lookAgainMs = 500;
/** A key that was not found for so long is worth telling; a brick that was away soon has what it missed. */
const tellLackingAfterMs = 5000;
/** How long all bricks that answer are given to make a new key durable; then as many as are needed do. */
const spreadMsMax = 5000;

/**
 * The keys of encrypted volumes as one brick has them: makes new ones and brings them to the others,
 * fetches what it lacks, destroys what is retired. A key never passes through the control plane, which
 * keeps only its domain's number and by what it is known (key-domains.ts).
 */
export class KeyService implements CipherSource {
  readonly #parts: KeyServiceParts;
  /** Changes of the keyring, one after the other. */
  #turn: Promise<unknown> = Promise.resolve();
  #looking = false;
  #lookAgain = false;
  /** The leader has said that this brick was removed. */
  #left = false;
  #lackingSinceMs: number | null = null;
  #closed = false;

  constructor(parts: KeyServiceParts) {
    this.#parts = parts;
    const { calls } = parts;
    calls.serve(messageType.keyPut, (_from, body, reply) => {
      this.#received(body).then((kept) => reply(encodeKeyStatus(kept)));
    });
    calls.serve(messageType.keyGet, (from, body, reply) => {
      const domain = domainIn(body);
      if (domain !== null) reply(this.#answerGet(from, domain));
    });
    calls.serve(messageType.keyGone, (_from, body, reply) => {
      const domain = domainIn(body);
      if (domain !== null) this.#destroyed(domain).then((gone) => reply(encodeKeyStatus(gone)));
    });
  }

  /** Volumes whose keys this brick lacks, while it has a part in the cluster. */
  get lackingVolumes(): readonly VolumeRecord[] {
    const { keyring, state, self } = this.#parts;
    if (this.#hasLeft || !keepers(state()).some(({ number }) => number === self)) return [];
    const missing = liveKeys(state()).filter(({ domain }) => keyring.keyOf(domain) === null);
    const volumes = Object.values(state().volumes);
    return missing.map(({ uuid }) => volumes.find((volume) => volume.uuid === uuid)!);
  }

  /** How many there are, once that lasts. */
  get lackingLong(): number {
    const sinceMs = this.#lackingSinceMs;
    if (sinceMs === null) return 0;
    const lasts = this.#parts.host.clock.nowMs() - sinceMs >= tellLackingAfterMs;
    return lasts ? this.#lacking : 0;
  }

  get #lacking(): number {
    return this.lackingVolumes.length;
  }

  get keyring(): Keyring {
    return this.#parts.keyring;
  }

  // CipherSource.

  isReady(volume: VolumeRecord): boolean {
    if (volume.keyDomain === undefined) return true;
    // What was retired while this brick was away it destroys first.
    return this.hasKey(volume) && !this.#hasRetired();
  }

  hasKey({ keyDomain }: VolumeRecord): boolean {
    return keyDomain === undefined || this.#parts.keyring.xtsOf(keyDomain) !== null;
  }

  cipherOf({ keyDomain }: VolumeRecord): VolumeCipher | null {
    if (keyDomain === undefined) return null;
    const xts = this.#parts.keyring.xtsOf(keyDomain);
    return xts === null ? null : new VolumeCipher(keyDomain, xts);
  }

  /** Puts a new key in place of the volume's; what it had is retired when this resolves true. */
  async rekey(volume: VolumeRecord): Promise<boolean> {
    const made = await this.make(volume.uuid, volume.copies);
    if (!made.ok) return false;
    const { uuid } = volume;
    const done = await this.#parts.submit({ type: "rekeyVolume", uuid, keyDomain: made.domain });
    return done.ok;
  }

  /** Whether no brick that has a part in the cluster has a key of the retired domain any more. */
  async isGone(domain: number): Promise<boolean> {
    return this.#isGoneAt(
      domain,
      keepers(this.#parts.state()).map(({ number }) => number),
    );
  }

  /** The same of the bricks that answer now, tried until it is so; false when the time is over. */
  async goneWhereReachable(domain: number, timeMsMax: number): Promise<boolean> {
    const { clock } = this.#parts.host;
    const untilMs = clock.nowMs() + timeMsMax;
    for (;;) {
      const reachable = keepers(this.#parts.state()).filter((one) => isReachable(one));
      if (
        await this.#isGoneAt(
          domain,
          reachable.map(({ number }) => number),
        )
      )
        return true;
      if (clock.nowMs() >= untilMs || this.#closed) return false;
      await this.#pause(againMs);
    }
  }

  /** A new domain with a new key, durable on enough bricks, for a volume to be made with it. */
  async make(uuid: string, copies: number): Promise<NewKey> {
    const { submit, state } = this.#parts;
    const key = this.#newKey();
    const check = keyCheckOf(key, state().clusterId, uuid);
    const reserved = await submit({ type: "reserveKeyDomain", uuid, check });
    if (!reserved.ok) return { ok: false, reason: reserved.fault.message };
    const domain = reserved.value;
    const spread = await this.#spread({ domain, uuid, check }, key, copies);
    key.fill(0);
    if (spread === null) return { ok: true, domain };
    return { ok: false, reason: `its key cannot be kept on enough bricks: ${spread}` };
  }

  // The state.

  onState(_state: ClusterState): void {
    this.#look();
  }

  /** This brick was removed from the cluster: it keeps no key any more. */
  leave(): void {
    if (this.#hasLeft) return;
    this.#left = true;
    this.#look();
  }

  get #hasLeft(): boolean {
    return this.#left || isRemoved(this.#parts.state(), this.#parts.self);
  }

  close(): void {
    this.#closed = true;
  }

  /** Destroys what is retired and fetches what is lacking, until nothing is left of either. */
  async #look(): Promise<void> {
    this.#lookAgain = true;
    if (this.#looking || this.#closed) return;
    this.#looking = true;
    while (this.#lookAgain && !this.#closed) {
      this.#lookAgain = false;
      const { keyring, state } = this.#parts;
      for (const domain of keyring.domains) {
        if (this.#mustGo(domain)) await this.#destroyed(domain);
      }
      if (this.#hasLeft) break;
      const missing = liveKeys(state()).filter(({ domain }) => keyring.keyOf(domain) === null);
      for (const wanted of missing) await this.#fetch(wanted);
    }
    this.#looking = false;
    const isLacking = this.#lacking > 0;
    if (!isLacking) this.#lackingSinceMs = null;
    else this.#lackingSinceMs ??= this.#parts.host.clock.nowMs();
    const left = isLacking || this.#hasRetired();
    if (left && !this.#closed) this.#parts.host.clock.after(lookAgainMs, () => this.#look());
  }

  /** The domain is retired, or this brick has no part in the cluster any more, nor will have. */
  #mustGo(domain: number): boolean {
    return isRetired(this.#parts.state(), domain) || this.#hasLeft;
  }

  #hasRetired(): boolean {
    return this.#parts.keyring.domains.some((domain) => this.#mustGo(domain));
  }

  async #fetch(wanted: WantedKey): Promise<void> {
    const { calls, self, state, clusterSecret } = this.#parts;
    for (const { number } of keepers(state()).filter((one) => isReachable(one))) {
      if (number === self || this.#closed) continue;
      const body = await new Promise<Buffer | null>((resolve) => {
        const asked = encodeDomain(wanted.domain);
        calls.call(number, messageType.keyGet, asked, askTimeoutMs, (reply) =>
          resolve(reply.ok ? reply.body : null),
        );
      });
      if (body === null) continue;
      const address = { clusterId: state().clusterId, domain: wanted.domain, to: self };
      const key = decodeKey(clusterSecret, address, body);
      if (key !== null && (await this.#keep(wanted.domain, key))) return;
    }
  }

  // Changes of the keyring.

  /** Keeps the key if it is the one that the state wants kept; true when it is durable. */
  #keep(domain: number, key: Buffer): Promise<boolean> {
    return this.#inTurn(async () => {
      const { keyring, state } = this.#parts;
      const wanted = wantedKey(state(), domain);
      if (wanted === null || this.#hasLeft) return false;
      if (keyCheckOf(key, state().clusterId, wanted.uuid) !== wanted.check) return false;
      if (keyring.keyOf(domain) === null) {
        await keyring.put(domain, Buffer.from(key));
        this.#parts.changed();
      }
      // It may have been retired meanwhile: then it goes again.
      if (this.#mustGo(domain)) this.#look();
      return true;
    });
  }

  /** True once the state says that no key of the domain may be here, and none is. */
  #destroyed(domain: number): Promise<boolean> {
    return this.#inTurn(async () => {
      const { keyring } = this.#parts;
      if (!this.#mustGo(domain)) return false;
      if (keyring.has(domain)) {
        await keyring.destroy(domain);
        if (!this.#hasRetired()) this.#parts.changed();
      }
      return true;
    });
  }

  /** A disk that is full keeps no key now; one that has failed ends the brick, as in its store. */
  #inTurn(action: () => Promise<boolean>): Promise<boolean> {
    const run = async (): Promise<boolean> => {
      if (this.#closed) return false;
      try {
        return await action();
      } catch (error) {
        if (error instanceof DiskError && error.code === "ENOSPC") return false;
        return this.#parts.host.crash(error);
      }
    };
    const turn = this.#turn.then(run);
    this.#turn = turn;
    return turn;
  }

  // The other bricks.

  /** Brings a new key to every brick that answers; null: enough have it, else why not. */
  async #spread(wanted: WantedKey, key: Buffer, copies: number): Promise<string | null> {
    const { clock } = this.#parts.host;
    const { self, state } = this.#parts;
    const untilMs = clock.nowMs() + spreadMsMax;
    const having = new Set<BrickNumber>();
    for (;;) {
      const all = keepers(state()).map(({ number }) => number);
      const asked = all.filter((number) => {
        return !having.has(number) && (number === self || isReachable(brickOf(state(), number)));
      });
      await Promise.all(
        asked.map(async (number) => {
          if (await this.#give(number, wanted.domain, key)) having.add(number);
        }),
      );
      const has = all.filter((number) => having.has(number)).length;
      const needed = keepersNeeded(all.length, copies);
      const everyone = asked.every((number) => having.has(number));
      if (has >= needed && (everyone || clock.nowMs() >= untilMs)) return null;
      if (clock.nowMs() >= untilMs || this.#closed) return `${has} of ${needed} have it`;
      await this.#pause(againMs);
    }
  }

  #give(to: BrickNumber, domain: number, key: Buffer): Promise<boolean> {
    const { self, state, clusterSecret, random } = this.#parts;
    if (to === self) return this.#keep(domain, key);
    const address = { clusterId: state().clusterId, domain, to };
    const body = encodeKey(clusterSecret, address, key, random(nonceBytes));
    return this.#ask(to, messageType.keyPut, body);
  }

  async #isGoneAt(domain: number, bricks: readonly BrickNumber[]): Promise<boolean> {
    const answers = bricks.map((number) => {
      if (number === this.#parts.self) return this.#destroyed(domain);
      return this.#ask(number, messageType.keyGone, encodeDomain(domain));
    });
    return (await Promise.all(answers)).every((gone) => gone);
  }

  #ask(to: BrickNumber, type: number, body: readonly Buffer[]): Promise<boolean> {
    return new Promise((resolve) => {
      this.#parts.calls.call(to, type, body, askTimeoutMs, (reply) => {
        resolve(reply.ok && decodeKeyStatus(reply.body));
      });
    });
  }

  async #received(body: Buffer): Promise<boolean> {
    const { self, state, clusterSecret } = this.#parts;
    const domain = domainIn(body);
    // A number that this brick has not heard of yet: it is asked again.
    if (domain === null || domain >= keyDomainNext(state())) return false;
    const address = { clusterId: state().clusterId, domain, to: self };
    const key = decodeKey(clusterSecret, address, body);
    return key !== null && this.#keep(domain, key);
  }

  #answerGet(to: BrickNumber, domain: number): Buffer[] {
    const { keyring, state, clusterSecret, random } = this.#parts;
    const key = keyring.keyOf(domain);
    const keeps = keepers(state()).some(({ number }) => number === to);
    if (key === null || !keeps || wantedKey(state(), domain) === null) return encodeDomain(domain);
    const address = { clusterId: state().clusterId, domain, to };
    return encodeKey(clusterSecret, address, key, random(nonceBytes));
  }

  #newKey(): Buffer {
    for (;;) {
      const key = this.#parts.random(dataKeyBytes);
      if (isDataKey(key)) return key;
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#parts.host.clock.after(ms, resolve));
  }
}
