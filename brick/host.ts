import type { Prng } from "./prng.ts";
import type { Words } from "./rpc/words.ts";
import type { BrickNumber } from "./units.ts";

/**
 * The seams between END and the world: clock, disk, key-value index, network, chance. Each has a
 * real implementation (host-io.ts) and a simulated one (tools/sim), examined by the same suite.
 * Everything else in END reaches the world only through a Host, so that a whole cluster can run
 * inside one process under a seeded simulator.
 */
export interface Host {
  readonly clock: Clock;
  readonly disk: Disk;
  readonly network: Network;
  /** Seeded; never for secrets. */
  readonly prng: Prng;
  /** One line of text for the operator. Never a secret, never user data. */
  log(line: string): void;
  /**
   * Ends this brick at once, as a crash would: the brick must not answer any more. Used when an
   * assertion failed or a flush failed. In the simulator only this brick stops.
   */
  crash(reason: unknown): never;
}

export interface Clock {
  /** Milliseconds since some moment, never going backwards, with a fraction. */
  nowMs(): number;
  /** Wall-clock milliseconds since 1970; may jump. For people and origins, never for leases. */
  wallMs(): number;
  /** Runs `action` once, not before `delayMs` has passed. The handle cancels it. */
  after(delayMs: number, action: () => void): TimerHandle;
  /**
   * Runs `action` after everything that is ready now has run (one event-loop turn): the tick at
   * which batches are sent and commits begin.
   */
  soon(action: () => void): void;
}

export interface TimerHandle {
  cancel(): void;
}

/** Failures of Disk calls reject with this, with Node's `code` ("ENOSPC", "EIO", "ENOENT"). */
export class DiskError extends Error {
  override readonly name = "DiskError";
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

const noSpaceCodes: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT"]);

/** The file system, or a quota in it, is used up: the same call may succeed once there is room. */
export function isNoSpace(error: unknown): boolean {
  return error instanceof DiskError && noSpaceCodes.has(error.code);
}

/** One brick's data directory. Paths are relative to it, with "/" between parts. */
export interface Disk {
  /** Opens a file for reading and writing; with `create`, makes it (and its folders) if absent. */
  open(path: string, options?: { create?: boolean }): Promise<DiskFile>;
  /** Names in a folder, sorted; empty when the folder does not exist. */
  list(folder: string): Promise<string[]>;
  remove(path: string): Promise<void>;
  /** Replaces `to` atomically; durable only after syncFolder of the folder. */
  rename(from: string, to: string): Promise<void>;
  /** Makes creations, renames and removals in the folder durable. */
  syncFolder(folder: string): Promise<void>;
  /** Bytes that may still be written in the data directory's file system. */
  freeBytes(): Promise<number>;
  /** Opens the ordered key-value store kept in this folder. */
  openKv(folder: string): Promise<Kv>;
}

export interface DiskFile {
  /** Resolves to what is there: shorter than asked only at the end of the file. */
  read(offsetBytes: number, lengthBytes: number): Promise<Buffer>;
  /** All of that at once, where it can be had without waiting; null: it is to be asked for by `read`. */
  readNow?(offsetBytes: number, lengthBytes: number): Buffer | null;
  /** One gathered write. The buffers belong to the call until it resolves. */
  write(offsetBytes: number, buffers: readonly Buffer[]): Promise<void>;
  /** fdatasync: everything written before is on the medium when it resolves. */
  sync(): Promise<void>;
  sizeBytes(): Promise<number>;
  truncate(sizeBytes: number): Promise<void>;
  close(): Promise<void>;
}

/**
 * An ordered map from byte strings to byte strings (RocksDB). Reads are synchronous: they cost a
 * few microseconds, a promise and a thread hop cost more. A crash keeps every batch up to the last
 * synced one, and possibly a prefix of the later ones, whole batches in order.
 */
export interface Kv {
  get(key: Buffer): Buffer | undefined;
  getMany(keys: readonly Buffer[]): (Buffer | undefined)[];
  /** Applies all or nothing. With `sync`, it and all batches before it survive a power cut. */
  write(batch: readonly KvChange[], options: { sync: boolean }): void;
  /**
   * The same, synced, while others go on: `done` is called later, with what went wrong if anything did.
   * Until then a read finds what was there before or all of the batch, and there is no other write. The
   * batch is copied before this returns.
   */
  writeLater(batch: readonly KvChange[], done: (failure: Error | null) => void): void;
  /** At most `limit` pairs with start <= key < end, in order of keys. */
  range(start: Buffer, end: Buffer, limit: number): [Buffer, Buffer][];
  /** A write, or a step of its own behind the writes, found no space: it takes none until reopened. */
  hasFailed(): boolean;
  /** About what is in memory and its own log alone: opening it writes as much, and needs room for it. */
  unflushedBytes(): number;
  /**
   * Opens it anew, in place, and blocks meanwhile, so that no read meets it closed. What was written
   * is there; of a batch that failed, all or nothing. When this throws it is closed for good.
   */
  reopen(): void;
  close(): Promise<void>;
}

export interface KvChange {
  key: Buffer;
  /** null removes the key. */
  value: Buffer | null;
}

/**
 * Datagram-like service between bricks: a message arrives whole or not at all; it may be lost when
 * a connection breaks, and only then be reordered or come twice. Sending never blocks; what
 * cannot be sent within bounds is dropped, and the caller's own retry recovers.
 */
export interface Network {
  /**
   * Queues a message; all of one tick's messages to a peer leave in one write. The buffers must
   * not change until they have been sent, which no one reports: pass buffers never written again. The
   * message is the network's from then on.
   */
  send(to: BrickNumber, message: Message): void;
  /** The receiver of everything. Set once, before the first message can arrive. */
  onMessage(receiver: (from: BrickNumber, message: Message) => void): void;
  /** Where peers are reached now; of others only those can be sent to that have called. */
  setPeers(peers: ReadonlyMap<BrickNumber, string>): void;
}

export interface Message {
  /** One of messageType in rpc/message-types.ts. */
  type: number;
  /** Pairs a reply with its request; 0 when neither. */
  request: number;
  /** True in replies. */
  reply: boolean;
  /** The sender's boot number; filled in by the network when sending. */
  boot: number;
  /** The body, in parts to save copies; received messages have one part, but for those to oneself. */
  body: readonly Buffer[];
  /** Of a message to oneself: what the body would say. Then that is empty. */
  words?: Words;
  /**
   * Says, once, that the body's memory may be given back. The network calls it when what it was to send
   * has left or is dropped. Of a received message it is for whoever handles it, when nothing refers
   * to the body any more; who does not call it leaves the memory to the collector.
   */
  release?: () => void;
}
