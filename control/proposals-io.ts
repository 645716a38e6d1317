import type { Host } from "../brick/host.ts";
import type { CommandResult } from "./command-result.ts";
import { type CommandId, type Envelope, encodeEnvelope } from "./commands.ts";
import type { RaftPort } from "./raft-port.ts";

/** An entry whose fate is not known after this time is asked about anew, under the same id. */
const fateWaitMs = 5000;

/** Commands on their way through Raft, at the leader: each waits until it is applied here. */
export class Proposals {
  readonly #host: Host;
  readonly #raft: () => RaftPort;
  readonly #waiting = new Map<string, ((result: CommandResult | null) => void)[]>();

  constructor(host: Host, raft: () => RaftPort) {
    this.#host = host;
    this.#raft = raft;
  }

  /** null: this brick does not lead, or lost the lead: the command may or may not be applied. */
  propose(envelope: Envelope): Promise<CommandResult | null> {
    const { promise, resolve } = Promise.withResolvers<CommandResult | null>();
    const key = keyOf(envelope.id!);
    const waiting = this.#waiting.get(key);
    if (waiting !== undefined) {
      waiting.push(resolve);
      return promise;
    }
    this.#waiting.set(key, [resolve]);
    const timer = this.#host.clock.after(fateWaitMs, () => this.#settle(key, null));
    this.#raft()
      .propose(encodeEnvelope(envelope))
      .then((proposed) => {
        if (!proposed.ok) this.#settle(key, null);
      });
    promise.then(() => timer.cancel());
    return promise;
  }

  applied(id: CommandId, result: CommandResult): void {
    this.#settle(keyOf(id), result);
  }

  close(): void {
    for (const key of [...this.#waiting.keys()]) this.#settle(key, null);
  }

  #settle(key: string, result: CommandResult | null): void {
    const waiting = this.#waiting.get(key) ?? [];
    this.#waiting.delete(key);
    for (const resolve of waiting) resolve(result);
  }
}

function keyOf({ brick, boot, sequence }: CommandId): string {
  return `${brick}.${boot}.${sequence}`;
}
