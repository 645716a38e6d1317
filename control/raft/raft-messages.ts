import { assert } from "../../brick/assert.ts";
import { readUint64, writeUint64 } from "../../brick/log/uint64.ts";
import { decodeConfiguration, encodeConfiguration } from "./configuration.ts";
import { raftLimits } from "./raft-limits.ts";
import type { Configuration, Entry, EntryKind, RaftMessage } from "./raft-types.ts";

/**
 * A Raft message, version 1, big-endian: version[1]=1 type[1] zero[2] term[8], then the fields of
 * its type in the order of the table below:
 *
 *     index          [8]
 *     flag           [1], 0 or 1
 *     checksum       [4]
 *     bytes          length[4] bytes[length]
 *     configuration  length[4], then as in configuration.ts
 *     entries        count[4], then for each: index[8] term[8] kind[1] zero[3] length[4] payload
 *
 * The frame around it carries the checksum and who sent it.
 */
const layout = {
  preVote: { number: 1, fields: { lastIndex: "index", lastTerm: "index" } },
  preVoteReply: { number: 2, fields: { granted: "flag" } },
  vote: { number: 3, fields: { lastIndex: "index", lastTerm: "index", transfer: "flag" } },
  voteReply: { number: 4, fields: { granted: "flag" } },
  append: {
    number: 5,
    fields: {
      previousIndex: "index",
      previousTerm: "index",
      commitIndex: "index",
      entries: "entries",
    },
  },
  appendReply: {
    number: 6,
    fields: { ok: "flag", index: "index", hintIndex: "index", hintTerm: "index", healing: "flag" },
  },
  heartbeat: { number: 7, fields: { round: "index", commitIndex: "index" } },
  heartbeatReply: {
    number: 8,
    fields: { round: "index", lastIndex: "index", agreedIndex: "index", healing: "flag" },
  },
  snapshotChunk: {
    number: 9,
    fields: {
      index: "index",
      snapshotTerm: "index",
      configuration: "configuration",
      sizeBytes: "index",
      checksum: "checksum",
      offsetBytes: "index",
      bytes: "bytes",
    },
  },
  snapshotReply: { number: 10, fields: { index: "index", offsetBytes: "index" } },
  timeoutNow: { number: 11, fields: {} },
  repairRequest: { number: 12, fields: { fromIndex: "index", toIndex: "index" } },
  repairReply: { number: 13, fields: { entries: "entries" } },
} as const satisfies {
  [T in RaftMessage["type"]]: {
    number: number;
    fields: Record<Exclude<keyof Extract<RaftMessage, { type: T }>, "type" | "term">, FieldKind>;
  };
};

type FieldKind = "index" | "flag" | "checksum" | "bytes" | "configuration" | "entries";
type FieldValue = number | boolean | Buffer | Configuration | readonly Entry[];

export const messageVersion = 1;
const headerBytes = 12;
const entryHeaderBytes = 24;
const typeByNumber = new Map<number, RaftMessage["type"]>(
  Object.entries(layout).map(([type, { number }]) => [number, type as RaftMessage["type"]]),
);

export const entryKindNumber = {
  command: 1,
  configuration: 2,
  noop: 3,
} as const satisfies Record<EntryKind, number>;

const entryKindByNumber = new Map<number, EntryKind>(
  Object.entries(entryKindNumber).map(([kind, number]) => [number, kind as EntryKind]),
);

/** null when the number or the payload is none of this kind's. */
export function checkedEntry(
  kindNumber: number,
  entry: { index: number; term: number; payload: Buffer },
): Entry | null {
  const kind = entryKindByNumber.get(kindNumber);
  if (kind === undefined || entry.payload.length > raftLimits.payloadBytesMax) return null;
  if (kind === "configuration" && decodeConfiguration(entry.payload) === null) return null;
  return { ...entry, kind };
}

/** In parts, so that payloads are not copied. */
export function encodeRaftMessage(message: RaftMessage): Buffer[] {
  const { number, fields } = layout[message.type];
  const header = Buffer.alloc(headerBytes);
  header.writeUInt8(messageVersion, 0);
  header.writeUInt8(number, 1);
  writeUint64(header, message.term, 4);
  const parts = [header];
  const values = message as unknown as Record<string, FieldValue>;
  for (const [name, kind] of Object.entries(fields)) encodeField(parts, kind, values[name]!);
  return parts;
}

function encodeField(parts: Buffer[], kind: FieldKind, value: FieldValue): void {
  switch (kind) {
    case "index": {
      const out = Buffer.alloc(8);
      writeUint64(out, value as number, 0);
      parts.push(out);
      return;
    }
    case "flag":
      parts.push(Buffer.from([value ? 1 : 0]));
      return;
    case "checksum":
      parts.push(uint32(value as number));
      return;
    case "bytes":
      parts.push(uint32((value as Buffer).length), value as Buffer);
      return;
    case "configuration": {
      const bytes = encodeConfiguration(value as Configuration);
      parts.push(uint32(bytes.length), bytes);
      return;
    }
    case "entries": {
      const entries = value as readonly Entry[];
      assert(entries.length <= raftLimits.appendEntriesMax);
      parts.push(uint32(entries.length));
      for (const { index, term, kind, payload } of entries) {
        const header = Buffer.alloc(entryHeaderBytes);
        writeUint64(header, index, 0);
        writeUint64(header, term, 8);
        header.writeUInt8(entryKindNumber[kind], 16);
        header.writeUInt32BE(payload.length, 20);
        parts.push(header, payload);
      }
    }
  }
}

