import { ahsBytesMax, commandWindow, loginDataBytesMax } from "../../iscsi/limits.ts";
import { serialAdd, serialLess } from "../../iscsi/serial32.ts";
import { decodeText, parseNumber } from "../../iscsi/text-keys.ts";
import { SentRequests } from "./sent-requests.ts";
import { type TransferLimits, taskOf } from "./task-check.ts";
import { demand, Violation } from "./violation.ts";
import {
  answerOpcode,
  type Digests,
  headerBytes,
  noDigests,
  noTag,
  opcodeOf,
  requestOpcode,
  tagOf,
  type WirePdu,
  WireReader,
} from "./wire.ts";

/**
 * A strict ear on one connection: it hears both directions as bytes, and throws a Violation at the
 * first answer that RFC 7143 does not allow, whatever nonsense the initiator has sent.
 */

/** RFC 7143 §13: in force while a key is not negotiated. */
const defaultBurstBytes = 262_144;
const defaultDataSegmentBytes = 8192;
/** RFC 7143 §11.13.5. */
const invalidDuringLogin = 0x020b;

export class ConnectionCheck {
  readonly sent = new SentRequests();
  readonly limits: TransferLimits = {
    dataSegmentBytesMax: defaultDataSegmentBytes,
    burstBytesMax: defaultBurstBytes,
    outstandingR2tMax: 1,
  };
  phase: "login" | "full" | "loggedOut" = "login";
  discovery = false;
  digests: Digests = noDigests;
  /** As the last answer told them. */
  expCmdSn = 0;
  maxCmdSn = 0;
  answers = 0;
  readonly #input = new WireReader({
    dataBytesMax: loginDataBytesMax,
    ahsBytesMax,
    zeroPadding: false,
  });
  readonly #output = new WireReader({ dataBytesMax: 0xff_ffff, ahsBytesMax: 0, zeroPadding: true });
  #inputEnded = false;
  /** After a Login Request, what follows can be read only once it is answered: digests. */
  #inputWaits = false;
  #lastLogin: WirePdu | null = null;
  #loginText: Buffer[] = [];
  /** What the initiator has offered, and the target has agreed to. */
  readonly #offered = new Map<string, string>();
  readonly #agreed = new Map<string, string>();
  #firstCmdSn = 0;
  #statSn: number | null = null;
  #text: Buffer[] = [];

  /** Bytes that the target is given. */
  hearInitiator(bytes: Buffer): void {
    if (this.#inputEnded) return;
    this.#input.push(bytes);
    this.#readInput();
  }

  #readInput(): void {
    while (!this.#inputEnded && !this.#inputWaits) {
      const event = this.#input.next();
      if (event.type === "more") return;
      if (event.type === "fault") {
        // It may be rejected, as if it had come; with it ends what can be known of the input.
        if (event.what === "data digest") {
          this.sent.addDamaged(event.bhs);
          continue;
        }
        const nothing = Buffer.alloc(0);
        this.sent.add({ bhs: event.bhs, ahs: nothing, data: nothing });
        this.#inputEnded = true;
        return;
      }
      this.sent.add(event.pdu);
      if (this.phase === "login") this.#heardLogin(event.pdu);
      else if (opcodeOf(event.pdu.bhs) === requestOpcode.text) this.#heardText(event.pdu);
    }
  }

  #heardLogin(pdu: WirePdu): void {
    if (opcodeOf(pdu.bhs) !== requestOpcode.login) return;
    this.#lastLogin = pdu;
    this.#inputWaits = true;
    this.#loginText.push(pdu.data);
    if ((pdu.bhs[1]! & 0x40) !== 0) return;
    for (const [key, value] of decodeText(Buffer.concat(this.#loginText)) ?? []) {
      if (!this.#offered.has(key)) this.#offered.set(key, value);
    }
    this.#loginText = [];
  }

  /** A declaration may be renewed in the full feature phase (§13.12). */
  #heardText(pdu: WirePdu): void {
    if (pdu.bhs.readUInt32BE(20) === noTag) this.#text = [];
    this.#text.push(pdu.data);
    if ((pdu.bhs[1]! & 0x40) !== 0) return;
    for (const [key, value] of decodeText(Buffer.concat(this.#text)) ?? []) {
      if (key === "MaxRecvDataSegmentLength") this.#declare(value, "atLeast");
    }
    this.#text = [];
  }

  /**
   * `atLeast`: when the new value comes into force depends on the command window; until the
   * fuzzer knows, the larger one is the limit.
   */
  #declare(value: string, how: "exactly" | "atLeast"): void {
    const bytes = parseNumber(value);
    if (bytes === undefined || bytes < 512 || bytes > 0xff_ffff) return;
    const { limits } = this;
    limits.dataSegmentBytesMax =
      how === "exactly" ? bytes : Math.max(bytes, limits.dataSegmentBytesMax);
  }

  /** Bytes that the target has sent; `hear` gets every PDU that is in order. */
  hearTarget(bytes: Buffer, hear: (pdu: WirePdu) => void): void {
    this.#output.push(bytes);
    for (;;) {
      const event = this.#output.next();
      if (event.type === "more") return;
      if (event.type === "fault") {
        throw new Violation(`the target's stream cannot be read: ${event.what}`);
      }
      this.answers += 1;
      this.#check(event.pdu);
      hear(event.pdu);
    }
  }

  /** The target has closed the connection. */
  ended(): void {
    demand(this.#output.leftBytes === 0, "the connection ends within a PDU");
  }

  #check(pdu: WirePdu): void {
    const { bhs } = pdu;
    const opcode = opcodeOf(bhs);
    demand((bhs[0]! & 0xc0) === 0, "reserved bits of the opcode byte are set");
    demand(this.phase !== "loggedOut", "a PDU after the Logout Response");
    if (this.phase === "login") {
      demand(opcode === answerOpcode.login, `opcode ${opcode} during login`);
      this.#loginResponse(pdu);
      return;
    }
    const check = checks.get(opcode);
    demand(check !== undefined, `opcode ${opcode} from a target`);
    const scsi = opcode === answerOpcode.scsiResponse || opcode === answerOpcode.dataIn;
    demand(!(this.discovery && scsi), "a SCSI answer in a discovery session");
    this.#window(bhs);
    check!(this, pdu);
  }

  /** ExpCmdSN and MaxCmdSN never move back, and never further than there is cause (§4.2.2.1). */
  #window(bhs: Buffer): void {
    const expCmdSn = bhs.readUInt32BE(28);
    const maxCmdSn = bhs.readUInt32BE(32);
    demand(!serialLess(expCmdSn, this.expCmdSn), "ExpCmdSN moves back");
    demand(!serialLess(maxCmdSn, this.maxCmdSn), "MaxCmdSN moves back");
    const taken = (expCmdSn - this.#firstCmdSn) >>> 0;
    demand(taken <= this.sent.numbered, `ExpCmdSN moved by ${taken} of ${this.sent.numbered}`);
    const places = (maxCmdSn - expCmdSn + 1) >>> 0;
    demand(places <= commandWindow, `a command window of ${places} places`);
    this.expCmdSn = expCmdSn;
    this.maxCmdSn = maxCmdSn;
  }

  takeStatSn(bhs: Buffer): void {
    const statSn = bhs.readUInt32BE(24);
    demand(this.#statSn === null || statSn === this.#statSn, `StatSN ${statSn}, out of turn`);
    this.#statSn = serialAdd(statSn, 1);
  }

  /** §11.8.1, §11.19.2: R2T and the ping tell the next StatSN without using it up. */
  peekStatSn(bhs: Buffer): void {
    demand(bhs.readUInt32BE(24) === this.#statSn, "StatSN is not the next one");
  }

  #loginResponse(pdu: WirePdu): void {
    const { bhs, data } = pdu;
    if (bhs.readUInt16BE(36) === invalidDuringLogin) {
      // It answers a PDU that is no Login Request.
      this.takeStatSn(bhs);
      this.#inputEnded = true;
      this.phase = "loggedOut";
      return;
    }
    const [request] = this.sent.answered("login", tagOf(bhs)).slice(-1);
    const transit = (bhs[1]! & 0x80) !== 0;
    const nextStage = bhs[1]! & 0x03;
    const success = bhs[36] === 0;
    demand(request!.bhs.equals(this.#lastLogin!.bhs), "a Login Response out of turn");
    demand(bhs[2] === 0 && bhs[3] === 0, "login version");
    demand(bhs.subarray(8, 14).equals(request!.bhs.subarray(8, 14)), "another ISID");
    demand(success || bhs[36]! <= 3, `login status class ${bhs[36]}`);
    demand(!transit || success, "transit of a refused login");
    demand(!transit || (request!.bhs[1]! & 0x80) !== 0, "transit that was not asked for");
    demand(!transit || nextStage === (request!.bhs[1]! & 0x03), "transit to another stage");
    this.takeStatSn(bhs);
    if (success) this.#heardAgreements(data);
    this.#inputWaits = false;
    if (!success) {
      this.#inputEnded = true;
      this.phase = "loggedOut";
    } else if (transit && nextStage === 3) this.#enterFullFeature(bhs);
    this.#readInput();
  }

  #heardAgreements(data: Buffer): void {
    const pairs = decodeText(data);
    demand(pairs !== undefined, "a login answer that is not key=value");
    for (const [key, value] of pairs!) {
      // The target's own declaration stands, whatever becomes of the initiator's.
      if (value !== "Reject" || !this.#agreed.has(key)) this.#agreed.set(key, value);
    }
  }

  #enterFullFeature(bhs: Buffer): void {
    demand(bhs.readUInt16BE(14) !== 0, "a session without TSIH");
    this.phase = "full";
    this.discovery = this.#offered.get("SessionType") === "Discovery";
    const uses = (key: string) => this.#agreed.get(key) === "CRC32C";
    this.digests = { header: uses("HeaderDigest"), data: uses("DataDigest") };
    this.#input.digests = this.digests;
    this.#output.digests = this.digests;
    this.#declare(this.#offered.get("MaxRecvDataSegmentLength") ?? "", "exactly");
    const agreed = (key: string) => parseNumber(this.#agreed.get(key) ?? "");
    // What the target has not declared it does not take (§13.12).
    this.#input.dataBytesMax = agreed("MaxRecvDataSegmentLength") ?? defaultDataSegmentBytes;
    this.limits.burstBytesMax = agreed("MaxBurstLength") ?? defaultBurstBytes;
    this.limits.outstandingR2tMax = agreed("MaxOutstandingR2T") ?? 1;
    this.#firstCmdSn = this.#lastLogin!.bhs.readUInt32BE(24);
    this.expCmdSn = bhs.readUInt32BE(28);
    this.maxCmdSn = bhs.readUInt32BE(32);
    demand(this.expCmdSn === this.#firstCmdSn, "ExpCmdSN is not the login's CmdSN");
  }
}

type Check = (connection: ConnectionCheck, pdu: WirePdu) => void;

/** The answers of the full feature phase. */
const checks: ReadonlyMap<number, Check> = new Map<number, Check>([
  [answerOpcode.nopIn, nopIn],
  [answerOpcode.scsiResponse, scsiResponse],
  [answerOpcode.taskManagement, managementResponse],
  [answerOpcode.text, textResponse],
  [answerOpcode.dataIn, dataIn],
  [answerOpcode.logout, logoutResponse],
  [answerOpcode.readyToTransfer, readyToTransfer],
  [answerOpcode.asyncMessage, asyncMessage],
  [answerOpcode.reject, reject],
]);

function nopIn(connection: ConnectionCheck, { bhs, data }: WirePdu): void {
  if (tagOf(bhs) === noTag) {
    demand(bhs.readUInt32BE(20) !== noTag, "a ping that cannot be answered");
    connection.peekStatSn(bhs);
    return;
  }
  connection.takeStatSn(bhs);
  demand(bhs.readUInt32BE(20) === noTag, "an echo that asks for one");
  const pings = connection.sent.answered("ping", tagOf(bhs));
  // §11.19: whole, or cut to the initiator's MaxRecvDataSegmentLength, 512 at least (§13.12).
  const echoes = pings.some((ping) => {
    const whole = data.length === ping.data.length;
    const cut = data.length < ping.data.length && data.length >= 512;
    return (whole || cut) && data.equals(ping.data.subarray(0, data.length));
  });
  demand(echoes, "a NOP-In that does not echo its ping");
  demand(data.length <= connection.limits.dataSegmentBytesMax, "NOP-In is too long");
}

function scsiResponse(connection: ConnectionCheck, pdu: WirePdu): void {
  connection.takeStatSn(pdu.bhs);
  taskOf(connection.sent.tasks, pdu).scsiResponse(pdu);
  connection.sent.taskAnswered(tagOf(pdu.bhs));
}

function dataIn(connection: ConnectionCheck, pdu: WirePdu): void {
  if ((pdu.bhs[1]! & 0x01) !== 0) connection.takeStatSn(pdu.bhs);
  const answered = taskOf(connection.sent.tasks, pdu).dataIn(pdu, connection.limits);
  if (answered) connection.sent.taskAnswered(tagOf(pdu.bhs));
}

function readyToTransfer(connection: ConnectionCheck, pdu: WirePdu): void {
  connection.peekStatSn(pdu.bhs);
  taskOf(connection.sent.tasks, pdu).readyToTransfer(pdu, connection.limits);
}

/** RFC 7143 §11.6.1, RFC 7144 §6.2: the response codes. */
const managementAnswers = new Set([0, 1, 2, 3, 4, 5, 6, 7, 255]);

function managementResponse(connection: ConnectionCheck, { bhs }: WirePdu): void {
  connection.takeStatSn(bhs);
  connection.sent.managed(tagOf(bhs), bhs[2] === 0);
  demand(managementAnswers.has(bhs[2]!), `task management response ${bhs[2]}`);
}

function textResponse(connection: ConnectionCheck, { bhs, data }: WirePdu): void {
  connection.takeStatSn(bhs);
  connection.sent.answered("text", tagOf(bhs));
  const final = (bhs[1]! & 0x80) !== 0;
  const continues = (bhs[1]! & 0x40) !== 0;
  demand(!(final && continues), "F and C at once");
  demand(final === (bhs.readUInt32BE(20) === noTag), "transfer tag of a Text Response");
  demand(data.length <= connection.limits.dataSegmentBytesMax, "Text Response is too long");
}

function logoutResponse(connection: ConnectionCheck, { bhs }: WirePdu): void {
  connection.takeStatSn(bhs);
  connection.sent.answered("logout", tagOf(bhs));
  demand(bhs[2]! <= 3, `logout response ${bhs[2]}`);
  if (bhs[2] === 0) connection.phase = "loggedOut";
}

function asyncMessage(connection: ConnectionCheck, { bhs }: WirePdu): void {
  connection.takeStatSn(bhs);
  demand(tagOf(bhs) === noTag, "an Asynchronous Message with a task tag");
  demand(bhs[36]! <= 5, `asynchronous event ${bhs[36]}`);
}

function reject(connection: ConnectionCheck, { bhs, data }: WirePdu): void {
  connection.takeStatSn(bhs);
  demand(tagOf(bhs) === noTag, "a Reject with a task tag");
  demand(bhs[2]! >= 0x02 && bhs[2]! <= 0x0c, `Reject reason ${bhs[2]}`);
  demand(data.length === headerBytes, `a Reject that returns ${data.length} B`);
  connection.sent.rejected(data, bhs[2]!);
}
