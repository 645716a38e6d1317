import type { ReserveOut } from "../../brick/unit/unit-changes.ts";
import {
  type NexusId,
  type ReservationType,
  reservationType,
} from "../../brick/unit/unit-record.ts";
import { reservationListBytesMax } from "../limits.ts";
import { refused, type ScsiCommand, type ScsiResult } from "./command.ts";
import type { LogicalUnit } from "./logical-unit.ts";
import { invalidFieldInCdb, invalidFieldInParameters, type Sense, sense } from "./sense.ts";
import { decodeTransportId, type TransportId } from "./transport-id.ts";
import { changeUnit } from "./unit-change.ts";

/** PERSISTENT RESERVE OUT (SPC-4 §6.16), RESERVE(6) and RELEASE(6) (SPC-2 §7.16, §7.21). */

type Action = ReserveOut["action"];

/** By service action: SPC-4 table 213. */
export const reserveOutActions: readonly { code: number; action: Action; typed: boolean }[] = [
  { code: 0x00, action: "register", typed: false },
  { code: 0x01, action: "reserve", typed: true },
  { code: 0x02, action: "release", typed: true },
  { code: 0x03, action: "clear", typed: false },
  { code: 0x04, action: "preempt", typed: true },
  { code: 0x05, action: "preemptAndAbort", typed: true },
  { code: 0x06, action: "registerAndIgnore", typed: false },
  { code: 0x07, action: "registerAndMove", typed: false },
];

const types: ReadonlySet<number> = new Set(Object.values(reservationType));
const listBytes = 24;
const logicalUnitScope = 0;
/** Byte 20 of the parameter list. */
const flag = { specifyInitiatorPorts: 0x08, allTargetPorts: 0x04, aptpl: 0x01 } as const;
/** Byte 17 of REGISTER AND MOVE's list. */
const moveFlag = { unregister: 0x02, aptpl: 0x01 } as const;

export function reserveOutDataBytes(_unit: LogicalUnit, cdb: Buffer): number {
  const lengthBytes = cdb.readUInt32BE(5);
  return lengthBytes > reservationListBytesMax ? 0 : lengthBytes;
}

export async function reserveOut(command: ScsiCommand): Promise<ScsiResult> {
  const wantedBytes = command.cdb.readUInt32BE(5);
  // §6.16.1: too short for its action, or longer than is taken.
  if (wantedBytes < listBytes || wantedBytes > reservationListBytesMax) {
    return refused(sense.parameterListLength);
  }
  if (command.dataOutBytes < wantedBytes) return refused(sense.parameterListLength);
  const decoded = decodeReserveOut(command, Buffer.concat(command.dataOut));
  return decoded.ok ? changeUnit(command, decoded.change) : refused(decoded.sense);
}

type Decoded = { ok: true; change: ReserveOut } | { ok: false; sense: Sense };

function wrong(condition: Sense): Decoded {
  return { ok: false, sense: condition };
}

