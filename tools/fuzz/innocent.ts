import type { Prng } from "../../brick/prng.ts";
import { blockBytes } from "../../iscsi/scsi/cdb.ts";
import { sendCommand, sendPing } from "./exchanges.ts";
import { type CommandEnd, Initiator } from "./initiator.ts";
import { demand } from "./violation.ts";

/**
 * A session that does nothing wrong, on a volume of its own: it writes, reads back, and wants
 * every byte right and every command answered soon, whatever the others do to the target.
 */

interface Asked {
  readonly cdb: Buffer;
  /** null: a write. */
  readonly expected: Buffer | null;
  readonly askedTurn: number;
}

const depth = 4;
/** A command of the innocent is answered within this many turns of the event loop. */
const turnsMax = 400;
const spanBlocksMax = 64;

export class Innocent {
  readonly initiator: Initiator;
  readonly #prng: Prng;
  readonly #content: Buffer;
  readonly #asked = new Map<number, Asked>();
  readonly #busy: Uint8Array;
  #turn = 0;
  #attentionTaken = false;
  /** Asks for nothing more. */
  finishing = false;
  reads = 0;
  writes = 0;

  constructor(prng: Prng, targetName: string, sizeBytes: number) {
    this.#prng = prng;
    this.#content = Buffer.alloc(sizeBytes);
    this.#busy = new Uint8Array(sizeBytes / blockBytes);
    this.initiator = new Initiator({
      prng,
      initiatorName: "iqn.2026-11.test:innocent",
      isid: Buffer.from([0x80, 0, 0, 1, 0, 0]),
      targetName,
      offers: [
        ["InitialR2T", "No"],
        ["HeaderDigest", "CRC32C"],
        ["DataDigest", "CRC32C"],
        ["FirstBurstLength", "4096"],
        ["MaxBurstLength", "8192"],
        ["MaxRecvDataSegmentLength", "4096"],
      ],
      tsih: 0,
      chap: null,
    });
    this.initiator.onCommandEnd = (end) => this.#ended(end);
  }

  /** Asks for more, when it may. */
  step(turn: number): void {
    this.#turn = turn;
    for (const [tag, { askedTurn }] of this.#asked) {
      const waited = turn - askedTurn;
      demand(waited <= turnsMax, `the innocent's command ${tag} waits for ${waited} turns`);
    }
    const { initiator } = this;
    demand(initiator.phase !== "over", "the innocent's session has ended");
    if (this.finishing || initiator.phase !== "full" || !initiator.windowOpen) return;
    if (!this.#attentionTaken) this.#takeAttention();
    else if (this.#asked.size < depth) this.#askSomething();
    if (this.#prng.chance(0.05)) sendPing(initiator);
  }

  /** Everything that was asked for has been answered, and rightly. */
  get idle(): boolean {
    return this.#asked.size === 0;
  }

  /** A new nexus finds one unit attention, power on; it is taken before anything counts. */
  #takeAttention(): void {
    if (this.#asked.size > 0) return;
    const cdb = Buffer.alloc(16);
    const command = { name: "TEST UNIT READY", cdb, reads: false, expectedBytes: 0, dataOut: null };
    const tag = sendCommand(this.initiator, command, false);
    this.#asked.set(tag, { cdb, expected: null, askedTurn: this.#turn });
  }

  #askSomething(): void {
    const blocks = this.#prng.between(1, spanBlocksMax);
    const lba = this.#prng.between(0, this.#busy.length - blocks);
    // Overlapping commands have no order: ranges under way are left alone.
    if (this.#busy.subarray(lba, lba + blocks).some((busy) => busy !== 0)) return;
    this.#busy.fill(1, lba, lba + blocks);
    const content = this.#content.subarray(lba * blockBytes, (lba + blocks) * blockBytes);
    const reads = this.#prng.chance(0.5);
    const cdb = Buffer.alloc(16);
    cdb[0] = reads ? 0x88 : 0x8a;
    cdb.writeUInt32BE(lba, 6);
    cdb.writeUInt32BE(blocks, 10);
    if (!reads) {
      content.fill(this.#prng.between(1, 255));
      for (let at = 0; at < content.length; at += blockBytes) {
        content.writeUInt32BE(this.#prng.uint32(), at);
      }
    }
    const dataOut = reads ? null : Buffer.from(content);
    const command = { name: "", cdb, reads, expectedBytes: content.length, dataOut };
    const tag = sendCommand(this.initiator, command, false);
    this.#asked.set(tag, { cdb, expected: reads ? content : null, askedTurn: this.#turn });
  }

  #ended({ tag, status, data, sense }: CommandEnd): void {
    const asked = this.#asked.get(tag);
    demand(asked !== undefined, "the innocent is answered what it has not asked");
    this.#asked.delete(tag);
    const { cdb, expected } = asked!;
    if (cdb[0] === 0) {
      this.#attentionTaken = true;
      demand(status === 2 && sense[12] === 0x29, "the first command of a nexus: 06/29");
      return;
    }
    demand(status === 0, `the innocent's command ends with status ${status}`);
    const lba = cdb.readUInt32BE(6);
    this.#busy.fill(0, lba, lba + cdb.readUInt32BE(10));
    if (expected === null) this.writes += 1;
    else {
      this.reads += 1;
      demand(data.equals(expected), "the innocent reads other bytes than it wrote");
    }
  }
}