function uint32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value);
  return out;
}

export type DecodedMessage =
  | { ok: true; message: RaftMessage }
  /** Thrown away, like a message the network lost; `reason` is for the log. */
  | { ok: false; fault: { code: "malformed"; reason: string } };

export function decodeRaftMessage(body: Buffer): DecodedMessage {
  const reader = new Reader(body);
  const version = reader.uint8();
  const type = typeByNumber.get(reader.uint8());
  const zero = reader.uint16();
  const term = reader.index();
  if (reader.failed || version !== messageVersion) return malformed("version");
  if (type === undefined || zero !== 0) return malformed("type");
  const fields: Record<string, unknown> = { type, term };
  for (const [name, kind] of Object.entries(layout[type].fields)) {
    fields[name] = reader.field(kind);
    if (reader.failed) return malformed(`${type}.${name}`);
  }
  if (reader.left !== 0) return malformed(`${type} goes on for ${reader.left} bytes`);
  const message = fields as unknown as RaftMessage;
  const reason = inconsistency(message);
  return reason === null ? { ok: true, message } : malformed(reason);
}

function malformed(reason: string): DecodedMessage {
  return { ok: false, fault: { code: "malformed", reason } };
}

/** What the fields must be to each other, so that the core may rely on it. */
function inconsistency(message: RaftMessage): string | null {
  switch (message.type) {
    case "append": {
      const { entries, previousIndex, previousTerm, term } = message;
      let last = previousTerm;
      for (const [at, entry] of entries.entries()) {
        if (entry.index !== previousIndex + 1 + at) return "append: indexes are not dense";
        if (entry.term < last || entry.term > term) return "append: terms are out of order";
        last = entry.term;
      }
      return previousTerm > term ? "append: previousTerm is above term" : null;
    }
    case "snapshotChunk": {
      const { sizeBytes, offsetBytes, bytes, configuration, index, snapshotTerm, term } = message;
      if (sizeBytes > raftLimits.snapshotBytesMax) return "snapshotChunk: sizeBytes";
      if (offsetBytes + bytes.length > sizeBytes) return "snapshotChunk: offsetBytes";
      if (configuration.voters.length === 0) return "snapshotChunk: no voters";
      return index === 0 || snapshotTerm > term ? "snapshotChunk: index" : null;
    }
    default:
      return null;
  }
}

/** Reads fields; after the first that is not there, or not allowed, everything has failed. */
class Reader {
  readonly #bytes: Buffer;
  #at = 0;
  failed = false;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  #take(lengthBytes: number): number {
    const at = this.#at;
    if (this.failed || lengthBytes > this.left) {
      this.failed = true;
      return -1;
    }
    this.#at += lengthBytes;
    return at;
  }

  uint8(): number {
    const at = this.#take(1);
    return at < 0 ? 0 : this.#bytes.readUInt8(at);
  }

  uint16(): number {
    const at = this.#take(2);
    return at < 0 ? 0 : this.#bytes.readUInt16BE(at);
  }

  uint32(): number {
    const at = this.#take(4);
    return at < 0 ? 0 : this.#bytes.readUInt32BE(at);
  }

  index(): number {
    const at = this.#take(8);
    const value = at < 0 ? 0 : readUint64(this.#bytes, at);
    if (!Number.isSafeInteger(value)) this.failed = true;
    return value;
  }

  bytes(): Buffer {
    const length = this.uint32();
    if (length > raftLimits.payloadBytesMax) this.failed = true;
    const at = this.#take(length);
    return at < 0 ? Buffer.alloc(0) : this.#bytes.subarray(at, at + length);
  }

  field(kind: FieldKind): unknown {
    switch (kind) {
      case "index":
        return this.index();
      case "flag": {
        const value = this.uint8();
        if (value > 1) this.failed = true;
        return value === 1;
      }
      case "checksum":
        return this.uint32();
      case "bytes":
        return this.bytes();
      case "configuration": {
        const configuration = decodeConfiguration(this.bytes());
        if (configuration === null) this.failed = true;
        return configuration;
      }
      case "entries":
        return this.#entries();
    }
  }

  #entries(): Entry[] {
    const count = this.uint32();
    if (count > raftLimits.appendEntriesMax) this.failed = true;
    const entries: Entry[] = [];
    for (let at = 0; at < count && !this.failed; at += 1) {
      const index = this.index();
      const term = this.index();
      const kindNumber = this.uint8();
      const zero = this.uint8() + this.uint16();
      const entry = checkedEntry(kindNumber, { index, term, payload: this.bytes() });
      if (entry === null || zero !== 0 || index === 0 || term === 0) this.failed = true;
      else entries.push(entry);
    }
    return entries;
  }
}
