import type { Host, TimerHandle } from "../brick/host.ts";
import type { Calls } from "../brick/rpc/calls.ts";
import { messageType } from "../brick/rpc/message-types.ts";
import type { BrickNumber } from "../brick/units.ts";
import {
  decodeAnswer,
  encodeKeepalive,
  type Keepalive,
  type KeepaliveAnswer,
} from "./keepalive.ts";
import type { MembershipTiming } from "./membership.ts";

/** Keepalives sent for a reason (a change, a redirection) keep this distance. */
const nudgeGapMs = 20;
const retryAfterMs = 50;

interface KeepaliveParts {
  host: Host;
  calls: Calls;
  timing: MembershipTiming;
  /** Everything but `sentMs`. */
  compose(): Omit<Keepalive, "sentMs">;
  leader(): BrickNumber;
  peers(): readonly BrickNumber[];
  onAnswer(answer: Exclude<KeepaliveAnswer, { type: "elsewhere" }>): void;
}

/** Sends this brick's keepalives to the Raft leader, wherever it is. */
export class KeepaliveSender {
  readonly #parts: KeepaliveParts;
  #round: TimerHandle | null = null;
  #nudge: TimerHandle | null = null;
  /** Who was said to lead; 0: nobody known. */
  #hint: BrickNumber = 0;
  #tried = 0;
  #sentAtMs = Number.NEGATIVE_INFINITY;
  #closed = false;

  constructor(parts: KeepaliveParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#send();
    if (this.#closed) return;
    const { host, timing } = this.#parts;
    this.#round = host.clock.after(timing.keepaliveEveryMs, () => this.start());
  }

  /** Sends one out of turn, at once unless the last has just left: the leader waits for news. */
  nudge(): void {
    const { clock } = this.#parts.host;
    this.#sendAfter(Math.max(0, this.#sentAtMs + nudgeGapMs - clock.nowMs()));
  }

  #sendAfter(afterMs: number): void {
    if (this.#closed || this.#nudge !== null) return;
    this.#nudge = this.#parts.host.clock.after(afterMs, () => {
      this.#nudge = null;
      this.#send();
    });
  }

  close(): void {
    this.#closed = true;
    this.#round?.cancel();
    this.#nudge?.cancel();
  }

  #send(): void {
    const { host, calls, timing, compose, onAnswer } = this.#parts;
    const to = this.#target();
    if (to === 0) return;
    this.#sentAtMs = host.clock.nowMs();
    const body = [encodeKeepalive({ ...compose(), sentMs: this.#sentAtMs })];
    calls.call(to, messageType.keepalive, body, timing.leaseMs, (reply) => {
      if (this.#closed) return;
      const answer = reply.ok ? decodeAnswer(reply.body) : null;
      if (answer === null) {
        if (this.#hint === to) this.#hint = 0;
      } else if (answer.type === "elsewhere") {
        this.#hint = answer.leader === to ? 0 : answer.leader;
        if (this.#hint === 0) this.#sendAfter(retryAfterMs);
        else this.nudge();
      } else {
        this.#hint = to;
        onAnswer(answer);
      }
    });
  }

  /** The leader as Raft knows it, as others said, or the next peer in turn. */
  #target(): BrickNumber {
    const known = this.#parts.leader() || this.#hint;
    if (known !== 0) return known;
    const peers = this.#parts.peers();
    this.#tried += 1;
    return peers.length === 0 ? 0 : peers[this.#tried % peers.length]!;
  }
}
