import assert from "node:assert/strict";
import { senseText } from "../../tools/load/initiator-io.ts";
import {
  commandHeader,
  dataOutHeader,
  headerBytes,
  keysOf,
  noTag,
  opcode,
  pingAnswer,
  type ReceivedPdu,
  withData,
} from "../../tools/load/pdus.ts";
import { Wire } from "./wire-io.ts";

/**
 * An initiator that does exactly what it is told, one request after the other, and holds the target
 * to RFC 7143 while it listens: numbering, offsets, bursts and segments as they were negotiated.
 */

export interface LoginRequest {
  currentStage: number;
  /** null: T is 0. */
  nextStage: number | null;
  keys: readonly (readonly [string, string])[];
  /** C: the text goes on in the next request. */
  continues?: boolean;
  tsih?: number;
}

export interface LoginAnswer {
  /** Status class and detail, as in 0x0201. */
  status: number;
  transits: boolean;
  nextStage: number;
  tsih: number;
  keys: Map<string, string>;
}

export interface ScriptedCommand {
  cdb: Buffer;
  readBytes?: number;
  out?: Buffer | null;
  lun?: number;
  /** Of the data to send; null: as much as there is. */
  expectedBytes?: number;
}

export interface ScriptedResult {
  status: number;
  /** "key/asc/ascq", "" without sense data. */
  sense: string;
  senseData: Buffer;
  /** What arrived, at its place. */
  data: Buffer;
  underflowBytes: number;
  overflowBytes: number;
}

/** What the two sides agreed on; RFC 7143 §13 where a key was not offered. */
interface Agreed {
  initialR2t: boolean;
  immediateData: boolean;
  firstBurst: number;
  maxBurst: number;
  /** What the target takes in a PDU, and what it may send in one. */
  targetSegment: number;
  ownSegment: number;
}

const maxUnasked = 1_000;

export class ScriptedInitiator {
  readonly wire: Wire;
  readonly lun: number;
  readonly #isid: Buffer;
  readonly #sendsImmediate: boolean;
  readonly #offered = new Map<string, string>();
  readonly #answered = new Map<string, string>();
  #agreed: Agreed | null = null;
  #tagNext = 0x1000;
  commandSn = 1;
  #commandSnMax = 1;
  #expectedStatusSn = 0;
  #statusSnKnown = false;
  tsih = 0;
  /** Asynchronous messages that came between answers, oldest first. */
  readonly messages: Buffer[] = [];

  constructor(options: {
    host: string;
    port: number;
    isid: string;
    lun?: number;
    sendsImmediate?: boolean;
  }) {
    this.wire = new Wire(options.host, options.port);
    this.#isid = Buffer.from(options.isid, "hex");
    this.lun = options.lun ?? 0;
    this.#sendsImmediate = options.sendsImmediate ?? true;
  }

