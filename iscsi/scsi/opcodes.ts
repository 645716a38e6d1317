import type { CommandKind } from "../../brick/unit/conflicts.ts";
import {
  compareAndWrite,
  compareAndWriteDataBytes,
  orWrite,
  orWriteDataBytes,
  writeAtomic,
  writeAtomicDataBytes,
} from "./atomic-commands.ts";
import {
  prefetch,
  read,
  synchronizeCache,
  verify,
  verifyDataBytes,
  write,
  writeAndVerify,
  writeAndVerifyDataBytes,
  writeDataBytes,
} from "./block-commands.ts";
import type { CommandRow } from "./command.ts";
import {
  extendedCopy,
  extendedCopyDataBytes,
  receiveCopyStatus,
  receiveOperatingParameters,
} from "./copy-commands.ts";
import { copyOpcode, copyResultsAction } from "./copy-facts.ts";
import { readDefectData10, readDefectData12 } from "./defect-data.ts";
import { inquiry } from "./inquiry.ts";
import { logSense } from "./log-pages.ts";
import {
  modeSelect6,
  modeSelect6DataBytes,
  modeSelect10,
  modeSelect10DataBytes,
} from "./mode-select.ts";
import { modeSense6, modeSense10 } from "./mode-sense.ts";
import { reportPortGroups, setPortGroups, setPortGroupsDataBytes } from "./port-groups.ts";
import {
  getLbaStatus,
  unmap,
  unmapDataBytes,
  writeSame,
  writeSameDataBytes,
} from "./provisioning-commands.ts";
import {
  readFullStatus,
  readKeys,
  readReservation,
  reportCapabilities,
  reserveInAction,
} from "./reserve-in.ts";
import {
  release6,
  reserve6,
  reserveOut,
  reserveOutActions,
  reserveOutDataBytes,
} from "./reserve-out.ts";
import { blockErase, cryptographicErase, exitFailureMode, sanitizeAction } from "./sanitize.ts";
import {
  preventAllow,
  readCapacity10,
  readCapacity16,
  reportLuns,
  reportSupportedOpcodes,
  reportSupportedTaskManagement,
  requestSense,
  startStopUnit,
  testUnitReady,
} from "./unit-commands.ts";

/** The command set: what is not a row here is answered INVALID COMMAND OPERATION CODE. */
const writes = { run: write, dataOutBytes: writeDataBytes };
const verifies = { run: verify, dataOutBytes: verifyDataBytes, worksInSteps: true } as const;
const writesAndVerifies = {
  run: writeAndVerify,
  dataOutBytes: writeAndVerifyDataBytes,
  worksInSteps: true,
} as const;
const writesSame = {
  run: writeSame,
  dataOutBytes: writeSameDataBytes,
  worksInSteps: true,
} as const;
/** Commands that every unit answers at any time. */
const passes = { passesUnitAttention: true, whileSanitizing: "always" } as const;
const whileSanitizing = { whileSanitizing: "always" } as const;

