import type { Host, TimerHandle } from "../host.ts";
import type { BrickNumber } from "../units.ts";
import type { CallReply, Calls } from "./calls.ts";

/** A request without an answer is sent again after this, then after twice as long, and so on. */
const againMsFirst = 1000;
const againMsMax = 8000;

export interface Request {
  readonly to: BrickNumber;
  readonly type: number;
  readonly body: readonly Buffer[];
  readonly timeoutMs: number;
}

/**
 * Sends a request until it is answered or its time is over: a message may be lost, and nobody says so.
 * The answer of any sending counts; `done` learns how many there were. Only for what may be carried out
 * more than once, or whose server knows it again. `stop`: nobody waits for the answer any more.
 */
export function askAgain(
  host: Host,
  calls: Calls,
  { to, type, body, timeoutMs }: Request,
  done: (reply: CallReply, sendings: number) => void,
): { stop(): void } {
  const deadlineMs = host.clock.nowMs() + timeoutMs;
  let pauseMs = againMsFirst;
  let timer: TimerHandle | null = null;
  let sendings = 0;
  let ended = false;
  const stop = () => {
    ended = true;
    timer?.cancel();
  };
  const finish = (reply: CallReply) => {
    if (ended) return;
    stop();
    done(reply, sendings);
  };
  const ask = () => {
    const leftMs = deadlineMs - host.clock.nowMs();
    if (leftMs <= 0) {
      finish({ ok: false, fault: { code: "timeout" } });
      return;
    }
    sendings += 1;
    calls.call(to, type, body, leftMs, (reply) => {
      // Without room for another call, the next one is a sending like any other.
      if (reply.ok || reply.fault.code === "timeout") finish(reply);
    });
    timer = host.clock.after(Math.min(pauseMs, leftMs), ask);
    pauseMs = Math.min(2 * pauseMs, againMsMax);
  };
  ask();
  return { stop };
}
