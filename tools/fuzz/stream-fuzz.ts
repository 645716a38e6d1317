import type { Prng } from "../../brick/prng.ts";
import { mutate } from "./mutate.ts";
import { type Digests, type WirePdu, wireBytes } from "./wire.ts";

/** What becomes of an initiator's PDUs on their way to the target. */

export interface Sent {
  readonly chunks: Buffer[];
  readonly headers: Buffer[];
  /** PDUs that were changed, doubled, left out, moved or cut. */
  readonly mutated: number;
}

const keptMax = 16;
/** Logins that never succeed would leave the rest of the target alone. */
const loginTemper = 0.15;
const chunksMax = 12;

export class StreamFuzz {
  readonly #prng: Prng;
  /** The chance that a PDU is mutated. */
  readonly #temper: number;
  /** PDUs of before, to repeat and to take parts from. */
  readonly #kept: WirePdu[] = [];

  constructor(prng: Prng, temper: number) {
    this.#prng = prng;
    this.#temper = temper;
  }

  /** Takes some PDUs off the queue. */
  next(queue: WirePdu[], digests: Digests, login: boolean): Sent {
    const prng = this.#prng;
    const taken = queue.splice(0, login ? 1 : prng.pick([1, 1, 2, 4, 16]));
    const temper = login ? this.#temper * loginTemper : this.#temper;
    let mutated = temper > 0 ? this.#reorder(taken, temper) : 0;
    const headers: Buffer[] = [];
    const parts: Buffer[] = [];
    for (const pdu of taken) {
      this.#keep(pdu);
      if (!prng.chance(temper)) {
        headers.push(pdu.bhs);
        parts.push(wireBytes(pdu, digests, null));
        continue;
      }
      mutated += 1;
      const { bhs, bytes } = this.#mutated(pdu, digests);
      headers.push(bhs);
      parts.push(bytes);
    }
    return { chunks: this.#split(Buffer.concat(parts)), headers, mutated };
  }

  #keep(pdu: WirePdu): void {
    if (this.#kept.length < keptMax) this.#kept.push(pdu);
    else this.#kept[this.#prng.between(0, keptMax - 1)] = pdu;
  }

  #mutated(pdu: WirePdu, digests: Digests): { bhs: Buffer; bytes: Buffer } {
    const prng = this.#prng;
    if (prng.chance(0.03) && (digests.header || digests.data)) {
      const wrong = prng.chance(0.5) ? "header" : "data";
      return { bhs: pdu.bhs, bytes: wireBytes(pdu, digests, wrong) };
    }
    const changed = mutate(pdu, prng, prng.pick(this.#kept));
    const bytes = wireBytes(changed, digests, null);
    if (prng.chance(0.02)) {
      // Bytes left out or doubled: everything behind is out of step.
      const at = prng.between(0, bytes.length);
      const end = prng.chance(0.5) ? bytes.subarray(at) : bytes.subarray(Math.floor(at / 2));
      return { bhs: changed.bhs, bytes: Buffer.concat([bytes.subarray(0, at >> 1), end]) };
    }
    return { bhs: changed.bhs, bytes };
  }

  /** Doubles, swaps, drops and repeats whole PDUs; returns how many. */
  #reorder(taken: WirePdu[], temper: number): number {
    const prng = this.#prng;
    if (taken.length === 0 || !prng.chance(temper * 0.4)) return 0;
    const at = prng.between(0, taken.length - 1);
    switch (prng.between(0, 3)) {
      case 0:
        taken.splice(at, 0, taken[at]!);
        return 1;
      case 1:
        taken.splice(at, 1);
        return 1;
      case 2:
        taken.push(taken.shift()!);
        return 1;
      default:
        if (this.#kept.length === 0) return 0;
        taken.splice(at, 0, prng.pick(this.#kept));
        return 1;
    }
  }

  /** Cuts the stream anywhere; each chunk is a buffer of its own, as from a socket. */
  #split(bytes: Buffer): Buffer[] {
    if (bytes.length === 0) return [];
    const prng = this.#prng;
    const cuts = [0, bytes.length];
    if (prng.chance(0.4)) {
      const count = prng.between(1, chunksMax);
      for (let cut = 0; cut < count; cut += 1) cuts.push(prng.between(0, bytes.length));
      cuts.sort((a, b) => a - b);
    }
    const chunks: Buffer[] = [];
    for (let index = 1; index < cuts.length; index += 1) {
      if (cuts[index]! > cuts[index - 1]!) {
        chunks.push(Buffer.from(bytes.subarray(cuts[index - 1], cuts[index])));
      }
    }
    return chunks;
  }
}
