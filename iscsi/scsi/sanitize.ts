import type { UnitRecord } from "../../brick/unit/unit-record.ts";
import type { Volume, VolumeTask } from "../../brick/volume/volume.ts";
import { good, refused, type ScsiCommand, type ScsiResult, withStatus } from "./command.ts";
import { isWriteProtected } from "./logical-unit.ts";
import { invalidFieldInCdb, type Sense, scsiStatus, sense } from "./sense.ts";
import { changeUnit } from "./unit-change.ts";

/**
 * SANITIZE (SBC-4 §5.30). A block erase unmaps the whole volume. A cryptographic erase, of volumes that
 * are encrypted, does too, and has every brick destroy the key. OVERWRITE is not there: chunks never
 * change, so there are no sectors of a medium to be written over.
 */

export const sanitizeAction = {
  blockErase: 0x02,
  cryptographicErase: 0x03,
  exitFailureMode: 0x1f,
} as const;
const immediateBit = 0x80;
const allowUnrestrictedExitBit = 0x20;

function sanitizeCdbSense({ cdb, unit }: ScsiCommand): Sense | null {
  if (cdb.readUInt16BE(7) !== 0) return invalidFieldInCdb(7);
  return isWriteProtected(unit) ? sense.writeProtected : null;
}

export function blockErase(command: ScsiCommand): Promise<ScsiResult> {
  return erase(command, undefined);
}

export function cryptographicErase(command: ScsiCommand): Promise<ScsiResult> {
  return erase(command, "crypto");
}

async function erase(command: ScsiCommand, method: "crypto" | undefined): Promise<ScsiResult> {
  const { cdb, unit, nexus, task } = command;
  const wrong = sanitizeCdbSense(command);
  if (wrong !== null) return refused(wrong);
  const allowUnrestrictedExit = (cdb[1]! & allowUnrestrictedExitBit) !== 0;
  const change = { type: "sanitizeStart", nexus: nexus.id, allowUnrestrictedExit } as const;
  const started = await changeUnit(command, method === undefined ? change : { ...change, method });
  if (started.status !== scsiStatus.good || (cdb[1]! & immediateBit) !== 0) return started;
  const ended = await sanitizeEnded(unit.volume, task);
  if (ended === "cancelled") return withStatus(scsiStatus.taskAborted);
  return ended === "failed" ? refused(sense.sanitizeFailed) : good;
}

/** SBC-4 §4.11.3: only of a sanitize that was started with AUSE. */
export async function exitFailureMode(command: ScsiCommand): Promise<ScsiResult> {
  const wrong = sanitizeCdbSense(command);
  if (wrong !== null) return refused(wrong);
  return changeUnit(command, { type: "sanitizeExitFailure", nexus: command.nexus.id });
}

/** The sanitize goes on when the command that waits for it is cancelled (SBC-4 §4.11.2). */
function sanitizeEnded(volume: Volume, task: VolumeTask): Promise<"done" | "failed" | "cancelled"> {
  return new Promise((resolve) => {
    const end = (how: "done" | "failed" | "cancelled") => {
      watch.stop();
      task.onCancel = null;
      resolve(how);
    };
    const look = async ({ sanitize }: UnitRecord): Promise<void> => {
      if (sanitize === null) end("done");
      else if (sanitize.state === "failed") end("failed");
    };
    const watch = volume.watchUnit(look);
    task.onCancel = () => end("cancelled");
    if (task.cancelled) end("cancelled");
    // It may have ended before anyone watched.
    else look(volume.unit());
  });
}
