import type { Prng } from "../../brick/prng.ts";
import {
  dataOut as dataOutLayout,
  encode,
  type Field,
  type Layout,
  loginRequest,
  nopOut,
  textRequest,
  type Values,
} from "../../iscsi/pdu.ts";
import { serialAdd } from "../../iscsi/serial32.ts";
import { decodeText, encodeText, parseNumber, type TextPair } from "../../iscsi/text-keys.ts";
import { type ChapProof, chapPairs } from "./chap-proof.ts";
import { setData } from "./mutate.ts";
import { answerOpcode, headerBytes, noTag, opcodeOf, tagOf, type WirePdu } from "./wire.ts";

/**
 * The legal half of every initiator of the fuzzer: it logs in, numbers its requests, sends the
 * data that it is asked for, answers pings, and notes what has come of its commands. What others
 * make of its PDUs on the way is not its business.
 */

export interface InitiatorOptions {
  readonly prng: Prng;
  readonly initiatorName: string;
  readonly isid: Buffer;
  /** Empty: a discovery session. */
  readonly targetName: string;
  /** Offers of the operational stage. */
  readonly offers: readonly TextPair[];
  readonly tsih: number;
  /** null: it says that it need not prove anything. */
  readonly chap: ChapProof | null;
}

/** How the login goes, one Login Request an entry. */
interface LoginPart {
  readonly currentStage: number;
  /** null: no transit. */
  readonly nextStage: number | null;
  readonly continues: boolean;
  /** "response": to the challenge in the last answer. */
  readonly text: Buffer | "response";
}

export interface CommandEnd {
  readonly tag: number;
  readonly status: number;
  readonly data: Buffer;
  readonly sense: Buffer;
}

/** Sent in one PDU while the target has not said what it takes (RFC 7143 §13.12). */
const defaultSegmentBytes = 8192;
const defaultFirstBurstBytes = 65_536;
const defaultBurstBytes = 262_144;

export class Initiator {
  readonly prng: Prng;
  readonly options: InitiatorOptions;
  /** PDUs that are ready to be sent, in order. */
  readonly queue: WirePdu[] = [];
  phase: "login" | "full" | "over" = "login";
  cmdSn: number;
  expCmdSn = 0;
  maxCmdSn = 0;
  expStatSn = 0;
  initialR2t = true;
  immediateData = true;
  firstBurstBytes = defaultFirstBurstBytes;
  burstBytes = defaultBurstBytes;
  segmentBytesMax = defaultSegmentBytes;
  /** Task tags of commands without an answer, and the data that they write. */
  readonly writes = new Map<number, Buffer>();
  readonly commands = new Map<number, Buffer[]>();
  /** What is left of a text that is sent in parts. */
  textRest: Buffer = Buffer.alloc(0);
  onCommandEnd: (end: CommandEnd) => void = () => {};
  readonly #login: LoginPart[];
  #tag: number;
  /** Of the last Login Response. */
  #lastText: ReadonlyMap<string, string> = new Map();

  constructor(options: InitiatorOptions) {
    this.options = options;
    this.prng = options.prng;
    this.cmdSn = this.prng.chance(0.2) ? 0xffff_fff0 : this.prng.uint32();
    this.#tag = this.prng.between(1, 1000);
    this.#login = loginParts(options);
    this.#sendLogin();
  }

