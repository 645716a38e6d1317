import { demand } from "./violation.ts";
import { noTag, tagOf, type WirePdu } from "./wire.ts";

/** What one SCSI command's answers must add up to (RFC 7143 §11.4, §11.7, §11.8). */

export interface CommandRecord {
  readonly bhs: Buffer;
  readonly reads: boolean;
  readonly writes: boolean;
  readonly expectedBytes: number;
}

/** The limits that were agreed on at login, as the answers on the wire told them. */
export interface TransferLimits {
  dataSegmentBytesMax: number;
  burstBytesMax: number;
  outstandingR2tMax: number;
}

const statusGood = 0x00;
const statusCheckCondition = 0x02;
/** GOOD, CHECK CONDITION, BUSY, RESERVATION CONFLICT, TASK SET FULL (SAM-5 §5.3.1). */
const statuses = new Set([statusGood, statusCheckCondition, 0x08, 0x18, 0x28]);

/**
 * The commands sent under one task tag that may still be answered. More than one when an
 * initiator used a tag again: which of them an answer belongs to cannot be told then, and only
 * what holds for any of them is demanded.
 */
export class TaskCheck {
  readonly candidates: CommandRecord[] = [];
  answersLeft = 0;
  #dataInBytes = 0;
  #dataSn = 0;
  #burstBytes = 0;
  #r2tSn = 0;
  #r2tEnd = 0;
  readonly #r2ts = new Set<number>();

  add(record: CommandRecord): void {
    this.candidates.push(record);
    this.answersLeft += 1;
  }

  /** A Reject has answered one of them. */
  reject(bhs: Buffer): void {
    const at = this.candidates.findLastIndex((one) => one.bhs.equals(bhs));
    demand(at >= 0, "Reject of a command that was not sent");
    if (this.candidates.length > 1) this.candidates.splice(at, 1);
    this.answersLeft -= 1;
  }

  /** The initiator has ended a sequence that an R2T asked for. */
  sequenceSent(transferTag: number): void {
    this.#r2ts.delete(transferTag);
  }

