import { sameNexus, type UnitRecord } from "../brick/unit/unit-record.ts";
import type { Volume } from "../brick/volume/volume.ts";
import { lunsPerSessionMax, nexusLossRetriesMax, nexusLossRetryMs } from "./limits.ts";
import {
  addNexus,
  type LogicalUnit,
  makeLogicalUnit,
  type Nexus,
  queueAttention,
  takeUnitRecord,
} from "./scsi/logical-unit.ts";
import { sense } from "./scsi/sense.ts";
import { answerTasks, cancelTasks, clearTasks } from "./scsi-task.ts";
import type { ScsiTask, Session, SessionLun, TargetNode } from "./session-state.ts";
import { targetNameOf } from "./target-name.ts";

/**
 * The logical units behind a portal and the sessions' ways to them. A unit is one per volume,
 * however many targets and LUNs lead to it; a session has a nexus of its own at each of its units.
 */

/** The volumes that a session may use, by LUN, ascending; empty: no such target (any more). */
export function volumesOf(
  node: TargetNode,
  initiatorName: string,
  targetName: string,
): Map<number, Volume> {
  const view = node.authority.target(initiatorName, targetName);
  const volumes = new Map<number, Volume>();
  if (typeof view === "string") return volumes;
  const luns = [...view.luns].sort(([a], [b]) => a - b).slice(0, lunsPerSessionMax);
  for (const [lun, name] of luns) {
    const volume = node.directory.open(name);
    if (volume !== undefined) volumes.set(lun, volume);
  }
  return volumes;
}

/** Gives a session its units. */
export function attachLuns(session: Session, volumes: ReadonlyMap<number, Volume>): void {
  for (const [lun, volume] of volumes) session.luns.set(lun, attach(session, volume));
  session.lunList = [...session.luns.keys()].sort((a, b) => a - b);
  session.peers = session.lunList.map((lun) => session.luns.get(lun)!);
}

function attach(session: Session, volume: Volume): SessionLun {
  const { node, identity } = session;
  const unit = openUnit(node, volume);
  const nexus = addNexus(unit, identity.initiatorName, identity.isid);
  // Left over from an earlier life of this portal: the nexus that reserved was lost with it.
  if (holdsReserve6(unit, nexus)) loseNexus(node, unit, nexus, 0);
  return { unit, nexus };
}

function openUnit(node: TargetNode, volume: Volume): LogicalUnit {
  const { uuid, name } = volume.info;
  const known = node.units.get(uuid);
  if (known !== undefined) return known.unit;
  const { portalGroupTag } = node;
  const unit = makeLogicalUnit({ volume, targetName: targetNameOf(name), portalGroupTag });
  const watch = volume.watchUnit((record) => takeRecord(node, unit, record));
  node.units.set(uuid, { unit, watch });
  return unit;
}

/** What initiators of any portal did to the unit: attentions are queued, ended tasks settled. */
function takeRecord(node: TargetNode, unit: LogicalUnit, record: UnitRecord): Promise<void> {
  const ended = takeUnitRecord(unit, record);
  const silent: ScsiTask[] = [];
  const answered: ScsiTask[] = [];
  for (const session of node.sessions.values()) {
    for (const task of session.tasks.values()) {
      // One whose turn has not come has not begun for the unit: it comes after what is ended.
      const begun = task.state !== "held" && task.state !== "fenced";
      const ending = begun && task.nexus !== null ? ended.get(task.nexus) : undefined;
      if (ending === "answered") answered.push(task);
      else if (ending === "silent") silent.push(task);
    }
  }
  const parts = [
    new Promise<void>((resolve) => clearTasks(silent, resolve)),
    new Promise<void>((resolve) => answerTasks(answered, resolve)),
  ];
  return Promise.all(parts).then(() => {});
}

/** The session has ended and settled, or may not use the unit any more and has settled there. */
export function detach(node: TargetNode, { unit, nexus }: SessionLun): void {
  unit.nexuses.delete(nexus);
  if (holdsReserve6(unit, nexus)) loseNexus(node, unit, nexus, 0);
  if (unit.nexuses.size > 0) return;
  const { uuid } = unit.volume.info;
  const known = node.units.get(uuid);
  if (known?.unit !== unit) return;
  known.watch.stop();
  node.units.delete(uuid);
}

/** Whether the unit is reserved by a nexus of this identity and no other session has the same. */
function holdsReserve6(unit: LogicalUnit, nexus: Nexus): boolean {
  const { reserve6 } = unit.volume.unit().reservations;
  if (reserve6 === null || !sameNexus(reserve6, nexus.id)) return false;
  return ![...unit.nexuses].some((other) => other !== nexus && sameNexus(other.id, nexus.id));
}

/** SPC-2 §5.5.1: RESERVE(6) does not outlive its nexus. Tried again while the cluster is away. */
function loseNexus(node: TargetNode, unit: LogicalUnit, nexus: Nexus, tried: number): void {
  unit.volume.changeUnit({ type: "nexusLost", nexus: nexus.id }).then((changed) => {
    if (changed.ok) return;
    node.log(`iscsi: ${nexus.id.initiatorPort} keeps a reservation: ${changed.fault.code}`);
    if (tried >= nexusLossRetriesMax) return;
    node.clock.after(nexusLossRetryMs, () => {
      // The same initiator port may be back, and have reserved anew: then it is not.
      if (holdsReserve6(unit, nexus)) loseNexus(node, unit, nexus, tried + 1);
    });
  });
}

/**
 * Compares a live session's units with what its initiator may use now; false when that is nothing
 * any more and the session must end. Commands under way at a unit that has gone are answered, with
 * TASK ABORTED unless they landed.
 */
export function refreshLuns(session: Session): boolean {
  const { node, identity } = session;
  const volumes = volumesOf(node, identity.initiatorName, identity.targetName);
  if (volumes.size === 0) return false;
  const kept: SessionLun[] = [];
  const added = new Map(volumes);
  let changed = false;
  for (const [lun, at] of session.luns) {
    if (volumes.get(lun)?.info.uuid === at.unit.volume.info.uuid) {
      added.delete(lun);
      kept.push(at);
      continue;
    }
    changed = true;
    session.luns.delete(lun);
    const tasks = [...session.tasks.values()].filter((task) => task.nexus === at.nexus);
    cancelTasks(tasks, () => detach(node, at));
  }
  if (!changed && added.size === 0) return true;
  attachLuns(session, added);
  for (const { nexus } of kept) queueAttention(nexus, sense.reportedLunsChanged);
  return true;
}