  nextTag(): number {
    this.#tag = serialAdd(this.#tag, 1);
    if (this.#tag === noTag) this.#tag = 1;
    return this.#tag;
  }

  // biome-ignore lint/suspicious/noExplicitAny: a table's fields differ in type
  send<F extends Record<string, Field<any>>>(
    layout: Layout<F>,
    values: Partial<Values<F>>,
    data: Buffer = Buffer.alloc(0),
  ): void {
    const pdu: WirePdu = { bhs: Buffer.alloc(headerBytes), ahs: Buffer.alloc(0), data };
    encode(layout, values, pdu.bhs);
    setData(pdu, data);
    this.queue.push(pdu);
  }

  /** The numbers of the next request; an immediate one does not use a CmdSN up. */
  numbers(immediate: boolean): { immediate: boolean; cmdSn: number; expStatSn: number } {
    const { cmdSn, expStatSn } = this;
    if (!immediate) this.cmdSn = serialAdd(cmdSn, 1);
    return { immediate, cmdSn, expStatSn };
  }

  /** Whether the command window has room (§4.2.2.1). */
  get windowOpen(): boolean {
    return (this.maxCmdSn - this.cmdSn) >>> 0 < 0x8000_0000;
  }

  #sendLogin(): void {
    const part = this.#login.shift();
    if (part === undefined) return;
    const values = {
      initiatorTaskTag: 0x1091,
      immediate: true,
      transit: part.nextStage !== null,
      continue: part.continues,
      currentStage: part.currentStage,
      nextStage: part.nextStage ?? 0,
      isid: this.options.isid,
      tsih: this.options.tsih,
      connectionId: 1,
      cmdSn: this.cmdSn,
      expStatSn: this.expStatSn,
    };
    const { chap } = this.options;
    const text =
      part.text === "response"
        ? encodeText(chapPairs(chap!, this.#lastText, this.prng))
        : part.text;
    this.send(loginRequest, values, text);
  }

  /** A PDU of the target, in order. */
  hear(pdu: WirePdu): void {
    const { bhs } = pdu;
    const opcode = opcodeOf(bhs);
    if (opcode === answerOpcode.login) {
      this.#hearLogin(pdu);
      return;
    }
    this.expCmdSn = bhs.readUInt32BE(28);
    this.maxCmdSn = bhs.readUInt32BE(32);
    const tag = tagOf(bhs);
    if (opcode === answerOpcode.nopIn && tag === noTag) this.#answerPing(bhs);
    else if (opcode === answerOpcode.readyToTransfer) this.#sendAsked(bhs);
    else if (opcode === answerOpcode.text && bhs.readUInt32BE(20) !== noTag) this.#askForMore(bhs);
    else if (opcode === answerOpcode.logout && bhs[2] === 0) this.phase = "over";
    else if (opcode === answerOpcode.dataIn) {
      this.commands.get(tag)?.push(pdu.data);
      if ((bhs[1]! & 1) !== 0) this.#commandEnds(tag, bhs[3]!, Buffer.alloc(0));
    } else if (opcode === answerOpcode.scsiResponse) {
      this.#commandEnds(tag, bhs[3]!, pdu.data.subarray(2));
    }
  }

  #hearLogin({ bhs, data }: WirePdu): void {
    this.expStatSn = serialAdd(bhs.readUInt32BE(24), 1);
    if (bhs[36] !== 0) {
      this.phase = "over";
      return;
    }
    this.#lastText = new Map(decodeText(data));
    for (const [key, value] of this.#lastText) this.#agree(key, value);
    if ((bhs[1]! & 0x83) === 0x83) {
      this.phase = "full";
      this.expCmdSn = bhs.readUInt32BE(28);
      this.maxCmdSn = bhs.readUInt32BE(32);
    } else this.#sendLogin();
  }

  #agree(key: string, value: string): void {
    const number = parseNumber(value);
    if (key === "InitialR2T") this.initialR2t = value === "Yes";
    else if (key === "ImmediateData") this.immediateData = value === "Yes";
    // "Reject" and the like leave things as they were.
    if (number === undefined) return;
    if (key === "FirstBurstLength") this.firstBurstBytes = number;
    else if (key === "MaxRecvDataSegmentLength") this.segmentBytesMax = number;
    if (key === "MaxBurstLength") this.burstBytes = number;
    // §13.14: FirstBurstLength must not exceed MaxBurstLength.
    this.firstBurstBytes = Math.min(this.firstBurstBytes, this.burstBytes);
  }

  #answerPing(bhs: Buffer): void {
    const targetTransferTag = bhs.readUInt32BE(20);
    const numbers = this.numbers(true);
    this.send(nopOut, { initiatorTaskTag: noTag, targetTransferTag, ...numbers });
  }

