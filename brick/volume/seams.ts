import { grainsPerShardRun, shardOf } from "../cluster-state.ts";
import { type GroupPart, groupPartsMax } from "../map/group.ts";
import type { MapLookupReply } from "../map/map-messages.ts";
import { grainBytes } from "../units.ts";
import type { StoreHandle } from "./chunk-writer.ts";
import type { Gateway } from "./gateway.ts";
import { Lookup, MapOperation, type MapOutcome, type ShardLink } from "./shard-link.ts";
import { type Piece, runOf } from "./split.ts";

/** A shard that could not take what it is owed is asked again after this. */
const retryMs = 200;

interface Range {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/**
 * What one shard was given for another one, on its way there. It cannot fail while the attachment
 * lasts: the first shard has landed the whole group already.
 *
 *     guarding ──its chunks are kept──▶ paying ──the other shard has it──▶ clearing ──▶ paid
 *         ▲                               │
 *         └──────no space, too old────────┘
 */
class Payment {
  readonly owing: ShardLink;
  readonly parts: readonly GroupPart[];
  readonly paid: (whole: boolean) => void;
  guards: StoreHandle[] = [];

  constructor(owing: ShardLink, parts: readonly GroupPart[], paid: (whole: boolean) => void) {
    this.owing = owing;
    this.parts = parts;
    this.paid = paid;
  }
}

/**
 * Where a run of one shard ends and a run of another begins. A write across that lands at the first
 * shard, whole, and what is the other one's is brought there before the write is answered. A gateway
 * may die in between: so before a new one uses the beginning of a run, it asks the shard of the run
 * before what that still owes.
 */
export class Seams {
  readonly #gateway: Gateway;
  /** Shards that owe nothing of older attachments. */
  readonly #clear = new Set<number>();
  /** Who waits for a shard to be that. */
  readonly #waiting = new Map<number, (() => void)[]>();
  readonly #payments = new Set<Payment>();

  constructor(gateway: Gateway) {
    this.#gateway = gateway;
  }

  /** Runs the action once nothing is owed to these ranges (mostly at once), or the attachment has ended. */
  whenClear(ranges: readonly Range[], action: () => void): void {
    const shards = this.#owingTo(ranges);
    if (shards === null) {
      action();
      return;
    }
    let waiting = shards.size;
    const ready = () => {
      waiting -= 1;
      if (waiting === 0) action();
    };
    for (const shard of shards) this.#whenShardClear(shard, ready);
  }

