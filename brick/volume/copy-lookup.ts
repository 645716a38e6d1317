import { shardOf, type VolumeRecord } from "../cluster-state.ts";
import type { MapLookupReply } from "../map/map-messages.ts";
import type { CopyLookup } from "./copy-pieces.ts";
import type { Gateway } from "./gateway.ts";
import type { Operation } from "./operation.ts";
import { Lookup, ShardLink } from "./shard-link.ts";
import { sourceRefusal } from "./unit-check.ts";
import type { VolumeFault } from "./volume.ts";

/** A look-up that a newer attachment of the source has refused is made again after this. */
const againMs = 20;

/** Of the gateway's own volume: by its own links to the shards, as its writes go. */
export class OwnLookup implements CopyLookup {
  readonly #gateway: Gateway;

  constructor(gateway: Gateway) {
    this.#gateway = gateway;
  }

  /** The command itself was judged when it began, and whoever may write may read. */
  refusal(): VolumeFault | null {
    return null;
  }

  look(
    firstGrain: number,
    grainCount: number,
    wanted: () => boolean,
    done: (reply: MapLookupReply | null) => void,
  ): void {
    this.#gateway.linkOf(firstGrain).lookup(new Lookup(firstGrain, grainCount, wanted, done));
  }

  end(): void {}
}

/**
 * Of another volume, whoever serves it: look-ups go by branch. They are made under the epoch of its
 * present attachment, and fence the shard for that first, as its gateway would: so nothing of an
 * older one can land after it was looked up. Everything acknowledged before is seen; what is being
 * written meanwhile may be, sector by sector.
 */
export class ForeignLookup implements CopyLookup {
  readonly #gateway: Gateway;
  readonly #volume: VolumeRecord;
  readonly #command: Pick<Operation, "task">;
  readonly #links = new Map<number, ShardLink>();
  #epoch: number;
  #ended = false;

  constructor(gateway: Gateway, volume: VolumeRecord, command: Pick<Operation, "task">) {
    this.#gateway = gateway;
    this.#volume = volume;
    this.#command = command;
    this.#epoch = this.#epochNow();
  }

  refusal(): VolumeFault | null {
    const { units, volumes } = this.#gateway.state();
    const { uuid, name } = this.#volume;
    if (volumes[name]?.uuid !== uuid || volumes[name].status !== "ready") {
      return { code: "deleted" };
    }
    const unit = units?.[uuid];
    return unit === undefined ? null : sourceRefusal(unit, this.#command.task);
  }

  look(
    firstGrain: number,
    grainCount: number,
    wanted: () => boolean,
    done: (reply: MapLookupReply | null) => void,
  ): void {
    if (this.#ended || !wanted()) return;
    const again = () => this.look(firstGrain, grainCount, wanted, done);
    const answered = (reply: MapLookupReply | null) => {
      if (this.#ended || !wanted()) return;
      if (reply !== null) done(reply);
      else this.#gateway.context.host.clock.after(againMs, again);
    };
    this.#linkOf(firstGrain).lookup(new Lookup(firstGrain, grainCount, wanted, answered));
  }

  end(): void {
    this.#ended = true;
    this.#endLinks();
  }

  #epochNow(): number {
    return this.#gateway.state().attachments[this.#volume.uuid]?.epoch ?? 0;
  }

  #linkOf(grain: number): ShardLink {
    const epoch = this.#epochNow();
    if (epoch !== this.#epoch) {
      this.#epoch = epoch;
      this.#endLinks();
    }
    const shard = shardOf(this.#gateway.state(), this.#volume.family, grain);
    let link = this.#links.get(shard);
    if (link === undefined) {
      const { branch } = this.#volume;
      const context = {
        ...this.#gateway.context,
        branch,
        epoch,
        // The next try goes by the newer attachment, once it is known here.
        fenced: () => this.#gateway.context.host.clock.soon(() => this.#endLinks()),
      };
      link = new ShardLink(context, shard);
      this.#links.set(shard, link);
    }
    return link;
  }

  #endLinks(): void {
    const links = [...this.#links.values()];
    this.#links.clear();
    for (const link of links) link.end();
  }
}
