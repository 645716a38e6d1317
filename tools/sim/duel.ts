import type { Prng } from "../../brick/prng.ts";
import type { ReserveOut, UnitOutcome } from "../../brick/unit/unit-changes.ts";
import { type NexusId, reservationType } from "../../brick/unit/unit-record.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { sectorBytes } from "../../brick/units.ts";
import { VolumeTask } from "../../brick/volume/volume.ts";
import { choosePlace, type Place, patiently, pause, type Scene } from "./scene.ts";

/**
 * Two initiators that take a volume from each other by PREEMPT AND ABORT, as failover clusters do,
 * and write to it all the while; a third one, never registered, tries as well. Once a preempt is
 * answered nothing of the other one lands any more, and nothing of it is acknowledged before it has
 * registered again.
 */
const reservation = reservationType.writeExclusiveRegistrantsOnly;
export const duelSectors = 24;
const noKey = "0".repeat(16);
/** A change whose outcome is not known may take effect within this. */
const unsureMs = 30_000;

interface Contender {
  readonly number: number;
  readonly key: string;
  /** Counts the times that it has begun to register and preempt: who owned the volume may not now. */
  challenges: number;
  /** Of the last challenge not all is answered. */
  challenging: boolean;
  unsureUntilMs: number;
  /** Preempted for certain, and not registered again since; counts up with each time. */
  fenced: number | null;
}

export interface DuelCounts {
  preempts: number;
  writes: number;
  conflicts: number;
}

export class Duel {
  readonly counts: DuelCounts = { preempts: 0, writes: 0, conflicts: 0 };
  readonly #scene: Scene;
  readonly #volumeName: string;
  readonly #firstSector: number;
  readonly #contenders: readonly [Contender, Contender];
  /** Whether anyone has reserved: from then on somebody always holds it. */
  #reserved = false;
  /** By tag: who writes it. */
  readonly #authors: number[] = [-1];
  #fences = 0;

  constructor(scene: Scene, volumeName: string, firstSector: number) {
    this.#scene = scene;
    this.#volumeName = volumeName;
    this.#firstSector = firstSector;
    this.#contenders = [newContender(1), newContender(2)];
  }