  async login(request: LoginRequest): Promise<LoginAnswer> {
    const header = this.#header(0x40 | opcode.loginRequest);
    const transit = request.nextStage === null ? 0 : 0x80 | request.nextStage;
    header[1] = transit | (request.continues === true ? 0x40 : 0) | (request.currentStage << 2);
    this.#isid.copy(header, 8);
    header.writeUInt16BE(request.tsih ?? this.tsih, 14);
    header.writeUInt32BE(1, 16);
    for (const [key, value] of request.keys) this.#offered.set(key, value);
    const text = request.keys.map(([key, value]) => `${key}=${value}\0`).join("");
    this.wire.send(withData(header, Buffer.from(text)));
    const pdu = await this.#answer(opcode.loginResponse);
    const flags = pdu.header[1]!;
    const answer: LoginAnswer = {
      status: pdu.header.readUInt16BE(36),
      transits: (flags & 0x80) !== 0,
      nextStage: flags & 3,
      tsih: pdu.header.readUInt16BE(14),
      keys: keysOf(pdu.data),
    };
    if (answer.status !== 0) return answer;
    assert.equal((flags >> 2) & 3, request.currentStage, "CSG of the response");
    assert.ok(pdu.header.subarray(8, 14).equals(this.#isid), "ISID of the response");
    for (const [key, value] of answer.keys) this.#answered.set(key, value);
    if (answer.transits && answer.nextStage === 3) this.#enterFullFeature(answer);
    return answer;
  }

  #enterFullFeature(answer: LoginAnswer): void {
    assert.notEqual(answer.tsih, 0, "TSIH of the last login response");
    this.tsih = answer.tsih;
    // Agreed is what both have named; the initiator's own limit is what it offered.
    const settled = (key: string, otherwise: string) =>
      this.#offered.has(key) ? (this.#answered.get(key) ?? otherwise) : otherwise;
    const number = (key: string, otherwise: number) => Number(settled(key, String(otherwise)));
    this.#agreed = {
      initialR2t: settled("InitialR2T", "Yes") === "Yes",
      immediateData: settled("ImmediateData", "Yes") === "Yes",
      firstBurst: number("FirstBurstLength", 65_536),
      maxBurst: number("MaxBurstLength", 262_144),
      targetSegment: Number(this.#answered.get("MaxRecvDataSegmentLength") ?? 8192),
      ownSegment: Number(this.#offered.get("MaxRecvDataSegmentLength") ?? 8192),
    };
    this.wire.digests = {
      header: settled("HeaderDigest", "None") === "CRC32C",
      data: settled("DataDigest", "None") === "CRC32C",
    };
  }

  /** A text request and its whole answer, over as many PDUs as it takes. */
  async text(keys: readonly (readonly [string, string])[]): Promise<[string, string][]> {
    const parts: Buffer[] = [];
    let text = Buffer.from(keys.map(([key, value]) => `${key}=${value}\0`).join(""));
    let transferTag = noTag;
    const tag = this.#tagNext++;
    for (;;) {
      const header = this.#header(opcode.textRequest);
      header[1] = 0x80;
      header.writeUInt32BE(tag, 16);
      header.writeUInt32BE(transferTag, 20);
      this.#takeCommandSn();
      this.wire.send(withData(header, text));
      const pdu = await this.#answer(opcode.textResponse);
      assert.equal(pdu.header.readUInt32BE(16), tag, "ITT of the text response");
      parts.push(Buffer.from(pdu.data));
      const isFinal = (pdu.header[1]! & 0x80) !== 0;
      transferTag = pdu.header.readUInt32BE(20);
      if (isFinal) break;
      assert.notEqual(transferTag, noTag, "TTT of a text response that goes on");
      text = Buffer.alloc(0);
    }
    const pairs = Buffer.concat(parts).toString("latin1").split("\0");
    return pairs.filter((pair) => pair !== "").map(splitPair);
  }

  async command(command: ScriptedCommand): Promise<ScriptedResult> {
    const tag = this.#tagNext++;
    const out = command.out ?? null;
    const agreed = this.#agreed;
    assert.ok(agreed !== null, "a command before the full feature phase");
    const cdb = Buffer.alloc(16);
    command.cdb.copy(cdb);
    const header = commandHeader({
      tag,
      commandSn: this.commandSn,
      expectedStatusSn: this.#expectedStatusSn,
      cdb,
      readBytes: command.readBytes ?? 0,
      writeBytes: out === null ? 0 : (command.expectedBytes ?? out.length),
    });
    writeLun(header, command.lun ?? this.lun);
    this.#takeCommandSn();
    this.#sendUnsolicited(header, out, agreed);
    return this.#collect(tag, command, agreed);
  }

  /** The command with its immediate data, and Data-Out up to the first burst when that may be. */
  #sendUnsolicited(header: Buffer, out: Buffer | null, agreed: Agreed): void {
    if (out === null) {
      this.wire.send([header]);
      return;
    }
    const mayImmediate = agreed.immediateData && this.#sendsImmediate;
    const burst = Math.min(agreed.firstBurst, out.length);
    const immediate = mayImmediate ? Math.min(burst, agreed.targetSegment) : 0;
    const goesOn = !agreed.initialR2t && immediate < burst;
    if (goesOn) header[1]! &= 0x7f;
    this.wire.send(immediate === 0 ? [header] : withData(header, out.subarray(0, immediate)));
    if (goesOn) this.#sendDataOut(header, noTag, out, immediate, burst);
  }

  /** `source` gives the LUN and the tag. */
  #sendDataOut(source: Buffer, transferTag: number, out: Buffer, from: number, end: number): void {
    const { targetSegment } = this.#agreed!;
    let dataSn = 0;
    for (let at = from; at < end; at += targetSegment) {
      const until = Math.min(at + targetSegment, end);
      const header = dataOutHeader({
        tag: source.readUInt32BE(16),
        transferTag,
        expectedStatusSn: this.#expectedStatusSn,
        dataSn: dataSn++,
        offsetBytes: at,
        final: until === end,
      });
      source.copy(header, 8, 8, 16);
      this.wire.send(withData(header, out.subarray(at, until)));
    }
  }

