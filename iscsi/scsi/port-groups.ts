import type { VolumePort } from "../../brick/volume/volume.ts";
import { portGroupListBytesMax, portTransitionSeconds } from "../limits.ts";
import {
  faultResult,
  good,
  parameterData,
  refused,
  type ScsiCommand,
  type ScsiResult,
  withStatus,
} from "./command.ts";
import { type LogicalUnit, raisePortsChanged, tellPorts } from "./logical-unit.ts";
import {
  invalidFieldInCdb,
  invalidFieldInParameters,
  type Sense,
  scsiStatus,
  sense,
} from "./sense.ts";

/**
 * Asymmetric logical unit access (SPC-4 §5.16, §6.37, §6.43). Each brick is a target port group of
 * one port, with its number; the gateway that serves the volume is the active/optimized one.
 */

const accessState = { optimized: 0x0, nonOptimized: 0x1, unavailable: 0x3 } as const;
/** U_SUP, AN_SUP, AO_SUP. */
const supportedStates = 0x08 | 0x02 | 0x01;
/** STATUS CODE: the state changed without a command, as far as is known. */
const byImplicitBehaviour = 0x02;
const format = { lengthOnly: 0, extended: 1 } as const;

export function reportPortGroups({ cdb, unit }: ScsiCommand): ScsiResult {
  const wanted = cdb[1]! >>> 5;
  if (wanted > format.extended) return refused(invalidFieldInCdb(1, 7));
  const groups = tellPorts(unit).map(portGroup);
  const extended = wanted === format.extended;
  const head = Buffer.alloc(extended ? 8 : 4);
  if (extended) {
    head[4] = format.extended << 4;
    head[5] = portTransitionSeconds;
  }
  const out = Buffer.concat([head, ...groups]);
  out.writeUInt32BE(out.length - 4, 0);
  return parameterData(out, cdb.readUInt32BE(6));
}

/** state[1] supported[1] group[2] zero[1] status[1] zero[1] count[1]; zero[2] port[2] each */
function portGroup({ targetPort, state }: VolumePort): Buffer {
  const out = Buffer.alloc(12);
  out[0] = accessState[state];
  out[1] = supportedStates;
  out.writeUInt16BE(targetPort, 2);
  out[5] = byImplicitBehaviour;
  out[7] = 1;
  out.writeUInt16BE(targetPort, 10);
  return out;
}

export function setPortGroupsDataBytes(_unit: LogicalUnit, cdb: Buffer): number {
  const lengthBytes = cdb.readUInt32BE(6);
  return lengthBytes > portGroupListBytesMax ? 0 : lengthBytes;
}

export async function setPortGroups(command: ScsiCommand): Promise<ScsiResult> {
  const { cdb, unit, nexus, task } = command;
  const wantedBytes = cdb.readUInt32BE(6);
  if (wantedBytes === 0) return good;
  if (wantedBytes > portGroupListBytesMax || command.dataOutBytes < wantedBytes) {
    return refused(sense.parameterListLength);
  }
  const wish = decodeWish(Buffer.concat(command.dataOut), unit.volume.ports());
  if (typeof wish !== "number") return refused(wish);
  const reply = await unit.volume.moveTo(wish);
  if (task.cancelled) return withStatus(scsiStatus.taskAborted);
  if (reply.ok) {
    raisePortsChanged(unit, nexus);
    return good;
  }
  // §6.43: what cannot be done now is told as such; the states are as they were.
  const failed = reply.fault.code === "unavailable";
  return failed ? refused(sense.setPortGroupsFailed) : faultResult(reply.fault);
}

/**
 * zero[4], then state[1] zero[1] group[2] each: the group that is to be optimized, or what is
 * wrong. There is one at any time, so that the others become non-optimized, named or not.
 */
function decodeWish(list: Buffer, ports: readonly VolumePort[]): number | Sense {
  if (list.length < 4 || list.length % 4 !== 0) return sense.parameterListLength;
  const states = new Map<number, number>();
  for (let at = 4; at < list.length; at += 4) {
    const state = list[at]! & 0x0f;
    const group = list.readUInt16BE(at + 2);
    if (!ports.some(({ targetPort }) => targetPort === group)) {
      return invalidFieldInParameters(at + 2);
    }
    if (state !== accessState.optimized && state !== accessState.nonOptimized) {
      return invalidFieldInParameters(at, 3);
    }
    if (states.has(group)) return invalidFieldInParameters(at + 2);
    states.set(group, state);
  }
  const optimized = [...states].filter(([, state]) => state === accessState.optimized);
  if (optimized.length > 1) return invalidFieldInParameters(4, 3);
  if (optimized.length === 1) return optimized[0]![0];
  const serving = ports.find(({ state }) => state === "optimized");
  // Nothing to be moved unless it is the serving one that is to step back; then any other will do.
  if (serving === undefined) return sense.setPortGroupsFailed;
  if (!states.has(serving.targetPort)) return serving.targetPort;
  const other = ports.find(({ state }) => state === "nonOptimized");
  return other === undefined ? sense.setPortGroupsFailed : other.targetPort;
}
