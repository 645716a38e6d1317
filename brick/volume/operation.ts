import type { Seat } from "../roster.ts";
import type { BrickNumber } from "../units.ts";
import type { VolumeFault, VolumeTask } from "./volume.ts";

/** Why operations end when an attachment does. */
export type EndReason = "unavailable" | "deleted";

export function unavailable(reason: string): VolumeFault {
  return { code: "unavailable", reason };
}

/** The portal at which a command came in, as it was when the command began there. */
export interface Portal {
  readonly brick: BrickNumber;
  readonly boot: number;
  /** `absences` of the brick's record. */
  readonly absences: number;
}

/** Whose command it is; without a portal the gateway's own work. */
export interface Origin {
  readonly task?: VolumeTask | undefined;
  readonly portal?: Portal | undefined;
}

/** The life of one command at its gateway: answered once, by its end, its deadline or the epoch's. */
export abstract class Operation {
  readonly startMs: number;
  readonly deadlineMs: number;
  readonly task: VolumeTask | null;
  readonly portal: Portal | null;
  answered = false;
  /** Among the operations of its gateway, until it is answered. */
  admitted: Seat<Operation> | null = null;

  constructor(startMs: number, deadlineMs: number, { task, portal }: Origin) {
    this.startMs = startMs;
    this.deadlineMs = deadlineMs;
    this.task = task ?? null;
    this.portal = portal ?? null;
  }

  /** Its time is over: answers `unavailable`; what it has sent is brought to its end behind that. */
  abstract expire(): void;
  /** Brings it to its end; what has landed by then has. */
  abstract fail(fault: VolumeFault): void;
}
