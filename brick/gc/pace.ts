/** Shares of a brick's time that collecting garbage may take: while there is space enough, and else. */
export const gcShare = 0.1;
export const gcShareUrgent = 0.5;
/** However long a step took: a process that was frozen rests no minute. */
export const restMsMax = 1000;

/**
 * How long to rest after a step that kept the brick busy for `workMs`, so that all steps together take
 * `share` of its time. Where others want the processor a step takes longer, and the rest after it, too.
 */
export function restMs(workMs: number, share: number, pauseMs: number): number {
  return Math.min(restMsMax, Math.max(pauseMs, workMs * (1 / share - 1)));
}