  /** Of a group, what the shard of its first grain keeps for another one is marked as owed. */
  marked(parts: readonly GroupPart[]): readonly GroupPart[] {
    const shard = this.#shardOf(parts[0]!.grain);
    return parts.map((part) => ({ ...part, owed: this.#shardOf(part.grain) !== shard }));
  }

  /** Brings what `owing` has landed for another shard there; false: the attachment has ended. */
  pay(owing: ShardLink, parts: readonly GroupPart[], paid: (whole: boolean) => void): void {
    const payment = new Payment(owing, parts, paid);
    this.#payments.add(payment);
    this.#guard(payment);
  }

  end(): void {
    for (const shard of [...this.#waiting.keys()]) this.#wake(shard);
    for (const payment of [...this.#payments]) this.#ended(payment, false);
  }

  #shardOf(grain: number): number {
    return shardOf(this.#gateway.state(), this.#gateway.volume().family, grain);
  }

  /** The shards, not known to be clear, of the runs before those whose beginnings are touched. */
  #owingTo(ranges: readonly Range[]): Set<number> | null {
    let shards: Set<number> | null = null;
    const shardCount = this.#gateway.state().shards.length;
    for (const { offsetBytes, lengthBytes } of ranges) {
      const firstGrain = Math.floor(offsetBytes / grainBytes);
      const endRun = runOf(Math.ceil((offsetBytes + lengthBytes) / grainBytes) - 1) + 1;
      const inBeginning = firstGrain % grainsPerShardRun < groupPartsMax;
      const firstRun = Math.max(1, runOf(firstGrain) + (inBeginning ? 0 : 1));
      // Consecutive runs go round the shards.
      for (let run = firstRun; run < Math.min(endRun, firstRun + shardCount); run += 1) {
        const shard = this.#shardOf((run - 1) * grainsPerShardRun);
        if (shardCount > 1 && !this.#clear.has(shard)) (shards ??= new Set()).add(shard);
      }
    }
    return shards;
  }

  #whenShardClear(shard: number, action: () => void): void {
    const waiting = this.#waiting.get(shard);
    if (waiting !== undefined) {
      waiting.push(action);
      return;
    }
    this.#waiting.set(shard, [action]);
    this.#ask(shard);
  }

  #ask(shard: number): void {
    const link = this.#gateway.linkTo(shard);
    const wanted = () => !this.#gateway.isEnded();
    const done = (reply: MapLookupReply | null) => {
      if (reply === null) {
        this.#wake(shard);
        return;
      }
      const parts = owedParts(reply);
      if (parts.length > 0) {
        this.pay(link, parts, (whole) => {
          if (whole) this.#ask(shard);
        });
        return;
      }
      this.#clear.add(shard);
      this.#wake(shard);
    };
    link.lookup(new Lookup(0, groupPartsMax, wanted, done, true));
  }

  #wake(shard: number): void {
    const waiting = this.#waiting.get(shard) ?? [];
    this.#waiting.delete(shard);
    for (const action of waiting) action();
  }

  /**
   * The map of the owing shard names the chunks; they must stay until the other one does too. The guard
   * is for the reference of the other one alone, which is refused as too old once two epochs have passed
   * and then guards anew: however long they are owed, each epoch marks them like all that a shard's map
   * names, under the volume that they are of (docs/garbage.md; tools/sim/rules/garbage.test.ts).
   */
  #guard(payment: Payment): void {
    const chunks = new Map<GroupPart, GroupPart>();
    let gcEpoch = Number.POSITIVE_INFINITY;
    payment.guards = payment.parts.map((part) =>
      this.#gateway.writer.guard(part.key!, part.holders, (guarded) => {
        chunks.set(part, { ...part, holders: guarded.holders, owed: false });
        gcEpoch = Math.min(gcEpoch, guarded.gcEpoch);
        if (chunks.size < payment.parts.length) return;
        const parts = payment.parts.map((one) => chunks.get(one)!);
        this.#bring(payment, parts, gcEpoch);
      }),
    );
  }

  #bring(payment: Payment, parts: readonly GroupPart[], gcEpoch: number): void {
    const { grain } = parts[0]!;
    this.#submit(payment, this.#gateway.linkOf(grain), parts, gcEpoch, () =>
      this.#clearUp(payment),
    );
  }

  #clearUp(payment: Payment): void {
    const nothing = { chunkSector: 0, key: null, holders: [], keyDomain: undefined };
    const parts = payment.parts.map((part) => {
      return { ...part, ...nothing, chunkSectors: part.sectorCount, owed: true };
    });
    this.#submit(payment, payment.owing, parts, 0, () => this.#ended(payment, true));
  }

  #submit(
    payment: Payment,
    link: ShardLink,
    parts: readonly GroupPart[],
    gcEpoch: number,
    landed: () => void,
  ): void {
    const settled = (outcome: MapOutcome) => {
      if (!this.#payments.has(payment)) return;
      if (outcome.code === "done") landed();
      else if (outcome.code === "ended") this.#ended(payment, false);
      else {
        this.#gateway.context.host.clock.after(retryMs, () => {
          if (this.#payments.has(payment)) this.#guard(payment);
        });
      }
    };
    const chunks = { key: null, holders: [], inline: null, gcEpoch, parts };
    link.submit(new MapOperation(pieceOf(parts), chunks, settled));
  }

  #ended(payment: Payment, whole: boolean): void {
    this.#payments.delete(payment);
    for (const guard of payment.guards) guard.abandon();
    payment.paid(whole);
  }
}

/** One extent of each grain; the rest is asked for again. */
function owedParts(reply: MapLookupReply): GroupPart[] {
  return [...reply.grains].map(([grain, extents]) => {
    return { grain, grainCount: 0, ...extents[0]!, owed: true };
  });
}

function pieceOf(parts: readonly GroupPart[]): Piece {
  const { grain } = parts[0]!;
  return { grain, grainCount: 0, firstSector: 0, sectorCount: 0, data: null, lengthBytes: 0 };
}
