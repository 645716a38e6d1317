import {
  loginPenaltiesMax,
  loginPenaltyForgottenMs,
  loginPenaltyFreeFailures,
  loginPenaltyMs,
  loginPenaltyMsMax,
  loginWaitMsMax,
} from "./limits.ts";

interface Penalty {
  failures: number;
  /** When the next proof may be examined. */
  nextMs: number;
  lastFailureMs: number;
}

/**
 * Slows down guessing. A proof is not examined at once when the same address has failed for the
 * same initiator name lately: proofs of the two are then examined one after the other, the further
 * apart the more have failed. Nobody else waits, neither other names behind the same address nor
 * the same name elsewhere: nobody can be locked out by somebody else's failures.
 */
export class LoginThrottle {
  /** By address and name; the one that failed longest ago first. */
  readonly #penalties = new Map<string, Penalty>();

  /** How long a proof must wait; null: so many wait already that it is not to be examined. */
  delayMs(address: string, name: string, nowMs: number): number | null {
    const key = keyOf(address, name);
    const penalty = this.#penalties.get(key);
    if (penalty === undefined) return 0;
    if (nowMs - penalty.lastFailureMs > loginPenaltyForgottenMs) {
      this.#penalties.delete(key);
      return 0;
    }
    const atMs = Math.max(nowMs, penalty.nextMs);
    if (atMs - nowMs > loginWaitMsMax) return null;
    penalty.nextMs = atMs + spacingMs(penalty.failures);
    return atMs - nowMs;
  }

  failed(address: string, name: string, nowMs: number): void {
    const key = keyOf(address, name);
    const penalty = this.#penalties.get(key) ?? { failures: 0, nextMs: nowMs, lastFailureMs: 0 };
    penalty.failures += 1;
    penalty.lastFailureMs = nowMs;
    penalty.nextMs = Math.max(penalty.nextMs, nowMs + spacingMs(penalty.failures));
    this.#penalties.delete(key);
    this.#penalties.set(key, penalty);
    if (this.#penalties.size <= loginPenaltiesMax) return;
    const [oldest] = this.#penalties.keys();
    this.#penalties.delete(oldest!);
  }

  succeeded(address: string, name: string): void {
    this.#penalties.delete(keyOf(address, name));
  }

  /** Pairs that are remembered now. */
  get size(): number {
    return this.#penalties.size;
  }
}

function keyOf(address: string, name: string): string {
  return `${address} ${name}`;
}

/** Nothing for the first few, which people mistype; then doubling. */
function spacingMs(failures: number): number {
  const counted = failures - loginPenaltyFreeFailures;
  return counted <= 0 ? 0 : Math.min(loginPenaltyMs * 2 ** (counted - 1), loginPenaltyMsMax);
}
