/** How what is said in one kind of message reads as bytes; `decode` says null to what is none of it. */
export interface Wire<T> {
  encode(value: T): readonly Buffer[];
  decode(body: Buffer): T | null;
}

/**
 * What a message says, before it is bytes: those are made for another brick. What a brick says to itself
 * it hears as it stands, so that neither side may change it once it is said.
 */
export class Words<T = unknown> {
  readonly wire: Wire<T>;
  readonly value: T;

  constructor(wire: Wire<T>, value: T) {
    this.wire = wire;
    this.value = value;
  }

  encoded(): readonly Buffer[] {
    return this.wire.encode(this.value);
  }
}
