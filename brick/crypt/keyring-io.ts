import { assert } from "../assert.ts";
import type { Disk } from "../host.ts";
import {
  decodeKeyFile,
  domainOfName,
  encodeKeyFile,
  keyFileBytes,
  keyFileName,
  keysFolder,
} from "./key-file.ts";
import { nonceBytes } from "./master-key.ts";
import { Xts } from "./xts.ts";

/** Not damage: the brick must not start, for what it would fetch instead is all there. */
export class WrongMasterKeyError extends Error {
  override readonly name = "WrongMasterKeyError";
  /** Relative to the brick's store. */
  readonly path: string;
  constructor(path: string) {
    super(`${path} is sealed under another master key`);
    this.path = path;
  }
}

export interface KeyringParts {
  readonly disk: Disk;
  readonly clusterId: string;
  readonly masterKey: Buffer;
  /** Unpredictable bytes. */
  random(bytes: number): Buffer;
}

const newSuffix = ".new";

/**
 * The data keys of one brick, one file a domain (key-file.ts). What its methods have resolved is durable.
 * Its caller lets one change follow the other.
 */
export class Keyring {
  readonly #parts: KeyringParts;
  readonly #keys = new Map<number, { readonly bytes: Buffer; readonly xts: Xts }>();
  /** Domains whose files are there, whether they can be read or not. */
  readonly #files = new Set<number>();
  /** Files that did not hold what was written there, since the start. */
  damagedFiles = 0;

  /** Throws WrongMasterKeyError. A damaged file is as good as none: its key is fetched from a peer. */
  static async open(parts: KeyringParts): Promise<Keyring> {
    const keyring = new Keyring(parts);
    for (const name of await parts.disk.list(keysFolder)) {
      const domain = domainOfName(name);
      if (domain !== null) await keyring.#load(domain);
      else if (name.endsWith(newSuffix)) await keyring.#wipe(name);
    }
    return keyring;
  }

  private constructor(parts: KeyringParts) {
    this.#parts = parts;
  }

  /** Domains of which there is a file. */
  get domains(): readonly number[] {
    return [...this.#files];
  }

  get keyCount(): number {
    return this.#keys.size;
  }

  has(domain: number): boolean {
    return this.#files.has(domain);
  }

  keyOf(domain: number): Buffer | null {
    return this.#keys.get(domain)?.bytes ?? null;
  }

  xtsOf(domain: number): Xts | null {
    return this.#keys.get(domain)?.xts ?? null;
  }

  async put(domain: number, key: Buffer): Promise<void> {
    const { disk, clusterId, masterKey, random } = this.#parts;
    const bytes = encodeKeyFile(masterKey, { clusterId, domain }, key, random(nonceBytes));
    const path = pathOf(keyFileName(domain));
    // 1. Whole and durable under another name, 2. there under its own, 3. durably so.
    const file = await disk.open(`${path}${newSuffix}`, { create: true });
    try {
      await file.write(0, [bytes]);
      await file.sync();
    } finally {
      await file.close();
    }
    await disk.rename(`${path}${newSuffix}`, path);
    this.#files.add(domain);
    await disk.syncFolder(keysFolder);
    await disk.syncFolder("");
    this.#keys.set(domain, { bytes: key, xts: new Xts(key) });
  }

  /** Writes over the key before its file is removed: a removed file's blocks stay what they were. */
  async destroy(domain: number): Promise<void> {
    // Nothing is read or written by it from here on, whatever becomes of the file.
    this.#keys.get(domain)?.bytes.fill(0);
    this.#keys.delete(domain);
    if (!this.#files.has(domain)) return;
    await this.#wipe(keyFileName(domain));
    this.#files.delete(domain);
  }

  async #wipe(name: string): Promise<void> {
    const { disk, random } = this.#parts;
    const path = pathOf(name);
    const file = await disk.open(path);
    try {
      const lengthBytes = Math.max(keyFileBytes, await file.sizeBytes());
      await file.write(0, [random(lengthBytes)]);
      await file.sync();
    } finally {
      await file.close();
    }
    await disk.remove(path);
    await disk.syncFolder(keysFolder);
  }

  async #load(domain: number): Promise<void> {
    const { disk, clusterId, masterKey } = this.#parts;
    const path = pathOf(keyFileName(domain));
    this.#files.add(domain);
    const file = await disk.open(path);
    try {
      // One byte more: a longer file is not one of ours.
      const bytes = await file.read(0, keyFileBytes + 1);
      const found = decodeKeyFile(masterKey, { clusterId, domain }, bytes);
      if (found.ok) this.#keys.set(domain, { bytes: found.key, xts: new Xts(found.key) });
      else if (found.fault === "other_master") throw new WrongMasterKeyError(path);
      else this.damagedFiles += 1;
    } finally {
      await file.close();
    }
  }
}

function pathOf(name: string): string {
  assert(!name.includes("/"));
  return `${keysFolder}/${name}`;
}
