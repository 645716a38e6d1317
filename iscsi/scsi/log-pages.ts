import { parameterData, refused, type ScsiCommand, type ScsiResult } from "./command.ts";
import type { LogicalUnit } from "./logical-unit.ts";
import { invalidFieldInCdb } from "./sense.ts";
import { thresholdSets } from "./space-threshold.ts";

/** LOG SENSE and the log pages (SPC-4 §6.8 and §7.3, SBC-4 §6.4). Nothing is counted or saved. */

/** code, and its content behind control[1] length[1]. */
type Parameter = readonly [code: number, content: readonly number[]];

interface LogPage {
  readonly page: number;
  readonly subpage: number;
  readonly parameters: (unit: LogicalUnit) => readonly Parameter[];
}

/** In order of page. Pages 00 and 00/FF list these. */
const logPages: readonly LogPage[] = [
  { page: 0x0c, subpage: 0, parameters: provisioningParameters },
  // Informational exceptions: none; the temperature is not known.
  { page: 0x2f, subpage: 0, parameters: () => [[0x0000, [0x00, 0x00, 0xff, 0x00]]] },
];

const allSubpages = 0xff;
/** DU 0, TSD 0, a binary list parameter (FORMAT AND LINKING 11b). */
const parameterControl = 0x03;
const scope = { thisUnit: 0x01, shared: 0x02 } as const;

/** SBC-4 §6.4.4: what can still be allocated is everybody's, what is used is this unit's. */
function provisioningParameters(unit: LogicalUnit): readonly Parameter[] {
  const { freeBytes, usedBytes } = unit.volume.space();
  return [
    [0x0001, resourceCount(freeBytes, scope.shared)],
    [0x0002, resourceCount(usedBytes, scope.thisUnit)],
  ];
}

/** count[4] scope[1] zero[3] */
function resourceCount(bytes: number, whose: number): number[] {
  const count = Buffer.alloc(8);
  count.writeUInt32BE(thresholdSets(bytes), 0);
  count[4] = whose;
  return [...count];
}

export function logSense(command: ScsiCommand): ScsiResult {
  const { cdb, unit } = command;
  // SP: nothing is saved. PPC is obsolete.
  if ((cdb[1]! & 0x01) !== 0) return refused(invalidFieldInCdb(1, 0));
  const page = cdb[2]! & 0x3f;
  const subpage = cdb[3]!;
  const from = cdb.readUInt16BE(5);
  const allocationLength = cdb.readUInt16BE(7);
  if (page === 0) {
    if (subpage !== 0 && subpage !== allSubpages) return refused(invalidFieldInCdb(3));
    if (from !== 0) return refused(invalidFieldInCdb(5));
    return parameterData(withHead(0, subpage, supportedPages(subpage)), allocationLength);
  }
  const found = logPages.find((one) => one.page === page);
  if (found === undefined) return refused(invalidFieldInCdb(2, 5));
  if (found.subpage !== subpage) return refused(invalidFieldInCdb(3));
  const parameters = found.parameters(unit);
  // §6.8: a PARAMETER POINTER past the last parameter.
  if (from > parameters.at(-1)![0]) return refused(invalidFieldInCdb(5));
  const wanted = parameters.filter(([code]) => code >= from);
  const content = wanted.flatMap(([code, bytes]) => {
    return [code >>> 8, code & 0xff, parameterControl, bytes.length, ...bytes];
  });
  return parameterData(withHead(page, subpage, content), allocationLength);
}

function supportedPages(subpage: number): number[] {
  const pages = [{ page: 0, subpage: 0 }, ...logPages.map(({ page }) => ({ page, subpage: 0 }))];
  if (subpage === 0) return pages.map(({ page }) => page);
  pages.splice(1, 0, { page: 0, subpage: allSubpages });
  return pages.flatMap((one) => [one.page, one.subpage]);
}

/** DS: the page is never saved. */
const disableSave = 0x80;

/** page[1] subpage[1] length[2] */
function withHead(page: number, subpage: number, content: readonly number[]): Buffer {
  const subpageFormat = subpage === 0 ? 0 : 0x40;
  const head = [disableSave | subpageFormat | page, subpage, content.length >>> 8];
  return Buffer.from([...head, content.length & 0xff, ...content]);
}
