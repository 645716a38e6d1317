import type { VolumeFault, VolumeTask } from "./volume.ts";

/** Why operations end when an attachment does. */
export type EndReason = "unavailable" | "deleted";

export function unavailable(reason: string): VolumeFault {
  return { code: "unavailable", reason };
}

/** The life of one command at its gateway: answered once, by its end, its deadline or the epoch's. */
export abstract class Operation {
  readonly startMs: number;
  readonly deadlineMs: number;
  readonly task: VolumeTask | null;
  answered = false;

  constructor(startMs: number, deadlineMs: number, task: VolumeTask | undefined) {
    this.startMs = startMs;
    this.deadlineMs = deadlineMs;
    this.task = task ?? null;
  }

  /** Its time is over: answers `unavailable`; what it has sent is brought to its end behind that. */
  abstract expire(): void;
  abstract fail(fault: VolumeFault): void;
}