/** In order of opcode, then service action. */
export const commandRows: readonly CommandRow[] = [
  row("TEST UNIT READY", 0x00, "000000000000", "status", { run: testUnitReady }),
  row("REQUEST SENSE", 0x03, "03010000ff00", "always", { run: requestSense, ...passes }),
  row("READ(6)", 0x08, "081fffffff00", "read", { run: read }),
  row("WRITE(6)", 0x0a, "0a1fffffff00", "write", writes),
  row("INQUIRY", 0x12, "1201ffffff00", "always", { run: inquiry, ...passes }),
  row("MODE SELECT(6)", 0x15, "15110000ff00", "write", {
    run: modeSelect6,
    dataOutBytes: modeSelect6DataBytes,
  }),
  row("RESERVE(6)", 0x16, "160000000000", "always", { run: reserve6 }),
  row("RELEASE(6)", 0x17, "170000000000", "always", { run: release6 }),
  row("MODE SENSE(6)", 0x1a, "1a08ffffff00", "status", { run: modeSense6 }),
  row("START STOP UNIT", 0x1b, "1b01000ff700", startStopKind, { run: startStopUnit }),
  row("PREVENT ALLOW MEDIUM REMOVAL", 0x1e, "1e0000000300", preventKind, {
    run: preventAllow,
  }),
  row("READ CAPACITY(10)", 0x25, "2500ffffffff00000100", "status", { run: readCapacity10 }),
  row("READ(10)", 0x28, "2818ffffffff1fffff00", "read", { run: read }),
  row("WRITE(10)", 0x2a, "2a18ffffffff1fffff00", "write", writes),
  row("WRITE AND VERIFY(10)", 0x2e, "2e12ffffffff1fffff00", "write", writesAndVerifies),
  row("VERIFY(10)", 0x2f, "2f16ffffffff1fffff00", "read", verifies),
  row("PRE-FETCH(10)", 0x34, "3402ffffffff1fffff00", "read", { run: prefetch }),
  row("SYNCHRONIZE CACHE(10)", 0x35, "3502ffffffff1fffff00", "write", { run: synchronizeCache }),
  row("READ DEFECT DATA(10)", 0x37, "37001f00000000ffff00", "read", { run: readDefectData10 }),
  row("WRITE SAME(10)", 0x41, "4108ffffffff1fffff00", "write", writesSame),
  row("UNMAP", 0x42, "4200000000001fffff00", "write", {
    run: unmap,
    dataOutBytes: unmapDataBytes,
  }),
  sanitizes("BLOCK ERASE", sanitizeAction.blockErase, 0xa0, blockErase),
  {
    ...sanitizes(
      "CRYPTOGRAPHIC ERASE",
      sanitizeAction.cryptographicErase,
      0xa0,
      cryptographicErase,
    ),
    encryptedOnly: true,
  },
  sanitizes("EXIT FAILURE MODE", sanitizeAction.exitFailureMode, 0x80, exitFailureMode),
  row("LOG SENSE", 0x4d, "4d003fff00ffffffff00", "always", { run: logSense }),
  row("MODE SELECT(10)", 0x55, "55110000000000ffff00", "write", {
    run: modeSelect10,
    dataOutBytes: modeSelect10DataBytes,
  }),
  row("MODE SENSE(10)", 0x5a, "5a18ffff000000ffff00", "status", { run: modeSense10 }),
  reservesIn("READ KEYS", reserveInAction.readKeys, readKeys),
  reservesIn("READ RESERVATION", reserveInAction.readReservation, readReservation),
  reservesIn("REPORT CAPABILITIES", reserveInAction.reportCapabilities, reportCapabilities),
  reservesIn("READ FULL STATUS", reserveInAction.readFullStatus, readFullStatus),
  ...reserveOutActions.map(({ code, typed }) =>
    action("PERSISTENT RESERVE OUT", 0x5f, code, `${typed ? "ff" : "00"}0000ffffffff00`, "status", {
      run: reserveOut,
      dataOutBytes: reserveOutDataBytes,
    }),
  ),
  action(
    "EXTENDED COPY(LID1)",
    copyOpcode.extendedCopy,
    0,
    "0000000000000000ffffffff0000",
    "write",
    {
      run: extendedCopy,
      dataOutBytes: extendedCopyDataBytes,
    },
  ),
  receivesCopyResults("COPY STATUS", copyResultsAction.copyStatus, receiveCopyStatus),
  receivesCopyResults(
    "OPERATING PARAMETERS",
    copyResultsAction.operatingParameters,
    receiveOperatingParameters,
  ),
  row("READ(16)", 0x88, "8818ffffffffffffffffffffffff1f00", "read", { run: read }),
  row("COMPARE AND WRITE", 0x89, "8918ffffffffffffffff000000ff1f00", "write", {
    run: compareAndWrite,
    dataOutBytes: compareAndWriteDataBytes,
  }),
  row("WRITE(16)", 0x8a, "8a18ffffffffffffffffffffffff1f00", "write", writes),
  row("ORWRITE", 0x8b, "8b18ffffffffffffffffffffffff1f00", "write", {
    run: orWrite,
    dataOutBytes: orWriteDataBytes,
    worksInSteps: true,
  }),
  row("WRITE AND VERIFY(16)", 0x8e, "8e12ffffffffffffffffffffffff1f00", "write", writesAndVerifies),
  row("VERIFY(16)", 0x8f, "8f16ffffffffffffffffffffffff1f00", "read", verifies),
  row("PRE-FETCH(16)", 0x90, "9002ffffffffffffffffffffffff1f00", "read", { run: prefetch }),
  row("SYNCHRONIZE CACHE(16)", 0x91, "9102ffffffffffffffffffffffff1f00", "write", {
    run: synchronizeCache,
  }),
  row("WRITE SAME(16)", 0x93, "9309ffffffffffffffffffffffff1f00", "write", writesSame),
  row("WRITE ATOMIC(16)", 0x9c, "9c18ffffffffffffffff0000ffff1f00", "write", {
    run: writeAtomic,
    dataOutBytes: writeAtomicDataBytes,
  }),
  action("READ CAPACITY(16)", 0x9e, 0x10, "ffffffffffffffffffffffff0100", "status", {
    run: readCapacity16,
  }),
  action("GET LBA STATUS", 0x9e, 0x12, "ffffffffffffffffffffffff0000", "read", {
    run: getLbaStatus,
  }),
  row("REPORT LUNS", 0xa0, "a000ff000000ffffffff0000", "always", {
    run: (command) => reportLuns(command.cdb, command.luns),
    ...passes,
  }),
  action(
    "REPORT TARGET PORT GROUPS",
    0xa3,
    0x0a,
    "00000000ffffffff0000",
    "status",
    { run: reportPortGroups, ...whileSanitizing },
    0xe0,
  ),
  action("REPORT SUPPORTED OPERATION CODES", 0xa3, 0x0c, "87ffffffffffffff0000", "status", {
    run: (command) => reportSupportedOpcodes(command, commandRows),
    ...whileSanitizing,
  }),
  action(
    "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
    0xa3,
    0x0d,
    "80000000ffffffff0000",
    "status",
    { run: reportSupportedTaskManagement, ...whileSanitizing },
  ),
  action("SET TARGET PORT GROUPS", 0xa4, 0x0a, "00000000ffffffff0000", "write", {
    run: setPortGroups,
    dataOutBytes: setPortGroupsDataBytes,
  }),
  row("READ(12)", 0xa8, "a818ffffffffffffffff1f00", "read", { run: read }),
  row("WRITE(12)", 0xaa, "aa18ffffffffffffffff1f00", "write", writes),
  row("WRITE AND VERIFY(12)", 0xae, "ae12ffffffffffffffff1f00", "write", writesAndVerifies),
  row("VERIFY(12)", 0xaf, "af16ffffffffffffffff1f00", "read", verifies),
  row("READ DEFECT DATA(12)", 0xb7, "b71fffffffffffffffff0000", "read", { run: readDefectData12 }),
];

