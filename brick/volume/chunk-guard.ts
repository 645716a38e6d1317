import { decodeChunkHasReply } from "../chunk/chunk-messages.ts";
import { isReachable } from "../cluster-state.ts";
import { encodeChunkMark } from "../gc/mark-messages.ts";
import { holdersMax } from "../map/grain.ts";
import { messageType } from "../rpc/message-types.ts";
import type { BrickNumber } from "../units.ts";
import type { ChunkContext } from "./chunk-context.ts";

/** Who did not answer, or where no holder answers, is asked again after this. */
const retryMs = 100;

export interface Guarded {
  /** Those that have it, and keep it from now on; and those that are away, which sweep nothing. */
  readonly holders: readonly BrickNumber[];
  /** No holder had been asked before that epoch of garbage collection had begun. */
  readonly gcEpoch: number;
}

/**
 * Protects a chunk that the map names already, before another record names it too: as a put does,
 * without the bytes. Between the look-up that found it and this its last record may have gone, and
 * the chunk after it: then no brick has it. `missed` is told so, and may go another way, which ends
 * this; else it is asked for until the caller gives up.
 */
export function guardChunk(
  context: ChunkContext,
  key: Buffer,
  holders: readonly BrickNumber[],
  done: (guarded: Guarded) => void,
  missed: () => boolean = () => false,
): { abandon(): void } {
  const { gcEpoch } = context.state();
  const body = encodeChunkMark(gcEpoch, [key]);
  const answers = new Map<BrickNumber, boolean>();
  /** Asked, or about to be asked again. */
  const underWay = new Set<BrickNumber>();
  let asked = holders;
  let ended = false;
  let resting = false;
  const conclude = () => {
    if (ended) return;
    const isAway = (brick: BrickNumber) => !isReachable(context.state().bricks[String(brick)]);
    const missing = asked.filter((brick) => !answers.has(brick) && !isAway(brick));
    if (missing.length > 0) {
      // One that was away when its turn came may have come back.
      for (const brick of missing) ask(brick);
      return;
    }
    const having = asked.filter((brick) => answers.get(brick));
    const away = holders.filter((brick) => !answers.has(brick));
    // Holders are hints: where one does not have it, another brick may.
    if (having.length + away.length < holders.length && asked === holders) {
      const others = Object.values(context.state().bricks).map(({ number }) => number);
      const strangers = others.filter((brick) => !holders.includes(brick) && !isAway(brick));
      asked = [...holders, ...strangers];
      for (const brick of strangers) ask(brick);
      if (strangers.length > 0) return;
    }
    if (having.length === 0) {
      // Each of several that are away comes here: one round follows, not one for each.
      if (resting) return;
      resting = true;
      answers.clear();
      asked = holders;
      context.host.clock.after(retryMs, goOn);
      return;
    }
    ended = true;
    done({ holders: [...having, ...away].slice(0, holdersMax), gcEpoch });
  };
  const ask = (brick: BrickNumber) => {
    if (ended || underWay.has(brick)) return;
    if (!isReachable(context.state().bricks[String(brick)])) {
      conclude();
      return;
    }
    underWay.add(brick);
    const { chunkTimeoutMs } = context.options;
    context.calls.call(brick, messageType.chunkMark, body, chunkTimeoutMs, (reply) => {
      const has = reply.ok ? decodeChunkHasReply(reply.body)?.[0] : undefined;
      if (ended) return;
      if (has === undefined) {
        context.host.clock.after(retryMs, () => {
          underWay.delete(brick);
          ask(brick);
        });
      } else {
        underWay.delete(brick);
        answers.set(brick, has);
        conclude();
      }
    });
  };
  const goOn = () => {
    if (ended) return;
    ended = missed();
    askAll();
  };
  const askAll = () => {
    resting = false;
    if (ended) return;
    for (const brick of asked) ask(brick);
    if (holders.length === 0) conclude();
  };
  context.host.clock.soon(askAll);
  return {
    abandon: () => {
      ended = true;
    },
  };
}
