import { concernsNexus, type NexusId, type UnitRecord } from "../../brick/unit/unit-record.ts";
import type { Volume } from "../../brick/volume/volume.ts";
import { unitAttentionsMax } from "../limits.ts";
import { blockBytes } from "./cdb.ts";
import { type Sense, sense } from "./sense.ts";

/** A volume as a direct-access block device, shared by all sessions that are logged in to it. */
export interface LogicalUnit {
  readonly volume: Volume;
  /** iSCSI name of the target whose LUN 0 this is. */
  readonly targetName: string;
  /** Relative target port identifier and portal group: the brick's number. */
  readonly portalGroupTag: number;
  readonly nexuses: Set<Nexus>;
  /** The first notice of the volume's unit record that this portal's nexuses have not met. */
  noticeNext: number;
  /** What initiators have been told; a difference from the volume's is a unit attention. */
  reportedSizeBytes: number;
}

/** One I_T nexus at one logical unit: what this initiator must still be told. */
export interface Nexus {
  readonly id: NexusId;
  /** Oldest first. */
  readonly attentions: Sense[];
}

export function makeLogicalUnit(options: {
  volume: Volume;
  targetName: string;
  portalGroupTag: number;
}): LogicalUnit {
  return {
    ...options,
    nexuses: new Set(),
    noticeNext: options.volume.unit().noticeNext,
    reportedSizeBytes: options.volume.info.sizeBytes,
  };
}

/** `isid`: 12 hex digits. */
export function addNexus(unit: LogicalUnit, initiatorName: string, isid: string): Nexus {
  const id = {
    // SPC-4 §7.6.4.6: the iSCSI TransportID of an initiator port.
    initiatorPort: `${initiatorName},i,0x${isid}`,
    targetPort: unit.portalGroupTag,
  };
  const nexus = { id, attentions: [sense.powerOn] };
  unit.nexuses.add(nexus);
  return nexus;
}

/** Takes in a newer record of the unit; returns the nexuses whose commands it ends. */
export function takeUnitRecord(unit: LogicalUnit, record: UnitRecord): Set<Nexus> {
  const ended = new Set<Nexus>();
  const oldest = record.notices[0]?.sequence ?? record.noticeNext;
  if (oldest > unit.noticeNext) {
    // Too far behind to know what was missed: as after a reset.
    for (const nexus of unit.nexuses) {
      queueAttention(nexus, sense.resetOccurred);
      ended.add(nexus);
    }
  }
  for (const notice of record.notices) {
    if (notice.sequence < unit.noticeNext) continue;
    for (const nexus of unit.nexuses) {
      if (!concernsNexus(notice, nexus.id)) continue;
      if (notice.condition !== "tasksEnded") queueAttention(nexus, sense[notice.condition]);
      if (notice.endsTasks) ended.add(nexus);
    }
  }
  unit.noticeNext = record.noticeNext;
  return ended;
}

/** Queues a condition for every nexus but `except`; one that waits already is not doubled. */
export function raiseAttention(unit: LogicalUnit, condition: Sense, except: Nexus | null): void {
  for (const nexus of unit.nexuses) {
    if (nexus !== except) queueAttention(nexus, condition);
  }
}

export function queueAttention(nexus: Nexus, condition: Sense): void {
  const { attentions } = nexus;
  const waits = attentions.some(
    ({ asc, ascq }) => asc === condition.asc && ascq === condition.ascq,
  );
  if (!waits && attentions.length < unitAttentionsMax) attentions.push(condition);
}

export function isWriteProtected(unit: LogicalUnit): boolean {
  return unit.volume.unit().mode.writeProtected;
}

export function senseFormat(unit: LogicalUnit): "fixed" | "descriptor" {
  return unit.volume.unit().mode.descriptorSense ? "descriptor" : "fixed";
}

export function unitBlocks(unit: LogicalUnit): number {
  return Math.floor(unit.volume.info.sizeBytes / blockBytes);
}

/** Notices what has changed of the volume since the last command. */
export function watchUnitConditions(unit: LogicalUnit): void {
  const { sizeBytes } = unit.volume.info;
  if (sizeBytes === unit.reportedSizeBytes) return;
  unit.reportedSizeBytes = sizeBytes;
  raiseAttention(unit, sense.capacityChanged, null);
}