type Rest = Omit<CommandRow, "name" | "opcode" | "serviceAction" | "usage" | "kind">;
type Kind = CommandRow["kind"];

function row(name: string, opcode: number, usage: string, kind: Kind, rest: Rest): CommandRow {
  return { name, opcode, usage, kind, ...rest };
}

/** `flags`: the bits of byte 1 above the service action; `usageRest`: what is behind it. */
function action(
  name: string,
  opcode: number,
  serviceAction: number,
  usageRest: string,
  kind: Kind,
  rest: Rest,
  flags = 0,
): CommandRow {
  const usage = Buffer.from([opcode, flags | serviceAction]).toString("hex") + usageRest;
  return { name, opcode, serviceAction, usage, kind, ...rest };
}

function receivesCopyResults(
  name: string,
  serviceAction: number,
  run: CommandRow["run"],
): CommandRow {
  const opcode = copyOpcode.receiveCopyResults;
  const usage = "ff00000000000000ffffffff0000";
  return action(`RECEIVE COPY RESULTS, ${name}`, opcode, serviceAction, usage, "status", { run });
}

/** Nothing is left to chance: what is not known is refused. It may be tried again after a failure. */
function sanitizes(
  name: string,
  serviceAction: number,
  flags: number,
  run: CommandRow["run"],
): CommandRow {
  const rest = { run, strict: true, whileSanitizing: "failed" } as const;
  return action(`SANITIZE, ${name}`, 0x48, serviceAction, "0000000000ffff00", "write", rest, flags);
}

function reservesIn(name: string, serviceAction: number, run: CommandRow["run"]): CommandRow {
  const usage = "0000000000ffff00";
  return action(`PERSISTENT RESERVE IN, ${name}`, 0x5e, serviceAction, usage, "persistentReserve", {
    run,
  });
}

/** SBC-3 table 13: starting the unit harms nobody. */
function startStopKind(cdb: Buffer): CommandKind {
  const starts = (cdb[4]! & 0x01) !== 0 && cdb[4]! >>> 4 === 0;
  return starts ? "status" : "write";
}

/** SPC-4 table 50: allowing removal harms nobody. */
function preventKind(cdb: Buffer): CommandKind {
  return (cdb[4]! & 0x03) === 0 ? "always" : "write";
}

const byOpcode: readonly (readonly CommandRow[])[] = Array.from({ length: 256 }, (_, opcode) =>
  commandRows.filter((one) => one.opcode === opcode),
);

/** The row for a CDB; undefined: no such command; null: no such service action. */
export function findCommand(cdb: Buffer): CommandRow | undefined | null {
  const found = byOpcode[cdb[0]!]!;
  const first = found[0];
  if (first === undefined || first.serviceAction === undefined) return first;
  const wanted = cdb[1]! & 0x1f;
  return found.find((one) => one.serviceAction === wanted) ?? null;
}

/** The name of an opcode's (first) command, for metrics and people. */
export function commandName(opcode: number): string {
  return byOpcode[opcode]?.[0]?.name ?? `0x${opcode.toString(16).padStart(2, "0")}`;
}