  #askForMore(bhs: Buffer): void {
    const targetTransferTag = bhs.readUInt32BE(20);
    const initiatorTaskTag = tagOf(bhs);
    const numbers = this.numbers(true);
    const values = { initiatorTaskTag, targetTransferTag, final: true, ...numbers };
    this.send(textRequest, values, this.textRest);
    this.textRest = Buffer.alloc(0);
  }

  #sendAsked(bhs: Buffer): void {
    const tag = tagOf(bhs);
    const data = this.writes.get(tag);
    if (data === undefined) return;
    const offset = bhs.readUInt32BE(40);
    this.sendData(tag, bhs.readUInt32BE(20), offset, offset + bhs.readUInt32BE(44), data);
  }

  /** One sequence of Data-Out, in PDUs of random sizes. */
  sendData(tag: number, targetTransferTag: number, from: number, to: number, data: Buffer): void {
    const pieceBytes = Math.min(this.segmentBytesMax, this.prng.pick([512, 4096, 65_536, 2 ** 20]));
    let dataSn = 0;
    for (let at = from; at < to; dataSn += 1) {
      // The last of many small ones takes the rest, so that no write is thousands of PDUs long.
      const rest = Math.min(to - at, this.segmentBytesMax);
      const length = dataSn < 16 ? Math.min(pieceBytes, to - at) : rest;
      const values = {
        initiatorTaskTag: tag,
        targetTransferTag,
        final: at + length === to,
        expStatSn: this.expStatSn,
        dataSn,
        bufferOffset: at,
      };
      this.send(dataOutLayout, values, data.subarray(at, at + length));
      at += length;
    }
  }

  #commandEnds(tag: number, status: number, sense: Buffer): void {
    const data = this.commands.get(tag);
    if (data === undefined) return;
    this.commands.delete(tag);
    this.writes.delete(tag);
    this.onCommandEnd({ tag, status, data: Buffer.concat(data), sense });
  }
}

const security = 0;
const operational = 1;
const full = 3;

/** One of the ways in which initiators log in: in one request or in several, in parts (C bit). */
function loginParts(options: InitiatorOptions): LoginPart[] {
  const { prng, initiatorName, targetName, offers, chap } = options;
  const who: TextPair[] = [
    ["InitiatorName", initiatorName],
    ...(prng.chance(0.3) ? ([["InitiatorAlias", "fuzz"]] as TextPair[]) : []),
    targetName === "" ? ["SessionType", "Discovery"] : ["TargetName", targetName],
  ];
  if (chap !== null) return chapLogin(prng, who, offers);
  const none: TextPair = ["AuthMethod", prng.pick(["None", "CHAP,None", "None,KRB5"])];
  switch (prng.between(0, 4)) {
    case 0:
      return [part(security, full, [...who, none])];
    case 1:
      return [part(security, operational, [...who, none]), part(operational, full, offers)];
    case 2: {
      const middle = Math.floor(offers.length / 2);
      return [
        part(operational, null, [...who, ...offers.slice(0, middle)]),
        part(operational, full, offers.slice(middle)),
      ];
    }
    case 3: {
      const text = encodeText([...who, ...offers]);
      const cut = prng.between(1, text.length - 1);
      const first = { currentStage: 1, nextStage: null, continues: true };
      const rest = { currentStage: 1, nextStage: full, continues: false };
      return [
        { ...first, text: text.subarray(0, cut) },
        { ...rest, text: text.subarray(cut) },
      ];
    }
    default:
      return [part(operational, full, [...who, ...offers])];
  }
}

/** RFC 7143 §12.1.3: AuthMethod, CHAP_A, then the response; the last two may come together. */
function chapLogin(prng: Prng, who: readonly TextPair[], offers: readonly TextPair[]): LoginPart[] {
  const method: TextPair = ["AuthMethod", prng.pick(["CHAP", "CHAP,None", "KRB5,CHAP"])];
  const algorithms: TextPair = ["CHAP_A", prng.pick(["7", "8,7,6,5", "5,7"])];
  const begin = prng.chance(0.5)
    ? [part(security, null, [...who, method]), part(security, null, [algorithms])]
    : [part(security, null, [...who, method, algorithms])];
  const response = { currentStage: security, continues: false, text: "response" } as const;
  if (prng.chance(0.2)) return [...begin, { ...response, nextStage: full }];
  return [...begin, { ...response, nextStage: operational }, part(operational, full, offers)];
}

function part(
  currentStage: number,
  nextStage: number | null,
  pairs: readonly TextPair[],
): LoginPart {
  return { currentStage, nextStage, continues: false, text: encodeText(pairs) };
}
