interface Gathering {
  readonly view: number;
  readonly plan: Buffer;
  readonly made: Promise<boolean>;
  isUnderWay: boolean;
}

/**
 * Unions that this brick gathers, or has gathered, for views that have not begun. Whoever asks again for one,
 * since the request or the answer may have been lost, is told what comes of the first.
 */
export class Gatherings {
  readonly #byShard = new Map<number, Gathering>();

  /** Whether it is gathered; false also while another is, for one changes what the other is made of. */
  gather(
    shard: number,
    view: number,
    plan: Buffer,
    make: () => Promise<boolean>,
  ): Promise<boolean> {
    const known = this.#byShard.get(shard);
    if (known?.view === view && known.plan.equals(plan)) return known.made;
    if (known?.isUnderWay === true) return Promise.resolve(false);
    const made = make();
    const gathering = { view, plan, made, isUnderWay: true };
    this.#byShard.set(shard, gathering);
    const ended = (isMade: boolean) => {
      gathering.isUnderWay = false;
      if (!isMade && this.#byShard.get(shard) === gathering) this.#byShard.delete(shard);
    };
    made.then(ended, () => ended(false));
    return made;
  }

  /** A view has begun: what was gathered for it, or for an older one, is of no more use. */
  begun(shard: number, view: number): void {
    const known = this.#byShard.get(shard);
    if (known !== undefined && !known.isUnderWay && known.view <= view) this.#byShard.delete(shard);
  }
}
