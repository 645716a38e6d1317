import type { CommandKind } from "../../brick/unit/conflicts.ts";
import {
  concernsNexus,
  type NexusId,
  sameNexus,
  type UnitNotice,
  type UnitRecord,
} from "../../brick/unit/unit-record.ts";
import type { Volume, VolumePort } from "../../brick/volume/volume.ts";
import { unitAttentionsMax, watchEveryCommands } from "../limits.ts";
import { blockBytes } from "./cdb.ts";
import type { CopyProgress } from "./copy-commands.ts";
import { type Sense, sense } from "./sense.ts";
import { softThreshold } from "./space-threshold.ts";

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
  /** null: nobody has served the volume yet, and nobody has asked where its ports stand. */
  reportedPorts: readonly VolumePort[] | null;
  /** Whether the soft threshold was crossed when it was last looked at. */
  spaceIsLow: boolean;
  /** Commands since ports and space were looked at. */
  unwatched: number;
}

/** One I_T nexus at one logical unit: what this initiator must still be told. */
export interface Nexus {
  readonly id: NexusId;
  /** Oldest first. */
  readonly attentions: Sense[];
  /** Copies that it may ask about, by list identifier, oldest first. */
  readonly copies: Map<number, CopyProgress>;
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
    reportedPorts: options.volume.isServed() ? options.volume.ports() : null,
    spaceIsLow: softThreshold(options.volume.space()).crossed,
    unwatched: 0,
  };
}

/** `isid`: 12 hex digits. */
export function addNexus(unit: LogicalUnit, initiatorName: string, isid: string): Nexus {
  const id = {
    // SPC-4 §7.6.4.6: the iSCSI TransportID of an initiator port.
    initiatorPort: `${initiatorName},i,0x${isid}`,
    targetPort: unit.portalGroupTag,
  };
  const nexus: Nexus = { id, attentions: [sense.powerOn], copies: new Map() };
  unit.nexuses.add(nexus);
  return nexus;
}

/** Whether commands that were ended are answered TASK ABORTED. */
export type Ending = "answered" | "silent";

/** Takes in a newer record of the unit; returns the nexuses whose commands it ends, and how. */
export function takeUnitRecord(unit: LogicalUnit, record: UnitRecord): Map<Nexus, Ending> {
  const ended = new Map<Nexus, Ending>();
  const oldest = record.notices[0]?.sequence ?? record.noticeNext;
  if (oldest > unit.noticeNext) {
    // Too far behind to know what was missed: as after a reset.
    for (const nexus of unit.nexuses) {
      queueAttention(nexus, sense.resetOccurred);
      ended.set(nexus, "silent");
    }
  }
  for (const notice of record.notices) {
    if (notice.sequence < unit.noticeNext) continue;
    for (const nexus of unit.nexuses) {
      if (!concernsNexus(notice, nexus.id)) continue;
      if (notice.condition !== "tasksEnded") queueAttention(nexus, sense[notice.condition]);
      // What came first has ended them.
      if (notice.endsTasks && !ended.has(nexus)) ended.set(nexus, endingOf(notice, nexus));
    }
  }
  unit.noticeNext = record.noticeNext;
  return ended;
}

/** SPC-4 §7.5.8: TAS is about what other nexuses abort. */
function endingOf({ abortedBy }: UnitNotice, nexus: Nexus): Ending {
  return abortedBy !== undefined && !sameNexus(abortedBy, nexus.id) ? "answered" : "silent";
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

/**
 * Notices what has changed of the volume since the last command. Ports and space cost more to look
 * at than a cached read: before reads and writes it is done now and then.
 */
export function watchUnitConditions(unit: LogicalUnit, kind: CommandKind): void {
  const { volume } = unit;
  const { sizeBytes } = volume.info;
  if (sizeBytes !== unit.reportedSizeBytes) {
    unit.reportedSizeBytes = sizeBytes;
    raiseAttention(unit, sense.capacityChanged, null);
  }
  unit.unwatched += 1;
  const isFrequent = kind === "read" || kind === "write";
  if (isFrequent && unit.unwatched < watchEveryCommands) return;
  unit.unwatched = 0;
  raisePortsChanged(unit, null);
  // SBC-4 §4.7.3.7: once for each time that the free space falls to the threshold.
  const { crossed } = softThreshold(volume.space());
  if (crossed && !unit.spaceIsLow) raiseAttention(unit, sense.softThresholdReached, null);
  unit.spaceIsLow = crossed;
}

/**
 * SPC-4 §5.16.2.6: all but the one who asked for the change are told of it. That a volume comes to
 * be served by its first use changes nothing for initiators that never saw it otherwise: some give
 * up at an attention in their first commands.
 */
export function raisePortsChanged(unit: LogicalUnit, except: Nexus | null): void {
  if (unit.reportedPorts === null && !unit.volume.isServed()) return;
  const ports = unit.volume.ports();
  const reported = unit.reportedPorts ?? ports;
  unit.reportedPorts = ports;
  if (!samePorts(ports, reported)) raiseAttention(unit, sense.accessStateChanged, except);
}

/** The ports' states, for an initiator that asks and will be told of changes. */
export function tellPorts(unit: LogicalUnit): readonly VolumePort[] {
  const ports = unit.volume.ports();
  unit.reportedPorts ??= ports;
  return ports;
}

function samePorts(ports: readonly VolumePort[], others: readonly VolumePort[]): boolean {
  if (ports === others) return true;
  return (
    ports.length === others.length &&
    ports.every(({ targetPort, state }, index) => {
      const other = others[index]!;
      return targetPort === other.targetPort && state === other.state;
    })
  );
}