  async #collect(tag: number, command: ScriptedCommand, agreed: Agreed): Promise<ScriptedResult> {
    const parts: Buffer[] = [];
    let [dataSn, r2tSn, received, burst] = [0, 0, 0, 0];
    for (;;) {
      const { header, data } = await this.#next();
      assert.equal(header.readUInt32BE(16), tag, "ITT of an answer");
      const kind = header[0]! & 0x3f;
      if (kind === opcode.readyToTransfer) {
        assert.equal(header.readUInt32BE(36), r2tSn++, "R2TSN");
        const [at, length] = [header.readUInt32BE(40), header.readUInt32BE(44)];
        assert.ok(length > 0 && length <= agreed.maxBurst, `R2T of ${length} bytes`);
        assert.ok(command.out != null && at + length <= command.out.length, `R2T at ${at}`);
        this.#sendDataOut(header, header.readUInt32BE(20), command.out, at, at + length);
      } else if (kind === opcode.dataIn) {
        assert.equal(header.readUInt32BE(36), dataSn++, "DataSN");
        assert.equal(header.readUInt32BE(40), received, "buffer offset");
        assert.ok(data.length <= agreed.ownSegment, `a segment of ${data.length} bytes`);
        parts.push(Buffer.from(data));
        received += data.length;
        burst += data.length;
        assert.ok(burst <= agreed.maxBurst, `a burst of ${burst} bytes`);
        if ((header[1]! & 0x80) !== 0) burst = 0;
        if ((header[1]! & 0x01) !== 0) return resultOf(header, Buffer.alloc(0), parts);
      } else {
        assert.equal(kind, opcode.scsiResponse, `opcode 0x${kind.toString(16)}`);
        assert.equal(header[2], 0, "iSCSI response code");
        if (header[3] === 0) assert.equal(header.readUInt32BE(36), dataSn, "ExpDataSN");
        return resultOf(header, data, parts);
      }
    }
  }

  /** A ping with data; returns what comes back. */
  async ping(data: Buffer): Promise<Buffer> {
    const header = this.#header(opcode.nopOut);
    const tag = this.#tagNext++;
    header[1] = 0x80;
    header.writeUInt32BE(tag, 16);
    header.writeUInt32BE(noTag, 20);
    this.#takeCommandSn();
    this.wire.send(data.length === 0 ? [header] : withData(header, data));
    const pdu = await this.#answer(opcode.nopIn);
    assert.equal(pdu.header.readUInt32BE(16), tag, "ITT of the NOP-In");
    assert.equal(pdu.header.readUInt32BE(20), noTag, "TTT of an answering NOP-In");
    return pdu.data;
  }

  /** A task management function on the LUN; returns the response code. */
  async manage(action: number, lun = this.lun): Promise<number> {
    const header = this.#header(0x40 | opcode.taskRequest);
    header[1] = 0x80 | action;
    writeLun(header, lun);
    header.writeUInt32BE(this.#tagNext++, 16);
    header.writeUInt32BE(noTag, 20);
    this.wire.send([header]);
    return (await this.#answer(opcode.taskResponse)).header[2]!;
  }

  /** Logs out (reason 0: the session); returns the response code. */
  async logout(): Promise<number> {
    const header = this.#header(0x40 | opcode.logoutRequest);
    header[1] = 0x80;
    header.writeUInt32BE(this.#tagNext++, 16);
    this.wire.send([header]);
    return (await this.#answer(opcode.logoutResponse)).header[2]!;
  }

  /** The next asynchronous message's event. */
  async message(): Promise<Buffer> {
    const kept = this.messages.shift();
    if (kept !== undefined) return kept;
    const pdu = await this.wire.next();
    this.#account(pdu.header);
    assert.equal(pdu.header[0]! & 0x3f, opcode.asyncMessage, "an asynchronous message");
    return pdu.header;
  }

  /** ExpCmdSN... the numbers that every request carries. */
  #header(first: number): Buffer {
    const header = Buffer.alloc(headerBytes);
    header[0] = first;
    header.writeUInt32BE(this.commandSn, 24);
    header.writeUInt32BE(this.#expectedStatusSn, 28);
    return header;
  }

  #takeCommandSn(): void {
    assert.ok(((this.#commandSnMax - this.commandSn) | 0) >= 0, "the command window is closed");
    this.commandSn = (this.commandSn + 1) >>> 0;
  }

  async #answer(kind: number): Promise<ReceivedPdu> {
    const pdu = await this.#next();
    const found = pdu.header[0]! & 0x3f;
    assert.equal(found, kind, `opcode 0x${found.toString(16)} instead of 0x${kind.toString(16)}`);
    return pdu;
  }

  /** The next answer; pings are answered and messages kept on the way. */
  async #next(): Promise<ReceivedPdu> {
    for (let unasked = 0; unasked < maxUnasked; unasked += 1) {
      const pdu = await this.wire.next();
      this.#account(pdu.header);
      const kind = pdu.header[0]! & 0x3f;
      if (kind === opcode.asyncMessage) this.messages.push(pdu.header);
      else if (kind === opcode.nopIn && pdu.header.readUInt32BE(20) !== noTag) {
        this.wire.send([pingAnswer(pdu.header, this.commandSn, this.#expectedStatusSn)]);
      } else return pdu;
    }
    throw new Error("nothing but pings and messages");
  }

  /** StatSN counts the PDUs that carry a status (RFC 7143 §4.2.2.2). */
  #account(header: Buffer): void {
    const kind = header[0]! & 0x3f;
    const statusSn = header.readUInt32BE(24);
    const isPing = kind === opcode.nopIn && header.readUInt32BE(16) === noTag;
    const carries =
      kind === opcode.dataIn
        ? (header[1]! & 0x01) !== 0
        : kind !== opcode.readyToTransfer && !isPing;
    if (carries) {
      if (this.#statusSnKnown) assert.equal(statusSn, this.#expectedStatusSn, "StatSN");
      this.#statusSnKnown = true;
      this.#expectedStatusSn = (statusSn + 1) >>> 0;
    }
    const max = header.readUInt32BE(32);
    assert.ok(((max - header.readUInt32BE(28) + 1) | 0) >= 0, "MaxCmdSN below ExpCmdSN - 1");
    if (((max - this.#commandSnMax) | 0) > 0) this.#commandSnMax = max;
  }
}

function resultOf(header: Buffer, data: Buffer, parts: readonly Buffer[]): ScriptedResult {
  const residual = header.readUInt32BE(44);
  return {
    status: header[3]!,
    sense: senseText(data),
    senseData: data.subarray(2),
    data: Buffer.concat(parts),
    overflowBytes: (header[1]! & 0x04) !== 0 ? residual : 0,
    underflowBytes: (header[1]! & 0x02) !== 0 ? residual : 0,
  };
}

/** SAM-5 §4.7.7.2, .3: peripheral addressing below 256, flat space addressing above. */
function writeLun(header: Buffer, lun: number): void {
  header.writeUInt16BE(lun < 256 ? lun : 0x4000 | lun, 8);
}

function splitPair(pair: string): [string, string] {
  const equals = pair.indexOf("=");
  return [pair.slice(0, equals), pair.slice(equals + 1)];
}