  get #only(): CommandRecord | null {
    return this.candidates.length === 1 ? this.candidates[0]! : null;
  }

  get #expectedMax(): number {
    return Math.max(...this.candidates.map((one) => one.expectedBytes));
  }

  readyToTransfer(pdu: WirePdu, limits: TransferLimits): void {
    const { bhs } = pdu;
    const transferTag = bhs.readUInt32BE(20);
    const offset = bhs.readUInt32BE(40);
    const length = bhs.readUInt32BE(44);
    demand(
      this.candidates.some((one) => one.writes),
      "R2T for a command that writes nothing",
    );
    demand(transferTag !== noTag, "R2T without a transfer tag");
    demand(length > 0 && length <= limits.burstBytesMax, `R2T asks for ${length} B`);
    demand(offset + length <= this.#expectedMax, `R2T up to ${offset + length} B`);
    if (this.#only !== null) {
      demand(bhs.readUInt32BE(36) === this.#r2tSn, `R2TSN ${bhs.readUInt32BE(36)}`);
      demand(this.#r2tSn === 0 || offset === this.#r2tEnd, `R2T at ${offset}, not in order`);
      demand(this.#r2ts.size < limits.outstandingR2tMax, "more R2Ts than MaxOutstandingR2T");
    }
    this.#r2ts.add(transferTag);
    this.#r2tSn += 1;
    this.#r2tEnd = offset + length;
  }

  /** Returns whether it has brought the status with it. */
  dataIn(pdu: WirePdu, limits: TransferLimits): boolean {
    const { bhs, data } = pdu;
    const final = (bhs[1]! & 0x80) !== 0;
    const hasStatus = (bhs[1]! & 0x01) !== 0;
    demand(
      this.candidates.some((one) => one.reads),
      "Data-In for a command that reads nothing",
    );
    demand(data.length > 0, "Data-In without data");
    demand(data.length <= limits.dataSegmentBytesMax, `Data-In of ${data.length} B`);
    demand(bhs.readUInt32BE(36) === this.#dataSn, `DataSN ${bhs.readUInt32BE(36)}`);
    demand(bhs.readUInt32BE(40) === this.#dataInBytes, `Data-In at ${bhs.readUInt32BE(40)}`);
    demand(bhs.readUInt32BE(20) === noTag, "Data-In asks for an acknowledgement at ERL 0");
    this.#dataSn += 1;
    this.#dataInBytes += data.length;
    this.#burstBytes += data.length;
    demand(this.#dataInBytes <= this.#expectedMax, `Data-In up to ${this.#dataInBytes} B`);
    demand(this.#burstBytes <= limits.burstBytesMax, `a burst of ${this.#burstBytes} B`);
    if (final) this.#burstBytes = 0;
    if (!hasStatus) {
      demand((bhs[1]! & 0x06) === 0 && bhs[3] === 0, "status fields in a Data-In without S");
      demand(bhs.readUInt32BE(24) === 0, "StatSN in a Data-In without S");
      return false;
    }
    demand(final, "Data-In with a status, but without F");
    this.#status(bhs);
    return true;
  }

  scsiResponse(pdu: WirePdu): void {
    const { bhs, data } = pdu;
    demand(bhs[2] === 0, `response code ${bhs[2]}`);
    demand(this.#dataInBytes === 0 || this.#burstBytes === 0, "the last Data-In had no F bit");
    this.#status(bhs);
    if (bhs[3] === statusCheckCondition) checkSense(data);
    else demand(data.length === 0, "sense data without CHECK CONDITION");
  }

  #status(bhs: Buffer): void {
    const overflow = (bhs[1]! & 0x04) !== 0;
    const underflow = (bhs[1]! & 0x02) !== 0;
    const residual = bhs.readUInt32BE(44);
    demand(statuses.has(bhs[3]!), `status ${bhs[3]}`);
    demand((bhs[1]! & 0x18) === 0, "bidirectional residual of a command that is none");
    demand(!(overflow && underflow), "overflow and underflow at once");
    demand(overflow || underflow === residual > 0, `residual ${residual} without a flag`);
    if (overflow) demand(residual > 0, "overflow of nothing");
    const only = this.#only;
    if (only === null) demand(!underflow || residual <= this.#expectedMax, "underflow too large");
    else this.#residual(only, { overflow, underflow, residual });
    this.answersLeft -= 1;
    this.#restart();
  }

  /** §11.4.5: what came and what did not come are what was expected. */
  #residual(
    command: CommandRecord,
    said: { overflow: boolean; underflow: boolean; residual: number },
  ): void {
    const { expectedBytes, reads, writes } = command;
    if (said.underflow) demand(said.residual <= expectedBytes, `underflow of ${said.residual} B`);
    if (!reads || writes) return;
    const missing = said.underflow ? said.residual : 0;
    demand(
      this.#dataInBytes + missing === expectedBytes,
      `${this.#dataInBytes} B read and ${missing} B missing, of ${expectedBytes} B`,
    );
  }

  #restart(): void {
    this.#dataInBytes = 0;
    this.#dataSn = 0;
    this.#burstBytes = 0;
    this.#r2tSn = 0;
    this.#r2ts.clear();
  }
}

/** RFC 7143 §11.4.7: length[2], then sense data whose own length must agree (SPC-5 §4.4). */
function checkSense(data: Buffer): void {
  demand(data.length >= 10, `sense data of ${data.length} B`);
  demand(data.readUInt16BE(0) === data.length - 2, "SenseLength is not the length");
  const sense = data.subarray(2);
  const code = sense[0]! & 0x7f;
  demand(code === 0x70 || code === 0x72, `sense response code ${code.toString(16)}`);
  demand(sense[7] === sense.length - 8, "additional sense length is not what follows");
  const key = code === 0x70 ? sense[2]! & 0x0f : sense[1]! & 0x0f;
  demand(key !== 0 || code === 0x72 || sense[12] !== undefined, "sense without a key");
}

/** The check of an answer's task, which must be known. */
export function taskOf(tasks: ReadonlyMap<number, TaskCheck>, pdu: WirePdu): TaskCheck {
  const task = tasks.get(tagOf(pdu.bhs));
  demand(task !== undefined, "an answer to a task that was not asked for, or answered twice");
  return task!;
}
