import { NumberMap } from "../number-map.ts";

/**
 * What a shard remembers of the gateways that write to it, so that a request sent again is
 * recognised whoever leads the shard by then, and a gateway whose attachment ended is refused.
 */
export interface Window {
  /** The attachment epoch that may write; older ones are fenced off. */
  epoch: number;
  /** The gateway has settled every sequence below, and asks for none of them again. */
  lowWater: number;
  /** Sequences at or above the low-water mark that came to their end: true landed, false cancelled. */
  readonly settled: NumberMap<boolean>;
}

/** A gateway's sequences in flight span at most this; a request further ahead is refused. */
export const windowSpanMax = 4096;

/** Windows of one shard, by branch. */
export type Windows = Map<number, Window>;

export function settle(
  windows: Windows,
  entry: { branch: number; epoch: number; sequence: number; lowWater: number },
  landed: boolean,
): void {
  const window = windows.get(entry.branch);
  if (window === undefined || window.epoch !== entry.epoch) return;
  if (entry.lowWater > window.lowWater) {
    if (entry.lowWater - window.lowWater > window.settled.size) {
      for (const sequence of window.settled.keys()) {
        if (sequence < entry.lowWater) window.settled.delete(sequence);
      }
    } else {
      for (let sequence = window.lowWater; sequence < entry.lowWater; sequence += 1) {
        window.settled.delete(sequence);
      }
    }
    window.lowWater = entry.lowWater;
  }
  if (entry.sequence >= window.lowWater && !window.settled.has(entry.sequence)) {
    window.settled.set(entry.sequence, landed);
  }
}

export function fence(windows: Windows, branch: number, epoch: number): void {
  const window = windows.get(branch);
  if (window !== undefined && window.epoch >= epoch) return;
  windows.set(branch, { epoch, lowWater: 1, settled: new NumberMap() });
}

/** Plain data for records and messages: [branch, epoch, lowWater, landed..., -cancelled...]. */
export type WindowsImage = number[][];

export function imageOf(windows: Windows): WindowsImage {
  return [...windows].map(([branch, { epoch, lowWater, settled }]) => {
    const row = [branch, epoch, lowWater];
    for (const [sequence, landed] of settled) row.push(landed ? sequence : -sequence);
    return row;
  });
}

export function windowsFrom(image: WindowsImage): Windows {
  const windows: Windows = new Map();
  for (const [branch, epoch, lowWater, ...sequences] of image) {
    const settled = new NumberMap(sequences.map((one) => [Math.abs(one), one > 0] as const));
    windows.set(branch!, { epoch: epoch!, lowWater: lowWater!, settled });
  }
  return windows;
}
