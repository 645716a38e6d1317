import { connect, type Socket } from "node:net";
import {
  commandHeader,
  dataOutHeader,
  headerBytes,
  keysOf,
  loginRequest,
  noTag,
  opcode,
  PduCutter,
  pingAnswer,
  pingRequest,
  type ReceivedPdu,
  serialAtMost,
  textOf,
  withData,
} from "./pdus.ts";

/** The connection ended: what was not answered may or may not have been done. */
export class ConnectionLost extends Error {
  override readonly name = "ConnectionLost";
}

export interface CommandResult {
  /** SCSI status: 0 GOOD, 2 CHECK CONDITION, 8 BUSY, 0x28 TASK SET FULL... */
  status: number;
  /** Sense key and code of a CHECK CONDITION, as in "2/04/01"; "" without. */
  sense: string;
  data: Buffer;
}

export interface InitiatorOptions {
  host: string;
  port: number;
  /** iqn; null opens a discovery session. */
  target: string | null;
  initiator?: string;
  isid?: number;
  lun?: number;
  loginMsMax?: number;
  /** Pings a target that says nothing, and gives the connection up after this long; absent: waits. */
  silentMsMax?: number;
}

interface Task {
  cdb: Buffer;
  readBytes: number;
  write: Buffer | null;
  data: Buffer;
  done: (result: CommandResult) => void;
  lost: (error: ConnectionLost) => void;
}

const loginMsMaxDefault = 10_000;
const pingsBeforeGivingUp = 4;

/** One session with one connection. */
export class Initiator {
  readonly #socket: Socket;
  readonly #cutter = new PduCutter();
  readonly #tasks = new Map<number, Task>();
  readonly #waiting: Task[] = [];
  readonly #options: InitiatorOptions;
  #login: { resolve: () => void; reject: (error: Error) => void } | null = null;
  #text: ((data: Buffer) => void) | null = null;
  #lost: ConnectionLost | null = null;
  #tagNext = 1;
  #commandSn = 1;
  #commandSnMax = 1;
  #expectedStatusSn = 0;
  #receivedMs = 0;
  #pinging: NodeJS.Timeout | null = null;
  #immediateBytesMax = 0;
  #segmentBytesMax = 8192;
  /** The NUL-separated keys that the target answered. */
  keys = new Map<string, string>();

  static async connect(options: InitiatorOptions): Promise<Initiator> {
    const socket = connect({ host: options.host, port: options.port, noDelay: true });
    const initiator = new Initiator(socket, options);
    const timer = setTimeout(
      () => initiator.#fail("no login in time"),
      options.loginMsMax ?? loginMsMaxDefault,
    );
    try {
      await new Promise<void>((resolve, reject) => {
        initiator.#login = { resolve, reject };
      });
    } finally {
      clearTimeout(timer);
    }
    return initiator;
  }

