import { commandName } from "../../iscsi/scsi/opcodes.ts";
import type { Coverage } from "./coverage.ts";

/** What a run has done, in lines for people. */

const requestNames: Readonly<Record<number, string>> = {
  0: "NOP-Out",
  1: "SCSI Command",
  2: "Task Management",
  3: "Login",
  4: "Text",
  5: "Data-Out",
  6: "Logout",
  16: "SNACK",
};

export function summaryLines(coverage: Coverage): string[] {
  const { pdus, mutated, connections, logins, answers, innocentReads, innocentWrites } = coverage;
  const other = [...coverage.sentOpcodes].filter(([opcode]) => requestNames[opcode] === undefined);
  const otherCount = other.reduce((sum, [, count]) => sum + count, 0);
  const requests = Object.entries(requestNames).map(
    ([opcode, name]) => `${name} ${coverage.sentOpcodes.get(Number(opcode)) ?? 0}`,
  );
  return [
    `${mutated} mutated of ${pdus} PDUs, ${connections} connections, ${logins} logins, ${answers} answers; innocents: ${innocentReads} reads, ${innocentWrites} writes, all right`,
    `requests: ${requests.join(", ")}, ${other.length} other opcodes ${otherCount}`,
    `logins refused: ${counts(coverage.loginsRefused, (status) => hex(status, 4))}`,
    `protocol errors: ${counts(coverage.protocolErrors, (reason) => reason)}`,
    `SCSI commands (GOOD/other): ${scsiCounts(coverage)}`,
  ];
}

function counts<K>(map: ReadonlyMap<K, number>, name: (key: K) => string): string {
  const sorted = [...map].sort(([, a], [, b]) => b - a);
  return sorted.map(([key, count]) => `${name(key)} ${count}`).join(", ") || "none";
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

function scsiCounts({ scsi }: Coverage): string {
  const lines: string[] = [];
  let unknown = 0;
  for (const [opcode, statuses] of [...scsi].sort(([a], [b]) => a - b)) {
    const good = statuses.get(0) ?? 0;
    const all = [...statuses.values()].reduce((sum, count) => sum + count, 0);
    const name = commandName(opcode);
    if (name.startsWith("0x")) unknown += all;
    else lines.push(`${name} ${good}/${all - good}`);
  }
  return `${lines.join(", ")}, no such command ${unknown}`;
}
