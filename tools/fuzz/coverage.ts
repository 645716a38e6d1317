import { crc32 } from "node:zlib";
import { commandRows } from "../../iscsi/scsi/opcodes.ts";
import type { TargetMetrics } from "../../iscsi/session-state.ts";
import { opcodeOf } from "./wire.ts";

/** What a run has reached, so that a fuzzer that reaches nothing cannot be taken for a good sign. */
export class Coverage implements TargetMetrics {
  pdus = 0;
  mutated = 0;
  connections = 0;
  logins = 0;
  answers = 0;
  closes = 0;
  innocentReads = 0;
  innocentWrites = 0;
  /** A sum over every header in either direction, in order: equal for equal runs. */
  fingerprint = 0;
  /** Mutated or not, by the opcode that went out. */
  readonly sentOpcodes = new Map<number, number>();
  readonly answerOpcodes = new Map<number, number>();
  /** SCSI operation code -> statuses it was answered with. */
  readonly scsi = new Map<number, Map<number, number>>();
  /** What the target says about protocol errors: Rejects by reason, closes by cause. */
  readonly protocolErrors = new Map<string, number>();
  readonly loginsRefused = new Map<number, number>();

  command(opcode: number, status: number): void {
    let statuses = this.scsi.get(opcode);
    if (statuses === undefined) this.scsi.set(opcode, (statuses = new Map()));
    count(statuses, status);
  }

  sessions(): void {}

  loginRefused(status: number): void {
    count(this.loginsRefused, status);
  }

  protocolError(reason: string): void {
    // Lengths vary; their kind is what counts.
    count(this.protocolErrors, reason.startsWith("reject") ? reason : reason.replace(/\d+/g, "N"));
  }

  sent(bhs: Buffer): void {
    this.pdus += 1;
    this.fingerprint = crc32(bhs, this.fingerprint);
    count(this.sentOpcodes, opcodeOf(bhs));
  }

  answered(bhs: Buffer): void {
    this.answers += 1;
    this.fingerprint = crc32(bhs, this.fingerprint);
    count(this.answerOpcodes, opcodeOf(bhs));
  }

  /** Commands of the target's table that never ended with GOOD. */
  neverGood(): string[] {
    const names = commandRows.filter((row) => !this.scsi.get(row.opcode)?.has(0));
    return [...new Set(names.map((row) => row.name))];
  }

  add(other: Coverage): void {
    for (const name of sums) this[name] += other[name];
    this.fingerprint = (this.fingerprint ^ other.fingerprint) >>> 0;
    addCounts(this.sentOpcodes, other.sentOpcodes);
    addCounts(this.answerOpcodes, other.answerOpcodes);
    addCounts(this.protocolErrors, other.protocolErrors);
    addCounts(this.loginsRefused, other.loginsRefused);
    for (const [opcode, statuses] of other.scsi) {
      const mine = this.scsi.get(opcode);
      if (mine === undefined) this.scsi.set(opcode, new Map(statuses));
      else addCounts(mine, statuses);
    }
  }
}

const sums = [
  "pdus",
  "mutated",
  "connections",
  "logins",
  "answers",
  "closes",
  "innocentReads",
  "innocentWrites",
] as const;

function count<K>(counts: Map<K, number>, key: K): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

function addCounts<K>(counts: Map<K, number>, more: ReadonlyMap<K, number>): void {
  for (const [key, value] of more) counts.set(key, (counts.get(key) ?? 0) + value);
}
