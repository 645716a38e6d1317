import type { Host, Kv } from "../host.ts";

/**
 * The key-value store of a brick that has started: when it fails, the brick stops. Whoever asks it,
 * from wherever, needs no other plan for a disk that does not answer. While the brick starts, a
 * failure is the start's: it is thrown.
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
    this.#act(() => this.#kv.write(...batch));
  }

  range(start: Buffer, end: Buffer, limit: number): [Buffer, Buffer][] {
    return this.#act(() => this.#kv.range(start, end, limit));
  }

  close(): Promise<void> {
    return this.#kv.close();
  }

  #act<T>(act: () => T): T {
    try {
      return act();
    } catch (error) {
      if (this.#started) this.#host.crash(error);
      throw error;
    }
  }
}