/** key[8] action-key[8] obsolete[4] flags[1] zero[1] obsolete[2], or REGISTER AND MOVE's own. */
function decodeReserveOut({ cdb, nexus, unit }: ScsiCommand, list: Buffer): Decoded {
  const { action, typed } = reserveOutActions[cdb[1]! & 0x1f]!;
  const scope = cdb[2]! >>> 4;
  const type = cdb[2]! & 0x0f;
  if (typed && scope !== logicalUnitScope) return wrong(invalidFieldInCdb(2, 7));
  if (typed && !types.has(type)) return wrong(invalidFieldInCdb(2, 3));
  const common = {
    type: "reserveOut" as const,
    nexus: nexus.id,
    action,
    reservation: typed ? (type as ReservationType) : null,
    key: list.toString("hex", 0, 8),
    actionKey: list.toString("hex", 8, 16),
  };
  if (action === "registerAndMove") {
    const move = decodeMove(unit, list);
    if ("key" in move) return wrong(move);
    const aptpl = (list[17]! & moveFlag.aptpl) !== 0;
    const rest = { aptpl, allTargetPorts: false, initiatorPorts: [], move };
    return { ok: true, change: { ...common, ...rest } };
  }
  const flags = list[20]!;
  const registers = action === "register" || action === "registerAndIgnore";
  const specifies = (flags & flag.specifyInitiatorPorts) !== 0;
  // §6.16.3: SPEC_I_PT is for REGISTER alone, and the only reason for a longer list.
  if (specifies && action !== "register") return wrong(invalidFieldInParameters(20, 3));
  if (!specifies && list.length !== listBytes) return wrong(sense.parameterListLength);
  const initiatorPorts = specifies ? decodeInitiatorPorts(unit, list) : [];
  if (!Array.isArray(initiatorPorts)) return wrong(initiatorPorts);
  return {
    ok: true,
    change: {
      ...common,
      aptpl: registers && (flags & flag.aptpl) !== 0,
      allTargetPorts: registers && (flags & flag.allTargetPorts) !== 0,
      initiatorPorts,
      move: null,
    },
  };
}

/** length[4], then TransportIDs to the list's end. */
function decodeInitiatorPorts(unit: LogicalUnit, list: Buffer): string[] | Sense {
  const start = listBytes + 4;
  if (list.length < start || list.readUInt32BE(listBytes) !== list.length - start) {
    return sense.parameterListLength;
  }
  const found: string[] = [];
  for (let at = start; at < list.length; ) {
    const one = decodeTransportId(list.subarray(at));
    const port = one === null ? undefined : initiatorPortOf(unit, one.id);
    if (one === null || port === undefined) return invalidFieldInParameters(at);
    found.push(port);
    at += one.lengthBytes;
  }
  return found;
}

/** key[8] action-key[8] zero[1] flags[1] target-port[2] length[4] TransportID */
function decodeMove(unit: LogicalUnit, list: Buffer): NonNullable<ReserveOut["move"]> | Sense {
  if (list.readUInt32BE(20) !== list.length - listBytes) return sense.parameterListLength;
  const targetPort = list.readUInt16BE(18);
  if (!unit.volume.ports().some((port) => port.targetPort === targetPort)) {
    return invalidFieldInParameters(18);
  }
  const one = decodeTransportId(list.subarray(listBytes));
  if (one === null || one.lengthBytes !== list.length - listBytes) {
    return invalidFieldInParameters(listBytes);
  }
  const initiatorPort = initiatorPortOf(unit, one.id);
  if (initiatorPort === undefined) return invalidFieldInParameters(listBytes);
  const to: NexusId = { initiatorPort, targetPort };
  return { to, unregister: (list[17]! & moveFlag.unregister) !== 0 };
}

/** A device name stands for the one port of it that is logged in here, if it is just one. */
function initiatorPortOf(unit: LogicalUnit, id: TransportId): string | undefined {
  if (id.kind === "port") return id.initiatorPort;
  const ports = new Set<string>();
  for (const { id: nexus } of unit.nexuses) {
    if (nexus.initiatorPort.startsWith(`${id.name},`)) ports.add(nexus.initiatorPort);
  }
  return ports.size === 1 ? [...ports][0] : undefined;
}

export function reserve6(command: ScsiCommand): ScsiResult | Promise<ScsiResult> {
  // SPC-2: third-party and extent reservations are obsolete.
  if ((command.cdb[1]! & 0x1f) !== 0) return refused(invalidFieldInCdb(1, 4));
  return changeUnit(command, { type: "reserve6", nexus: command.nexus.id });
}

export function release6(command: ScsiCommand): ScsiResult | Promise<ScsiResult> {
  if ((command.cdb[1]! & 0x1f) !== 0) return refused(invalidFieldInCdb(1, 4));
  return changeUnit(command, { type: "release6", nexus: command.nexus.id });
}
