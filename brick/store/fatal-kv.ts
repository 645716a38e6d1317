import { type Host, isNoSpace, type Kv, type KvChange } from "../host.ts";

/**
 * The key-value store of a brick that has started: when it fails, the brick stops. Whoever asks it,
 * from wherever, needs no other plan for a disk that does not answer. While the brick starts, a
 * failure is the start's: it is thrown. A write for which there is no space is put off by who asked.
 */
export class FatalKv implements Kv {
  readonly #host: Host;
  readonly #kv: Kv;
  #started = false;

  constructor(host: Host, kv: Kv) {
    this.#host = host;
    this.#kv = kv;
  }

  start(): void {
    this.#started = true;
  }

  get(key: Buffer): Buffer | undefined {
    return this.#act(() => this.#kv.get(key));
  }

  getMany(keys: readonly Buffer[]): (Buffer | undefined)[] {
    return this.#act(() => this.#kv.getMany(keys));
  }

  write(...batch: Parameters<Kv["write"]>): void {
    this.#act(() => this.#kv.write(...batch), isNoSpace);
  }

  writeLater(batch: readonly KvChange[], done: (failure: Error | null) => void): void {
    this.#act(() =>
      this.#kv.writeLater(batch, (failure) => {
        if (failure !== null && !isNoSpace(failure)) this.#host.crash(failure);
        done(failure);
      }),
    );
  }

  range(start: Buffer, end: Buffer, limit: number): [Buffer, Buffer][] {
    return this.#act(() => this.#kv.range(start, end, limit));
  }

  hasFailed(): boolean {
    return this.#kv.hasFailed();
  }

  unflushedBytes(): number {
    return this.#kv.unflushedBytes();
  }

  reopen(): void {
    this.#act(() => this.#kv.reopen());
  }

  close(): Promise<void> {
    return this.#kv.close();
  }

  #act<T>(act: () => T, isNoFault: (error: unknown) => boolean = () => false): T {
    try {
      return act();
    } catch (error) {
      if (this.#started && !isNoFault(error)) this.#host.crash(error);
      throw error;
    }
  }
}