  async contend(prng: Prng, number: 0 | 1): Promise<void> {
    const me = this.#contenders[number];
    const other = this.#contenders[1 - number]!;
    const place = choosePlace(this.#scene, prng, this.#volumeName);
    if (place === null) return;
    if (prng.chance(0.3)) await this.#challenge(prng, place, me, other);
    else await this.#write(prng, place, me);
  }

  async intrude(prng: Prng): Promise<void> {
    const place = choosePlace(this.#scene, prng, this.#volumeName);
    if (place === null) return;
    const reserved = this.#reserved;
    const { result } = this.#begin(prng, place, 0);
    const outcome = await patiently(this.#scene, place.brick, result);
    if (outcome?.ok && reserved) this.#scene.violation("a write of an initiator without a key");
    if (outcome?.ok === false) this.#count(outcome.fault.code);
  }

  /** Some writes at once; they need not be answered before the next thing happens. */
  async #write(prng: Prng, place: Place, me: Contender): Promise<void> {
    const { fenced } = me;
    const writes = Array.from({ length: prng.between(1, 4) }, async () => {
      const { first, tag, result } = this.#begin(prng, place, me.number);
      const outcome = await patiently(this.#scene, place.brick, result);
      if (outcome?.ok) {
        this.counts.writes += 1;
        if (fenced !== null && me.fenced === fenced) {
          this.#scene.violation(`sector ${first}: write ${tag} of a preempted initiator`);
        }
      } else if (outcome !== null) this.#count(outcome.fault.code);
      return outcome;
    });
    if (prng.chance(0.5)) await Promise.all(writes);
  }

  #begin(prng: Prng, { brick, volume }: Place, author: number) {
    const count = prng.between(1, 6);
    const first = prng.between(0, duelSectors - count);
    const tag = this.#authors.push(author) - 1;
    const task = new VolumeTask(nexusOf(author, brick), volume.unit().noticeNext);
    const offsetBytes = (this.#firstSector + first) * sectorBytes;
    const bytes = Buffer.alloc(count * sectorBytes);
    for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32BE(tag, at);
    return { first, count, tag, result: volume.write(offsetBytes, [bytes], task) };
  }

  async #challenge(prng: Prng, place: Place, me: Contender, other: Contender): Promise<void> {
    const ask = async (change: Partial<ReserveOut>): Promise<UnitOutcome | null> => {
      const nexus = nexusOf(me.number, place.brick);
      const changed = place.volume.changeUnit({ ...plain, nexus, key: me.key, ...change });
      const result = await patiently(this.#scene, place.brick, changed);
      if (result?.ok) return result.outcome;
      if (result !== null) this.#scene.fault(result.fault);
      me.unsureUntilMs = this.#nowMs + unsureMs;
      return null;
    };
    const isAlone = () => !other.challenging && !this.#isUnsure(other);
    me.fenced = null;
    me.challenges += 1;
    me.challenging = true;
    const registered = await ask({ action: "registerAndIgnore", key: noKey, actionKey: me.key });
    const { challenges } = other;
    const alone = isAlone();
    const taken = registered === "done" ? await this.#take(ask, other) : null;
    me.challenging = false;
    if (taken !== "done") return;
    this.counts.preempts += 1;
    this.#reserved = true;
    if (!alone || other.challenges !== challenges || !isAlone()) return;
    this.#fences += 1;
    other.fenced = this.#fences;
    await this.#own(prng, me, other, challenges);
  }

  async #take(
    ask: (change: Partial<ReserveOut>) => Promise<UnitOutcome | null>,
    other: Contender,
  ): Promise<UnitOutcome | null> {
    const taken = await ask({ action: "preemptAndAbort", reservation, actionKey: other.key });
    if (taken !== "reservation_conflict" && taken !== "done") return taken;
    // SPC-4 §5.13.11.4.4: preempting one that holds nothing takes its key away, and reserves nothing.
    if (taken === "done" && this.#reserved) return taken;
    // Nobody to preempt, or nobody who held it: the other one has no key, so it holds nothing.
    return ask({ action: "reserve", reservation });
  }

  /** Nothing of the other one lands while the volume is ours. */
  async #own(prng: Prng, me: Contender, other: Contender, challenges: number): Promise<void> {
    const isOurs = () => other.challenges === challenges && !this.#isUnsure(other);
    let before = await this.#readTags(prng);
    for (let round = 0; round < 3 && before !== null; round += 1) {
      const place = choosePlace(this.#scene, prng, this.#volumeName);
      if (place !== null) {
        const { first, count, result } = this.#begin(prng, place, me.number);
        const outcome = await patiently(this.#scene, place.brick, result);
        if (outcome?.ok) before.fill(0, first, first + count);
      }
      await pause(this.#scene, prng.unit() * 1000);
      const now = await this.#readTags(prng);
      if (now === null || !isOurs()) return;
      for (const [sector, tag] of now.entries()) {
        if (this.#authors[tag] === me.number || tag === before[sector]) continue;
        const what = `sector ${sector}: write ${tag} of initiator ${this.#authors[tag]}`;
        this.#scene.violation(`${what} landed after ${me.number}'s preempt was answered`);
      }
      before = now;
    }
  }

  async #readTags(prng: Prng): Promise<number[] | null> {
    const place = choosePlace(this.#scene, prng, this.#volumeName);
    if (place === null) return null;
    const offsetBytes = this.#firstSector * sectorBytes;
    const read = place.volume.read(offsetBytes, duelSectors * sectorBytes);
    const found = await patiently(this.#scene, place.brick, read);
    if (!found?.ok) return null;
    const bytes = Buffer.concat(found.buffers);
    return Array.from({ length: duelSectors }, (_, at) => bytes.readUInt32BE(at * sectorBytes));
  }

  #isUnsure(contender: Contender): boolean {
    return this.#nowMs < contender.unsureUntilMs;
  }

  get #nowMs(): number {
    return this.#scene.cluster.world.clock.nowMs;
  }

  #count(code: string): void {
    if (code === "reservation_conflict") this.counts.conflicts += 1;
  }
}

const plain: Omit<ReserveOut, "nexus" | "key" | "action"> & { action: ReserveOut["action"] } = {
  type: "reserveOut",
  action: "register",
  reservation: null,
  actionKey: noKey,
  // It outlasts a power cut of all bricks, and holds at every portal.
  aptpl: true,
  allTargetPorts: true,
  initiatorPorts: [],
  move: null,
};

function newContender(number: number): Contender {
  const key = String(number).padStart(16, "0");
  return { number, key, challenges: 0, challenging: false, unsureUntilMs: 0, fenced: null };
}

function nexusOf(author: number, brick: BrickNumber): NexusId {
  return {
    initiatorPort: `iqn.2026-11.example:${author},i,0x0000000000a${author}`,
    targetPort: brick,
  };
}
