import { Command } from "commander";
import { brickCountSchema, parseOption } from "../options.ts";
import { table } from "../table.ts";
import { linearityOf, measureScaling, type ScalingResult, scalingJobs } from "./scaling-run.ts";

/**
 * `npm run scaling`: what modelled bricks carry together, with load in proportion to them. The same
 * options give the same figures: time is simulated.
 */

await new Command("scaling")
  .description("Throughput of clusters of 1 to 16 modelled bricks, in simulated time")
  .option("--seed <N>", "of everything that is left to chance", "1")
  .option("--bricks <N...>", "sizes of the cluster", ["1", "2", "4", "8", "16"])
  .option("--shards <N>", "of the map", "64")
  .option("--span <N>", "shards of each volume", "4")
  .option("--volumes <N>", "for each brick, each served by one gateway", "2")
  .option("--made-on <N>", "bricks that there were when the volumes were made; none given: all")
  .option("--evened", "measure once backups have been evened out")
  .option("--depth <N>", "of each volume", "16")
  .option("--measure <MS>", "of simulated time for each job", "100")
  .action(
    async (
      given: Record<string, string> & { bricks: string[]; madeOn?: string; evened?: true },
    ) => {
      const number = (name: string) => Number.parseInt(given[name]!, 10);
      const results: ScalingResult[] = [];
      for (const size of given.bricks) {
        const bricks = parseOption("--bricks", size, brickCountSchema);
        const found = await measureScaling({
          seed: number("seed"),
          bricks,
          shardCount: number("shards"),
          shardSpan: number("span"),
          volumesPerBrick: number("volumes"),
          ...(given.madeOn !== undefined && { madeOn: Math.min(bricks, number("madeOn")) }),
          ...(given.evened && { evened: true }),
          depth: number("depth"),
          warmUpMs: 30,
          measureMs: number("measure"),
          jobs: scalingJobs,
        });
        results.push(...found);
        for (const { job, operationsPerSecond } of found) {
          process.stderr.write(`${bricks} bricks, ${job}: ${Math.round(operationsPerSecond)}/s\n`);
        }
      }
      process.stdout.write(
        `${table(["job", "bricks", "per second", "linear"], rowsOf(results))}\n`,
      );
    },
  )
  .parseAsync();

function rowsOf(results: readonly ScalingResult[]): (string | number)[][] {
  return scalingJobs.flatMap(({ name }) =>
    results
      .filter(({ job }) => job === name)
      .map((result) => [
        result.job,
        result.bricks,
        Math.round(result.operationsPerSecond),
        linearityOf(result, results)?.toFixed(2) ?? "",
      ]),
  );
}
