import { assert } from "../brick/assert.ts";
import { giveBack, LentMemory } from "../brick/rpc/lent-memory.ts";
import { nextTransferTag, takeStatSn } from "./answers.ts";
import { chunkShareMax, dataInTurnBytesMax, dataInTurnPdusMax, gatherBytes } from "./limits.ts";
import { dataIn, dataOut, noTag, readyToTransfer, scsiResponse } from "./pdu.ts";
import type { Pdu } from "./pdu-stream.ts";
import type { ScsiResult } from "./scsi/command.ts";
import { senseFormat } from "./scsi/logical-unit.ts";
import { encodeSense, type Sense, scsiStatus, sense } from "./scsi/sense.ts";
import type { ScsiTask } from "./session-state.ts";

/** Data of commands: collecting Data-Out, sending R2T, Data-In and the response (RFC 7143 §4.2.5). */

/** The bytes of Data-Out that the command will get. */
export function collectedBytes(task: ScsiTask): number {
  return Math.min(task.wantedBytes, task.expectedBytes);
}

/** Takes the data that came in the command PDU itself. */
export function takeImmediateData(task: ScsiTask, pdu: Pdu): Sense | null {
  if (pdu.dataLength === 0) return null;
  const { parameters } = task.session;
  if (!parameters.immediateData || !task.writes) return sense.unexpectedUnsolicitedData;
  return takeData(task, pdu, Math.min(parameters.firstBurstBytes, task.expectedBytes));
}

/** Takes a Data-Out PDU; a Sense when the task must end for it. */
export function takeDataOut(task: ScsiTask, pdu: Pdu): Sense | null {
  const fields = dataOut.fields;
  const { parameters } = task.session;
  const tag = fields.targetTransferTag.get(pdu.bhs);
  const final = fields.final.get(pdu.bhs);
  // DataSN counts from 0 in each sequence; both orders are negotiated to Yes (§13.18, §13.19).
  if (fields.bufferOffset.get(pdu.bhs) !== task.receivedBytes) return sense.incorrectAmountOfData;
  if (fields.dataSn.get(pdu.bhs) !== task.dataSn) return sense.incorrectAmountOfData;
  task.dataSn = final ? 0 : task.dataSn + 1;
  if (tag === noTag) {
    if (!task.unsolicited) return sense.unexpectedUnsolicitedData;
    if (final) task.unsolicited = false;
    return takeData(task, pdu, Math.min(parameters.firstBurstBytes, task.expectedBytes));
  }
  const r2t = task.r2ts[0];
  if (r2t === undefined || r2t.tag !== tag || task.unsolicited) return sense.incorrectAmountOfData;
  const wrong = takeData(task, pdu, r2t.endOffset);
  if (wrong !== null) return wrong;
  // §11.7.1: F ends the sequence, which must then hold all that was asked for.
  if (final !== (task.receivedBytes === r2t.endOffset)) return sense.incorrectAmountOfData;
  if (final) task.r2ts.shift();
  return null;
}

function takeData(task: ScsiTask, pdu: Pdu, endOffsetMax: number): Sense | null {
  if (task.receivedBytes + pdu.dataLength > endOffsetMax) return sense.incorrectAmountOfData;
  task.receivedBytes += pdu.dataLength;
  if (pdu.lent) {
    task.received ??= new LentMemory();
    const data = pdu.data[0]!;
    task.received.add(() => giveBack(data));
  }
  for (const slice of pdu.data) {
    const room = collectedBytes(task) - task.dataOutBytes;
    if (room <= 0) break;
    keep(task, slice.length <= room ? slice : slice.subarray(0, room), room);
  }
  return null;
}

/**
 * Keeps received bytes where they are, unless the chunk that they came in is so much larger that
 * keeping it would cost memory: then they are copied together. `room`: what may come yet.
 */
function keep(task: ScsiTask, slice: Buffer, room: number): void {
  task.dataOutBytes += slice.length;
  if (slice.length * chunkShareMax >= slice.buffer.byteLength) {
    task.dataOut.push(slice);
    task.gathered = null;
    return;
  }
  for (let at = 0; at < slice.length; ) {
    if (task.gathered === null || task.gathered.length === task.gathered.buffer.length) {
      const buffer = Buffer.allocUnsafeSlow(Math.min(gatherBytes, room - at));
      task.gathered = { buffer, length: 0 };
      task.dataOut.push(buffer);
    }
    const { gathered } = task;
    const copied = slice.copy(gathered.buffer, gathered.length, at);
    gathered.length += copied;
    at += copied;
    task.dataOut[task.dataOut.length - 1] = gathered.buffer.subarray(0, gathered.length);
  }
}

export function hasAllData(task: ScsiTask): boolean {
  return !task.unsolicited && task.dataOutBytes === collectedBytes(task);
}

/** Asks for what is still missing, as far as MaxOutstandingR2T and MaxBurstLength let it. */
export function sendR2ts(task: ScsiTask): void {
  if (task.unsolicited) return;
  const { session } = task;
  const { outstandingR2tMax, maxBurstBytes } = session.parameters;
  const endOffset = collectedBytes(task);
  if (task.r2tOffset < task.receivedBytes) task.r2tOffset = task.receivedBytes;
  while (task.r2ts.length < outstandingR2tMax && task.r2tOffset < endOffset) {
    const desiredLength = Math.min(maxBurstBytes, endOffset - task.r2tOffset);
    const tag = nextTransferTag(session);
    session.connection.outbox.pdu(readyToTransfer, {
      initiatorTaskTag: task.tag,
      lunHigh: task.lunHigh,
      lunLow: task.lunLow,
      targetTransferTag: tag,
      // §11.8.1: the StatSN to come, which is not used up.
      statSn: session.connection.statSn,
      expCmdSn: session.expCmdSn,
      maxCmdSn: session.maxCmdSn,
      r2tSn: task.r2tSn,
      bufferOffset: task.r2tOffset,
      desiredLength,
    });
    task.r2tSn += 1;
    task.r2tOffset += desiredLength;
    task.r2ts.push({ tag, endOffset: task.r2tOffset });
  }
}

