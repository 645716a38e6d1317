import assert from "node:assert/strict";
import type { Clock, TimerHandle } from "../brick/host.ts";
import { Prng } from "../brick/prng.ts";
import type { VolumeDirectory } from "../brick/volume/volume.ts";
import { TestAuthority } from "./authority.test-double.ts";
import { connectionLost, openConnection, receiveChunk } from "./connection.ts";
import { followAuthority } from "./follow-authority.ts";
import { MemoryVolume, memoryDirectory } from "./memory-volume.test-double.ts";
import { makeNode } from "./node.ts";
import { Outbox } from "./outbox.ts";
import {
  common,
  dataIn,
  decode,
  type Field,
  type Layout,
  layouts,
  loginRequest,
  loginResponse,
  nopOut,
  noTag,
  scsiCommand,
  scsiResponse,
  type Values,
} from "./pdu.ts";
import { type Pdu, PduStream } from "./pdu-stream.ts";
import type { Connection, TargetMetrics, TargetNode } from "./session-state.ts";
import { decodeText, encodeText, type TextPair } from "./text-keys.ts";

/** An initiator for tests: it speaks to the target's decisions directly, without a socket. */

export class ManualClock implements Clock {
  ms = 0;
  #due: { atMs: number; action: () => void }[] = [];

  nowMs(): number {
    return this.ms;
  }

  wallMs(): number {
    return this.ms;
  }

  after(delayMs: number, action: () => void): TimerHandle {
    const timer = { atMs: this.ms + delayMs, action };
    this.#due.push(timer);
    return {
      cancel: () => {
        this.#due = this.#due.filter((other) => other !== timer);
      },
    };
  }

  soon(action: () => void): void {
    setImmediate(action);
  }

  /** Lets time pass, and runs what was due by then. */
  advance(ms: number): void {
    this.ms += ms;
    const due = this.#due.filter((timer) => timer.atMs <= this.ms);
    this.#due = this.#due.filter((timer) => timer.atMs > this.ms);
    for (const timer of due) timer.action();
  }
}

export type TestNode = TargetNode & { clock: ManualClock; authority: TestAuthority };

export function testNode(
  directory: VolumeDirectory,
  metrics: TargetMetrics | null = null,
): TestNode {
  const clock = new ManualClock();
  const prng = new Prng(1);
  const node = makeNode({
    directory,
    authority: new TestAuthority(directory),
    portalGroupTag: 7,
    announce: "192.0.2.1:3260",
    clock,
    log: () => {},
    metrics,
    secretBytes: (lengthBytes) => prng.fill(Buffer.alloc(lengthBytes)),
  });
  followAuthority(node);
  return node as TestNode;
}

/** A received PDU with its header decoded by the layout of its opcode. */
export interface Answer {
  opcode: number;
  // biome-ignore lint/suspicious/noExplicitAny: tests read the fields of many layouts
  values: any;
  data: Buffer;
}

export class TestInitiator {
  readonly connection: Connection;
  readonly #outbox = new Outbox();
  readonly #stream = new PduStream();
  cmdSn = 100;
  #tag = 0;
  closed = false;

  constructor(node: TargetNode, address = "192.0.2.9") {
    this.#stream.dataBytesMax = 0xff_ffff;
    this.connection = openConnection(node, { address, port: 40_000 }, () => {});
  }

  /** Sends raw bytes; what the target owes is kept for `take`. */
  receiveBytes(bytes: Buffer): void {
    receiveChunk(this.connection, bytes);
  }

  // biome-ignore lint/suspicious/noExplicitAny: a table's fields differ in type
  send<F extends Record<string, Field<any>>>(
    layout: Layout<F>,
    values: Partial<Values<F>>,
    data: Buffer = Buffer.alloc(0),
  ): void {
    receiveChunk(this.connection, this.encode(layout, values, data));
  }