  private constructor(socket: Socket, options: InitiatorOptions) {
    this.#socket = socket;
    this.#options = options;
    socket.on("connect", () => this.#sendLogin());
    socket.on("data", (bytes) => this.#cutter.push(bytes, (pdu) => this.#receive(pdu)));
    socket.on("error", (error) => this.#fail(error.message));
    socket.on("close", () => this.#fail("the connection was closed"));
  }

  get isLost(): boolean {
    return this.#lost !== null;
  }

  /** Sends a command as soon as the target's window has room. */
  command(cdb: Buffer, transfer: { readBytes?: number; write?: Buffer }): Promise<CommandResult> {
    return new Promise((resolve, reject) => {
      if (this.#lost !== null) {
        reject(this.#lost);
        return;
      }
      this.#waiting.push({
        cdb,
        readBytes: transfer.readBytes ?? 0,
        write: transfer.write ?? null,
        data: Buffer.alloc(transfer.readBytes ?? 0),
        done: resolve,
        lost: reject,
      });
      this.#sendWaiting();
    });
  }

  /** The targets and their portals, from a discovery session. */
  async sendTargets(): Promise<{ target: string; addresses: string[] }[]> {
    const header = Buffer.alloc(headerBytes);
    header[0] = opcode.textRequest;
    header[1] = 0x80;
    header.writeUInt32BE(this.#tagNext++, 16);
    header.writeUInt32BE(noTag, 20);
    header.writeUInt32BE(this.#commandSn++, 24);
    header.writeUInt32BE(this.#expectedStatusSn, 28);
    const answer = new Promise<Buffer>((resolve) => {
      this.#text = resolve;
    });
    this.#write(withData(header, textOf({ SendTargets: "All" })));
    const targets: { target: string; addresses: string[] }[] = [];
    for (const pair of (await answer).toString("latin1").split("\0")) {
      if (pair.startsWith("TargetName=")) targets.push({ target: pair.slice(11), addresses: [] });
      if (pair.startsWith("TargetAddress=")) targets.at(-1)?.addresses.push(pair.slice(14));
    }
    return targets;
  }

  /** Ends the session without ceremony; unanswered commands are lost. */
  destroy(): void {
    this.#fail("ended by the initiator");
  }

  /** Ends the session with a logout request. */
  async logout(): Promise<void> {
    if (this.#lost !== null) return;
    const header = Buffer.alloc(headerBytes);
    header[0] = 0x40 | opcode.logoutRequest;
    header[1] = 0x80;
    header.writeUInt32BE(this.#tagNext++, 16);
    header.writeUInt32BE(this.#commandSn, 24);
    header.writeUInt32BE(this.#expectedStatusSn, 28);
    const closed = new Promise<void>((resolve) => this.#socket.once("close", () => resolve()));
    this.#write([header]);
    const timer = setTimeout(() => this.destroy(), 5_000);
    await closed;
    clearTimeout(timer);
  }

  /** Any PDU, the answer to a ping too, shows that the target lives. */
  #watchSilence(silentMsMax: number): void {
    this.#receivedMs = performance.now();
    this.#pinging = setInterval(() => {
      const silentMs = performance.now() - this.#receivedMs;
      if (silentMs >= silentMsMax) this.#fail(`silent for ${Math.round(silentMs)} ms`);
      else if (silentMs >= silentMsMax / pingsBeforeGivingUp) {
        this.#write([pingRequest(this.#tagNext++, this.#commandSn, this.#expectedStatusSn)]);
      }
    }, silentMsMax / pingsBeforeGivingUp);
  }

  #sendLogin(): void {
    const { target, initiator, isid } = this.#options;
    this.#write(
      loginRequest({
        isid: isid ?? Math.floor(Math.random() * 2 ** 32),
        target,
        initiator: initiator ?? "iqn.2026-11.endisk.test:load",
        commandSn: this.#commandSn,
      }),
    );
  }

  #write(parts: readonly Buffer[]): void {
    this.#socket.cork();
    for (const part of parts) this.#socket.write(part);
    process.nextTick(() => this.#socket.uncork());
  }

  #fail(why: string): void {
    if (this.#lost !== null) return;
    const { host, port } = this.#options;
    const lost = new ConnectionLost(`${host}:${port}: ${why}`);
    this.#lost = lost;
    if (this.#pinging !== null) clearInterval(this.#pinging);
    this.#socket.destroy();
    this.#login?.reject(lost);
    for (const task of [...this.#tasks.values(), ...this.#waiting]) task.lost(lost);
    this.#tasks.clear();
    this.#waiting.length = 0;
  }

  #sendWaiting(): void {
    while (this.#waiting.length > 0 && serialAtMost(this.#commandSn, this.#commandSnMax)) {
      const task = this.#waiting.shift()!;
      const tag = this.#tagNext++ >>> 0;
      this.#tasks.set(tag, task);
      const header = commandHeader({
        tag,
        commandSn: this.#commandSn,
        expectedStatusSn: this.#expectedStatusSn,
        cdb: task.cdb,
        readBytes: task.readBytes,
        writeBytes: task.write?.length ?? 0,
      });
      header[9] = this.#options.lun ?? 0;
      this.#commandSn = (this.#commandSn + 1) >>> 0;
      const immediate = task.write?.subarray(0, this.#immediateBytesMax);
      this.#write(immediate === undefined ? [header] : withData(header, immediate));
    }
  }

  #receive(pdu: ReceivedPdu): void {
    const { header, data } = pdu;
    const kind = header[0]! & 0x3f;
    this.#receivedMs = performance.now();
    this.#advance(kind, header);
    switch (kind) {
      case opcode.loginResponse:
        this.#onLogin(header, data);
        break;
      case opcode.dataIn:
        this.#onDataIn(header, data);
        break;
      case opcode.readyToTransfer:
        this.#onReady(header);
        break;
      case opcode.scsiResponse:
        this.#onResponse(header, data);
        break;
      case opcode.textResponse:
        this.#text?.(Buffer.from(data));
        break;
      case opcode.nopIn:
        if (header.readUInt32BE(20) !== noTag) {
          this.#write([pingAnswer(header, this.#commandSn, this.#expectedStatusSn)]);
        }
        break;
      case opcode.logoutResponse:
        this.#fail("logged out");
        break;
      default:
        this.#fail(`the target sent opcode 0x${kind.toString(16)}`);
    }
    this.#sendWaiting();
  }

  /** StatSN, ExpCmdSN and MaxCmdSN, which every PDU of the target carries. */
  #advance(kind: number, header: Buffer): void {
    const hasStatus =
      kind === opcode.dataIn
        ? (header[1]! & 0x01) !== 0
        : kind === opcode.nopIn
          ? header.readUInt32BE(16) !== noTag
          : kind !== opcode.readyToTransfer;
    if (hasStatus) this.#expectedStatusSn = (header.readUInt32BE(24) + 1) >>> 0;
    const commandSnMax = header.readUInt32BE(32);
    if (serialAtMost(this.#commandSnMax, commandSnMax)) this.#commandSnMax = commandSnMax;
  }

  #onLogin(header: Buffer, data: Buffer): void {
    const status = header.readUInt16BE(36);
    if (status !== 0) {
      this.#fail(`login refused, status 0x${status.toString(16).padStart(4, "0")}`);
      return;
    }
    for (const [key, value] of keysOf(data)) this.keys.set(key, value);
    const inFullFeature = (header[1]! & 0x83) === 0x83;
    if (!inFullFeature) {
      this.#fail("the target wants more login steps than this initiator takes");
      return;
    }
    const number = (key: string, otherwise: number) => Number(this.keys.get(key) ?? otherwise);
    this.#segmentBytesMax = number("MaxRecvDataSegmentLength", 8192);
    const firstBurst = Math.min(262_144, number("FirstBurstLength", 65_536));
    const immediate = (this.keys.get("ImmediateData") ?? "Yes") === "Yes";
    this.#immediateBytesMax = immediate ? Math.min(firstBurst, this.#segmentBytesMax) : 0;
    if (this.#options.silentMsMax !== undefined) this.#watchSilence(this.#options.silentMsMax);
    this.#login?.resolve();
    this.#login = null;
  }

  #onDataIn(header: Buffer, data: Buffer): void {
    const task = this.#tasks.get(header.readUInt32BE(16));
    if (task === undefined) return;
    data.copy(task.data, header.readUInt32BE(40));
    const withStatus = (header[1]! & 0x01) !== 0;
    if (withStatus) this.#finish(header.readUInt32BE(16), header[3]!, "");
  }

  #onReady(header: Buffer): void {
    const tag = header.readUInt32BE(16);
    const task = this.#tasks.get(tag);
    if (task?.write === undefined || task.write === null) return;
    const from = header.readUInt32BE(40);
    const until = from + header.readUInt32BE(44);
    let dataSn = 0;
    for (let at = from; at < until; at += this.#segmentBytesMax) {
      const end = Math.min(at + this.#segmentBytesMax, until);
      const out = dataOutHeader({
        tag,
        transferTag: header.readUInt32BE(20),
        expectedStatusSn: this.#expectedStatusSn,
        dataSn: dataSn++,
        offsetBytes: at,
        final: end === until,
      });
      header.copy(out, 8, 8, 16);
      this.#write(withData(out, task.write.subarray(at, end)));
    }
  }

  #onResponse(header: Buffer, data: Buffer): void {
    const status = header[2] === 0 ? header[3]! : 0x40;
    this.#finish(header.readUInt32BE(16), status, senseText(data));
  }

  #finish(tag: number, status: number, sense: string): void {
    const task = this.#tasks.get(tag);
    this.#tasks.delete(tag);
    task?.done({ status, sense, data: task.data });
  }
}

/** "key/asc/ascq" of fixed or descriptor sense data, behind its two bytes of length. */
export function senseText(data: Buffer): string {
  if (data.length < 2 + 8) return "";
  const sense = data.subarray(2);
  const descriptor = (sense[0]! & 0x7f) >= 0x72;
  const [key, asc, ascq] = descriptor
    ? [sense[1]! & 0x0f, sense[2]!, sense[3]!]
    : [sense[2]! & 0x0f, sense[12] ?? 0, sense[13] ?? 0];
  const hex = (value: number) => value.toString(16).padStart(2, "0");
  return `${key.toString(16)}/${hex(asc)}/${hex(ascq)}`;
}

/** READ(16), WRITE(16): SBC-4 §5.16, §5.43; the range in bytes, in 512-byte blocks. */
export function transferCdb(operation: "read" | "write", offset: number, bytes: number): Buffer {
  const cdb = Buffer.alloc(16);
  cdb[0] = operation === "read" ? 0x88 : 0x8a;
  cdb.writeBigUInt64BE(BigInt(offset / 512), 2);
  cdb.writeUInt32BE(bytes / 512, 10);
  return cdb;
}

/** READ CAPACITY(16) -> size in bytes. */
export async function readCapacityBytes(initiator: Initiator): Promise<number> {
  const cdb = Buffer.alloc(16);
  cdb[0] = 0x9e;
  cdb[1] = 0x10;
  cdb.writeUInt32BE(32, 10);
  for (let attempt = 1; ; attempt += 1) {
    const result = await initiator.command(cdb, { readBytes: 32 });
    if (result.status === 0) {
      return (Number(result.data.readBigUInt64BE(0)) + 1) * result.data.readUInt32BE(8);
    }
    // A unit attention is reported once (SAM-5 §5.14).
    if (attempt >= 5) throw new Error(`READ CAPACITY: status ${result.status} ${result.sense}`);
  }
}