interface Residual {
  overflow?: true;
  underflow?: true;
  residualCount?: number;
}

/** RFC 7143 §11.4.5: what the initiator expected against what the command moves. */
function residualOf(task: ScsiTask, result: ScsiResult): Residual {
  const moved = task.writes ? task.wantedBytes : result.dataBytes;
  const expected = task.reads || task.writes ? task.expectedBytes : 0;
  if (moved === expected) return {};
  if (moved > expected) return { overflow: true, residualCount: moved - expected };
  return { underflow: true, residualCount: expected - moved };
}

/**
 * Sends all that a finished command owes: Data-In, and the status in or after it, before which
 * `ending` is called. Yields where others should have their turn: tens of thousands of PDUs when
 * an initiator takes 512 bytes in each.
 */
export function* sendResult(
  task: ScsiTask,
  result: ScsiResult,
  ending: () => void,
): Generator<void, void> {
  const residual = residualOf(task, result);
  const dataBytes = task.reads ? Math.min(result.dataBytes, task.expectedBytes) : 0;
  if (dataBytes > 0) {
    // §11.7.3: the last Data-In may carry a status without sense.
    const collapsed = result.status === scsiStatus.good && result.sense === null;
    yield* sendDataIn(task, result, dataBytes, collapsed ? { residual, ending } : null);
    if (collapsed) return;
  }
  ending();
  const { connection } = task.session;
  const data: Buffer[] = [];
  let dataLength = 0;
  if (result.sense !== null) {
    const format = task.unit === null ? "fixed" : senseFormat(task.unit);
    const encoded = encodeSense(result.sense, format);
    const head = Buffer.alloc(2);
    head.writeUInt16BE(encoded.length, 0);
    data.push(head, encoded);
    dataLength = head.length + encoded.length;
  }
  const values = {
    initiatorTaskTag: task.tag,
    statSn: takeStatSn(task.session),
    expCmdSn: task.session.expCmdSn,
    maxCmdSn: task.session.maxCmdSn,
    status: result.status,
    ...residual,
  };
  connection.outbox.pdu(scsiResponse, values, data, dataLength);
}

/** Cuts data by the initiator's MaxRecvDataSegmentLength; F ends each MaxBurstLength. */
function* sendDataIn(
  task: ScsiTask,
  result: ScsiResult,
  dataBytes: number,
  collapsed: { residual: Residual; ending: () => void } | null,
): Generator<void, void> {
  const { session } = task;
  const { initiatorDataBytesMax, maxBurstBytes } = session.parameters;
  const { outbox } = session.connection;
  const cursor = new SliceCursor(result.data);
  let burstEnd = Math.min(maxBurstBytes, dataBytes);
  let turnStart = { offset: 0, dataSn: 0 };
  for (let offset = 0, dataSn = 0; offset < dataBytes; dataSn += 1) {
    const turnPdus = dataSn - turnStart.dataSn;
    if (turnPdus >= dataInTurnPdusMax || offset - turnStart.offset >= dataInTurnBytesMax) {
      turnStart = { offset, dataSn };
      yield;
    }
    const length = Math.min(initiatorDataBytesMax, burstEnd - offset);
    const last = offset + length === dataBytes;
    if (last) collapsed?.ending();
    const values = {
      final: offset + length === burstEnd,
      initiatorTaskTag: task.tag,
      targetTransferTag: noTag,
      expCmdSn: session.expCmdSn,
      maxCmdSn: session.maxCmdSn,
      dataSn,
      bufferOffset: offset,
    };
    const data = cursor.take(length);
    if (last && collapsed !== null) {
      const withStatus = { ...values, hasStatus: true, statSn: takeStatSn(session) };
      outbox.pdu(dataIn, { ...withStatus, ...collapsed.residual }, data, length);
    } else {
      outbox.pdu(dataIn, values, data, length);
    }
    offset += length;
    if (offset === burstEnd) burstEnd = Math.min(burstEnd + maxBurstBytes, dataBytes);
  }
  if (result.release !== undefined) outbox.whenSent(result.release);
}

/** Takes a list of buffers apart in pieces of any length, without copying. */
class SliceCursor {
  readonly #buffers: readonly Buffer[];
  #index = 0;
  #at = 0;

  constructor(buffers: readonly Buffer[]) {
    this.#buffers = buffers;
  }

  take(length: number): Buffer[] {
    const taken: Buffer[] = [];
    for (let missing = length; missing > 0; ) {
      const buffer = this.#buffers[this.#index];
      assert(buffer !== undefined, "a result holds fewer bytes than it says");
      const end = Math.min(this.#at + missing, buffer.length);
      const whole = this.#at === 0 && end === buffer.length;
      if (end > this.#at) taken.push(whole ? buffer : buffer.subarray(this.#at, end));
      missing -= end - this.#at;
      this.#at = end;
      if (end === buffer.length) {
        this.#index += 1;
        this.#at = 0;
      }
    }
    return taken;
  }
}