  /** The bytes of a PDU, digests included. */
  // biome-ignore lint/suspicious/noExplicitAny: a table's fields differ in type
  encode<F extends Record<string, Field<any>>>(
    layout: Layout<F>,
    values: Partial<Values<F>>,
    data: Buffer = Buffer.alloc(0),
  ): Buffer {
    this.#outbox.pdu(layout, values, [data], data.length);
    return Buffer.concat(this.#outbox.take());
  }

  /** Everything the target has sent since the last call. */
  take(): Answer[] {
    const answers: Answer[] = [];
    const { outbox } = this.connection;
    this.#stream.push(Buffer.concat(outbox.take()));
    for (const sent of outbox.takeWhenSent()) sent();
    for (;;) {
      const event = this.#stream.next();
      if (event === null) return answers;
      assert(event.ok, "the target sent a PDU that cannot be parsed");
      answers.push(toAnswer(event.pdu));
    }
  }

  takeOne(layout: { opcode: number }): Answer {
    const answers = this.take();
    assert.equal(answers.length, 1, `PDUs ${answers.map((one) => one.opcode)}`);
    assert.equal(answers[0]!.opcode, layout.opcode);
    return answers[0]!;
  }

  /** Login in one request, as most initiators do. */
  login(options: {
    target: string;
    name?: string;
    isid?: number;
    keys?: readonly TextPair[];
    tsih?: number;
  }): Answer {
    const name = options.name ?? "iqn.2026-11.test:initiator";
    const pairs: TextPair[] = [
      ["InitiatorName", name],
      options.target === "" ? ["SessionType", "Discovery"] : ["TargetName", options.target],
      ...(options.keys ?? [["InitialR2T", "No"]]),
    ];
    this.sendLogin(pairs, {
      transit: true,
      currentStage: 1,
      nextStage: 3,
      isid: Buffer.from([0x80, 0, 0, 0, 0, options.isid ?? 1]),
      tsih: options.tsih ?? 0,
    });
    const answers = this.take();
    if (answers.length === 0) return { opcode: -1, values: {}, data: Buffer.alloc(0) };
    assert.equal(answers[0]!.opcode, loginResponse.opcode);
    const { session } = this.connection;
    if (session !== null) {
      const { headerDigest, dataDigest } = session.parameters;
      Object.assign(this.#outbox, { headerDigest, dataDigest });
      Object.assign(this.#stream, { headerDigest, dataDigest });
    }
    return answers[0]!;
  }

  sendLogin(pairs: readonly TextPair[], values: Partial<Values<typeof loginRequest.fields>>): void {
    const fixed = { immediate: true, initiatorTaskTag: 1, cmdSn: this.cmdSn, connectionId: 3 };
    this.send(loginRequest, { ...fixed, ...values }, encodeText(pairs));
  }

  /** Sends a command and returns its tag. */
  command(
    cdb: Buffer,
    options: Partial<Values<typeof scsiCommand.fields>> = {},
    data: Buffer = Buffer.alloc(0),
  ): number {
    this.#tag += 1;
    const padded = Buffer.alloc(16);
    cdb.copy(padded);
    const values = {
      initiatorTaskTag: this.#tag,
      final: true,
      attribute: 1,
      cmdSn: this.cmdSn,
      cdb: padded,
      ...options,
    };
    if (options.immediate !== true && options.cmdSn === undefined) this.cmdSn += 1;
    this.send(scsiCommand, values, data);
    return this.#tag;
  }

  /** Sends a command that reads, and collects its data and status. */
  async read(cdb: Buffer, expectedLength: number): Promise<CommandOutcome> {
    this.command(cdb, { read: true, expectedLength });
    return this.outcome();
  }

  async write(cdb: Buffer, data: Buffer): Promise<CommandOutcome> {
    this.command(cdb, { write: true, expectedLength: data.length }, data);
    return this.outcome();
  }

  async outcome(): Promise<CommandOutcome> {
    await settled();
    const data: Buffer[] = [];
    for (const answer of this.take()) {
      if (answer.opcode === dataIn.opcode) {
        data.push(answer.data);
        if (answer.values.hasStatus) {
          return { status: answer.values.status, data: Buffer.concat(data), sense: null, answer };
        }
      } else if (answer.opcode === scsiResponse.opcode) {
        const { status } = answer.values;
        const sense = answer.data.length > 0 ? answer.data.subarray(2) : null;
        return { status, data: Buffer.concat(data), sense, answer };
      } else {
        assert.fail(`unexpected PDU ${answer.opcode}`);
      }
    }
    return assert.fail("the command was not answered");
  }

  /** Clears the unit attention that a new nexus finds. */
  async clearAttention(): Promise<void> {
    const { sense } = await this.read(Buffer.alloc(6), 0);
    assert.equal(senseText(sense), "6/29/00");
  }

  ping(data: Buffer): void {
    this.send(
      nopOut,
      { immediate: true, initiatorTaskTag: 0x77, targetTransferTag: noTag, cmdSn: this.cmdSn },
      data,
    );
  }

  lose(): void {
    connectionLost(this.connection);
  }
}

export interface CommandOutcome {
  status: number;
  data: Buffer;
  sense: Buffer | null;
  answer: Answer;
}

function toAnswer(pdu: Pdu): Answer {
  const opcode = common.opcode.get(pdu.bhs);
  const layout = Object.values(layouts).find((one) => one.opcode === opcode);
  assert(layout !== undefined, `unknown opcode ${opcode}`);
  const values = decode(layout as Layout, Buffer.from(pdu.bhs));
  return { opcode, values, data: Buffer.concat(pdu.data) };
}

export function textOf(answer: Answer): Map<string, string> {
  return new Map(decodeText(answer.data));
}

/** "key/asc/ascq" of fixed-format sense data. */
export function senseText(sense: Buffer | null): string {
  if (sense === null) return "none";
  const hex = (byte: number) => byte.toString(16).padStart(2, "0");
  return `${(sense[2]! & 0xf).toString(16)}/${hex(sense[12]!)}/${hex(sense[13]!)}`;
}

/** Lets everything that is ready run. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export const target = "iqn.2026-11.endisk:disk";
export const testUnitReady = Buffer.alloc(6);

export function write10(lba: number, blocks: number): Buffer {
  return blockCommand(0x2a, lba, blocks);
}

export function read10(lba: number, blocks: number): Buffer {
  return blockCommand(0x28, lba, blocks);
}

export function blockCommand(opcode: number, lba: number, blocks: number): Buffer {
  const cdb = Buffer.alloc(10);
  cdb[0] = opcode;
  cdb.writeUInt32BE(lba, 2);
  cdb.writeUInt16BE(blocks, 7);
  return cdb;
}

export function pattern(length: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, at) => (at * 7 + (at >> 9)) & 0xff));
}

/** A session with one disk of its own, its first unit attention taken. */
export async function attach(keys?: TextPair[], sizeBytes = 4 << 20) {
  const volume = new MemoryVolume("disk", sizeBytes);
  const node = testNode(memoryDirectory([volume]));
  const initiator = new TestInitiator(node);
  initiator.login(keys === undefined ? { target } : { target, keys });
  await initiator.clearAttention();
  return { volume, node, initiator };
}
