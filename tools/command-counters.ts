import type { StageTimes } from "../brick/stage-times.ts";
import { commandName } from "../iscsi/scsi/opcodes.ts";
import type { TargetMetrics } from "../iscsi/session-state.ts";
import type { CommandCount } from "./metrics.ts";

/** SCSI statuses by value (SAM-5). */
const statusNames: Readonly<Record<number, string>> = {
  0: "GOOD",
  2: "CHECK CONDITION",
  8: "BUSY",
  24: "RESERVATION CONFLICT",
  40: "TASK SET FULL",
  48: "ACA ACTIVE",
  64: "TASK ABORTED",
};

/** Counts what the target answers: one number per opcode and status. */
export class CommandCounters implements TargetMetrics {
  readonly stages: StageTimes;
  sessionCount = 0;
  loginsRefused = 0;
  protocolErrors = 0;
  /** Index: opcode * 256 + status. */
  readonly #counts = new Float64Array(65_536);

  constructor(stages: StageTimes) {
    this.stages = stages;
  }

  command(opcode: number, status: number): void {
    this.#counts[((opcode & 0xff) << 8) | (status & 0xff)]! += 1;
  }

  sessions(count: number): void {
    this.sessionCount = count;
  }

  loginRefused(): void {
    this.loginsRefused += 1;
  }

  protocolError(): void {
    this.protocolErrors += 1;
  }

  *[Symbol.iterator](): Iterator<CommandCount> {
    for (let index = 0; index < this.#counts.length; index += 1) {
      const count = this.#counts[index]!;
      if (count === 0) continue;
      const status = index & 0xff;
      const name = statusNames[status] ?? `0x${status.toString(16)}`;
      yield { opcode: commandName(index >> 8), status: name, count };
    }
  }
}
