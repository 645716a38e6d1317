import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { noRuns, type SoakSum } from "./soak.ts";

/** What a soak in parts has come to: the next part goes on from there. */
export interface SoakRecord {
  readonly sum: SoakSum;
  seedNext: number;
}

export function readRecord(path: string, seedFirst: number): SoakRecord {
  if (!existsSync(path)) return { sum: noRuns(), seedNext: seedFirst };
  const { seedNext, sum } = JSON.parse(readFileSync(path, "utf8"));
  return { seedNext, sum: { ...sum, partitionShapes: new Set(sum.partitionShapes) } };
}

export function writeRecord(path: string, { sum, seedNext }: SoakRecord): void {
  const shapes = [...sum.partitionShapes];
  writeFileSync(
    `${path}.new`,
    JSON.stringify({ seedNext, sum: { ...sum, partitionShapes: shapes } }),
  );
  renameSync(`${path}.new`, path);
}
