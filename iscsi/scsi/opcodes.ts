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
import { inquiry } from "./inquiry.ts";
import {
  modeSelect6,
  modeSelect6DataBytes,
  modeSelect10,
  modeSelect10DataBytes,
  modeSense6,
  modeSense10,
} from "./mode.ts";
import {
  getLbaStatus,
  unmap,
  unmapDataBytes,
  writeSame,
  writeSameDataBytes,
} from "./provisioning-commands.ts";
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
const passes = { passesUnitAttention: true } as const;

/** In order of opcode, then service action. */
export const commandRows: readonly CommandRow[] = [
  row("TEST UNIT READY", 0x00, "000000000000", { run: testUnitReady }),
  row("REQUEST SENSE", 0x03, "03010000ff00", { run: requestSense, ...passes }),
  row("READ(6)", 0x08, "081fffffff00", { run: read }),
  row("WRITE(6)", 0x0a, "0a1fffffff00", writes),
  row("INQUIRY", 0x12, "1201ffffff00", { run: inquiry, ...passes }),
  row("MODE SELECT(6)", 0x15, "15110000ff00", {
    run: modeSelect6,
    dataOutBytes: modeSelect6DataBytes,
  }),
  row("MODE SENSE(6)", 0x1a, "1a08ffffff00", { run: modeSense6 }),
  row("START STOP UNIT", 0x1b, "1b01000ff700", { run: startStopUnit }),
  row("PREVENT ALLOW MEDIUM REMOVAL", 0x1e, "1e0000000300", { run: preventAllow }),
  row("READ CAPACITY(10)", 0x25, "2500ffffffff00000100", { run: readCapacity10 }),
  row("READ(10)", 0x28, "2818ffffffff1fffff00", { run: read }),
  row("WRITE(10)", 0x2a, "2a18ffffffff1fffff00", writes),
  row("WRITE AND VERIFY(10)", 0x2e, "2e12ffffffff1fffff00", writesAndVerifies),
  row("VERIFY(10)", 0x2f, "2f16ffffffff1fffff00", verifies),
  row("PRE-FETCH(10)", 0x34, "3402ffffffff1fffff00", { run: prefetch }),
  row("SYNCHRONIZE CACHE(10)", 0x35, "3502ffffffff1fffff00", { run: synchronizeCache }),
  row("WRITE SAME(10)", 0x41, "4108ffffffff1fffff00", writesSame),
  row("UNMAP", 0x42, "4200000000001fffff00", { run: unmap, dataOutBytes: unmapDataBytes }),
  row("MODE SELECT(10)", 0x55, "55110000000000ffff00", {
    run: modeSelect10,
    dataOutBytes: modeSelect10DataBytes,
  }),
  row("MODE SENSE(10)", 0x5a, "5a18ffff000000ffff00", { run: modeSense10 }),
  row("READ(16)", 0x88, "8818ffffffffffffffffffffffff1f00", { run: read }),
  row("WRITE(16)", 0x8a, "8a18ffffffffffffffffffffffff1f00", writes),
  row("WRITE AND VERIFY(16)", 0x8e, "8e12ffffffffffffffffffffffff1f00", writesAndVerifies),
  row("VERIFY(16)", 0x8f, "8f16ffffffffffffffffffffffff1f00", verifies),
  row("PRE-FETCH(16)", 0x90, "9002ffffffffffffffffffffffff1f00", { run: prefetch }),
  row("SYNCHRONIZE CACHE(16)", 0x91, "9102ffffffffffffffffffffffff1f00", {
    run: synchronizeCache,
  }),
  row("WRITE SAME(16)", 0x93, "9309ffffffffffffffffffffffff1f00", writesSame),
  action("READ CAPACITY(16)", 0x9e, 0x10, "9e1fffffffffffffffffffffffff0100", {
    run: readCapacity16,
  }),
  action("GET LBA STATUS", 0x9e, 0x12, "9e1fffffffffffffffffffffffff0000", { run: getLbaStatus }),
  row("REPORT LUNS", 0xa0, "a000ff000000ffffffff0000", {
    run: (command) => reportLuns(command.cdb),
    ...passes,
  }),
  action("REPORT SUPPORTED OPERATION CODES", 0xa3, 0x0c, "a31f87ffffffffffffff0000", {
    run: (command) => reportSupportedOpcodes(command, commandRows),
  }),
  action("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", 0xa3, 0x0d, "a31f80000000ffffffff0000", {
    run: reportSupportedTaskManagement,
  }),
  row("READ(12)", 0xa8, "a818ffffffffffffffff1f00", { run: read }),
  row("WRITE(12)", 0xaa, "aa18ffffffffffffffff1f00", writes),
  row("WRITE AND VERIFY(12)", 0xae, "ae12ffffffffffffffff1f00", writesAndVerifies),
  row("VERIFY(12)", 0xaf, "af16ffffffffffffffff1f00", verifies),
];

type Rest = Pick<CommandRow, "run" | "dataOutBytes" | "worksInSteps" | "passesUnitAttention">;

function row(name: string, opcode: number, usage: string, rest: Rest): CommandRow {
  return { name, opcode, usage, ...rest };
}

function action(
  name: string,
  opcode: number,
  serviceAction: number,
  usage: string,
  rest: Rest,
): CommandRow {
  return { name, opcode, serviceAction, usage, ...rest };
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
