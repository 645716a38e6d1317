import {
  type NexusId,
  namesNexus,
  type Registration,
  reservationType,
  sameNexus,
  type UnitRecord,
} from "../../brick/unit/unit-record.ts";
import type { VolumePort } from "../../brick/volume/volume.ts";
import { faultResult, parameterData, type ScsiCommand, type ScsiResult } from "./command.ts";
import { encodeTransportId } from "./transport-id.ts";

/** PERSISTENT RESERVE IN (SPC-4 §6.15), one function a service action. */

export const reserveInAction = {
  readKeys: 0x00,
  readReservation: 0x01,
  reportCapabilities: 0x02,
  readFullStatus: 0x03,
} as const;

type Report = (unit: UnitRecord, ports: readonly VolumePort[]) => Buffer;

function reports(report: Report): (command: ScsiCommand) => Promise<ScsiResult> {
  return async ({ cdb, unit }) => {
    const fresh = await unit.volume.freshUnit();
    if (!fresh.ok) return faultResult(fresh.fault);
    return parameterData(report(fresh.unit, unit.volume.ports()), cdb.readUInt16BE(7));
  };
}

export const readKeys = reports((unit) => {
  const keys = unit.reservations.registrations.map(({ key }) => Buffer.from(key, "hex"));
  return withGeneration(unit, keys);
});

/** key[8] obsolete[4] zero[1] scope-and-type[1] obsolete[2]; nothing without a reservation. */
export const readReservation = reports((unit) => {
  const { held, registrations } = unit.reservations;
  if (held === null) return withGeneration(unit, []);
  const out = Buffer.alloc(16);
  // §6.15.3.2: with the all-registrants types the key is zero.
  const holder = registrations.find(({ nexus }) => namesNexus(nexus, held.holder));
  if (!isAllRegistrants(held.type) && holder !== undefined) out.write(holder.key, 0, "hex");
  out[13] = held.type;
  return withGeneration(unit, [out]);
});

/** Byte 2: CRH, SIP_C, ATP_C, PTPL_C. */
const capabilityFlags = 0x10 | 0x08 | 0x04 | 0x01;
/** Byte 3: TMV, and ALLOW COMMANDS 100b: what is not medium access runs under any type. */
const typesValid = 0x80;
const allowCommands = 0x40;
/** Bytes 4 and 5, as each type's bit is placed in PERSISTENT RESERVATION TYPE MASK. */
const typeMask = [0x80 | 0x40 | 0x20 | 0x08 | 0x02, 0x01] as const;

export const reportCapabilities = reports((unit) => {
  const persists = unit.reservations.aptpl ? 0x01 : 0;
  const flags = [capabilityFlags, typesValid | allowCommands | persists];
  return Buffer.from([0, 8, ...flags, ...typeMask, 0, 0]);
});

/** key[8] zero[4] flags[1] scope-and-type[1] zero[4] target-port[2] length[4] TransportID */
export const readFullStatus = reports((unit, ports) => {
  const descriptors = unit.reservations.registrations.flatMap((registration) =>
    perHolding(unit, registration, ports).map(({ nexus, holds }) => {
      const head = Buffer.alloc(24);
      head.write(registration.key, 0, "hex");
      head[12] = (nexus.targetPort === 0 ? 0x02 : 0) | (holds ? 0x01 : 0);
      head[13] = holds ? unit.reservations.held!.type : 0;
      head.writeUInt16BE(nexus.targetPort, 18);
      const transportId = encodeTransportId(nexus.initiatorPort);
      head.writeUInt32BE(transportId.length, 20);
      return Buffer.concat([head, transportId]);
    }),
  );
  return withGeneration(unit, descriptors);
});

/**
 * A registration at all target ports is one descriptor (ALL_TG_PT) unless one of its nexuses alone
 * holds the reservation: R_HOLDER speaks of every nexus that a descriptor covers (§6.15.5).
 */
function perHolding(
  unit: UnitRecord,
  { nexus }: Registration,
  ports: readonly VolumePort[],
): { nexus: NexusId; holds: boolean }[] {
  const { held } = unit.reservations;
  if (held === null) return [{ nexus, holds: false }];
  if (isAllRegistrants(held.type)) return [{ nexus, holds: true }];
  const { holder } = held;
  if (!namesNexus(nexus, holder)) return [{ nexus, holds: false }];
  if (nexus.targetPort !== 0 || holder.targetPort === 0) return [{ nexus, holds: true }];
  const numbers = new Set([holder.targetPort, ...ports.map(({ targetPort }) => targetPort)]);
  return [...numbers].map((targetPort) => {
    const one = { ...nexus, targetPort };
    return { nexus: one, holds: sameNexus(one, holder) };
  });
}

export function isAllRegistrants(type: number): boolean {
  return (
    type === reservationType.writeExclusiveAllRegistrants ||
    type === reservationType.exclusiveAccessAllRegistrants
  );
}

/** generation[4] length[4] content; the length is what there is, however much is asked for. */
function withGeneration(unit: UnitRecord, content: readonly Buffer[]): Buffer {
  const body = Buffer.concat(content);
  const head = Buffer.alloc(8);
  head.writeUInt32BE(unit.reservations.generation, 0);
  head.writeUInt32BE(body.length, 4);
  return Buffer.concat([head, body]);
}
