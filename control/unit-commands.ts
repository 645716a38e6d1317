import { brickOf, type ClusterState, isReachable } from "../brick/cluster-state.ts";
import {
  changeUnit as decide,
  type UnitChange,
  type UnitEvent,
} from "../brick/unit/unit-changes.ts";
import { newUnit, type UnitRecord } from "../brick/unit/unit-record.ts";
import type { BrickNumber } from "../brick/units.ts";
import { type Applied, answer, type CommandFault, done, refuse } from "./command-result.ts";
import type { Command, CommandId, CommandOf } from "./commands.ts";
import { volumeByUuid } from "./volume-commands.ts";

/** What initiators and the fate of bricks do to the SCSI state of volumes. */

export function changeUnit(state: ClusterState, command: CommandOf<"changeUnit">): Applied {
  const { uuid, change } = command;
  const volume = volumeByUuid(state, uuid);
  if (volume?.status !== "ready") {
    const message = `cannot change the unit of volume ${uuid}: there is none, or it is being deleted`;
    return refuse(state, "unknown", message);
  }
  // Whoever reserves now must not lose it by a power loss that came before.
  if (mayHaveLostPower(state)) {
    const message = `cannot change the unit of volume ${volume.name} yet: the bricks have just started; try again in a moment`;
    return refuse(state, "not_now", message);
  }
  const before = state.units?.[uuid] ?? newUnit;
  // There is no key that could be forgotten.
  if (isCryptoErase(change) && volume.keyDomain === undefined) {
    return answer(state, "invalid_field", before.version);
  }
  const { record, outcome } = decide(before, change, targetPorts(state));
  return answer(withUnit(state, uuid, before, record), outcome, record.version);
}

function isCryptoErase(change: UnitChange): boolean {
  return change.type === "sanitizeStart" && change.method === "crypto";
}

/**
 * Why a brick's command must wait: units are changed for a brick that is up under the boot that
 * asks. Before its start is announced it is open whether the cluster was without power.
 */
export function earlyRefusal(
  state: ClusterState,
  { brick: number, boot }: CommandId,
  command: Command,
): CommandFault | null {
  if (command.type !== "changeUnit") return null;
  const brick = brickOf(state, number);
  if (isReachable(brick) && brick!.boot === boot) return null;
  const message = `cannot change a unit for brick ${number} yet: boot ${boot} is not announced; try again in a moment`;
  return { code: "not_now", message };
}

/** Every volume's unit after the brick's sessions have ended with it. */
export function withoutPort(state: ClusterState, targetPort: BrickNumber): ClusterState {
  return withEach(state, { type: "portLost", targetPort });
}

/**
 * Whether the whole cluster was without power is seen by this: a process ends when its brick
 * starts anew, or is no part of the cluster once its lease has ended. While one lives that ran
 * before, newer starts are witnessed by it (see membership.ts; a leader that has just begun waits
 * a little to hear one before it announces a start). When the last such has gone and only
 * unwitnessed ones are left, no brick kept its memory.
 */
export function afterPowerLoss(state: ClusterState): ClusterState {
  if (!mayHaveLostPower(state) || hasWitness(state)) return state;
  return withEach(witnessed(state), { type: "powerLost" });
}

/** One that ran before has been heard beside those that started: there was power all along. */
export function witness(state: ClusterState): Applied {
  if (!mayHaveLostPower(state)) {
    return refuse(state, "no_change", "every brick that runs has been witnessed already");
  }
  if (!hasWitness(state)) {
    return refuse(state, "not_now", "no brick runs that could have witnessed the others");
  }
  return done(witnessed(state));
}

/** Whether bricks run of which it is open yet. */
export function mayHaveLostPower(state: ClusterState): boolean {
  return Object.values(state.bricks).some((one) => isReachable(one) && one.unwitnessed === true);
}

function hasWitness(state: ClusterState): boolean {
  return Object.values(state.bricks).some((one) => isReachable(one) && one.unwitnessed !== true);
}

function witnessed(state: ClusterState): ClusterState {
  const bricks = Object.entries(state.bricks).map(([number, brick]) => {
    if (brick.unwitnessed !== true) return [number, brick] as const;
    const { unwitnessed: _, ...rest } = brick;
    return [number, rest] as const;
  });
  return { ...state, bricks: Object.fromEntries(bricks) };
}

function targetPorts(state: ClusterState): BrickNumber[] {
  const bricks = Object.values(state.bricks).filter((brick) => brick.status !== "removed");
  return bricks.map((brick) => brick.number);
}

function withEach(state: ClusterState, event: UnitEvent): ClusterState {
  let after = state;
  const ports = targetPorts(state);
  for (const [uuid, before] of Object.entries(state.units ?? {})) {
    after = withUnit(after, uuid, before, decide(before, event, ports).record);
  }
  return after;
}

function withUnit(
  state: ClusterState,
  uuid: string,
  before: UnitRecord,
  after: UnitRecord,
): ClusterState {
  return before === after ? state : { ...state, units: { ...state.units, [uuid]: after } };
}
