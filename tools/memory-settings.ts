import { setFlagsFromString } from "node:v8";
import { heapGrowthPercent } from "../brick/memory-budget.ts";

/**
 * How a brick's process lets its garbage be collected. Data passes through as buffers, by the gigabyte,
 * and V8 would walk the whole heap for every 64 MiB of them; the heap itself hardly changes. So buffers
 * count as what they are, memory like any other, and the collector waits until what is in use has
 * doubled, or grown by less where memory is bounded. Twice the throughput of large reads and writes, for half as much memory again.
 */
const accounting = "--external-memory-accounted-in-global-limit";

/** To be called before the process has received any data. */
export function settleCollector(memoryBytes: number | null): void {
  setFlagsFromString(accounting);
  setFlagsFromString(`--heap-growing-percent=${heapGrowthPercent(memoryBytes)}`);
}
