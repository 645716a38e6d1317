import { setFlagsFromString } from "node:v8";
import { heapGrowthPercent } from "../brick/memory-budget.ts";

/**
 * How a brick's process lets its garbage be collected. Data passes through as buffers, by the gigabyte,
 * and V8 would walk the whole heap for every 64 MiB of them; the heap itself hardly changes. So buffers
 * count as what they are, memory like any other, and the collector waits until what is in use has
 * doubled, or grown by less where memory is bounded. Twice the throughput of large reads and writes, for
 * half as much memory again.
 *
 * V8 would also make objects directly in the old generation, at places of the code whose objects it
 * once found to live long, and never change its mind. Ours live as long as a command; but there they
 * stay, with all that they name, until the next full collection, and each scavenge copies that.
 */
const collectorFlags = [
  "--external-memory-accounted-in-global-limit",
  "--no-allocation-site-pretenuring",
];

/** To be called before the process has received any data. */
export function settleCollector(memoryBytes: number | null): void {
  for (const flag of collectorFlags) setFlagsFromString(flag);
  setFlagsFromString(`--heap-growing-percent=${heapGrowthPercent(memoryBytes)}`);
}
