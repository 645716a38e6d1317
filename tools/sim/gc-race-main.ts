import { parseArgs } from "node:util";
import { GcRace } from "./gc-race.ts";

const help = `node tools/sim/gc-race-main.ts [--seed N] [--operations N]

Races puts, hits, map operations, restarts and partitions against garbage collection, by the product's
own rules and without a network. Exit status: 0 when no chunk was lost, 1 when one was, 2 when the
options are wrong.

  --seed N         which race (default: a random one, printed)
  --operations N   how long it is (default 10000000)
`;

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    operations: { type: "string" },
    help: { type: "boolean", short: "h" },
  },
});
if (values.help) {
  process.stdout.write(help);
  process.exit(0);
}
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
const operations = Number(values.operations ?? 10_000_000);
if (!Number.isSafeInteger(seed) || seed < 0 || !Number.isSafeInteger(operations)) {
  process.stderr.write(help);
  process.exit(2);
}
process.stdout.write(`seed=${seed} operations=${operations}\n`);
const report = new GcRace(seed).run(operations);
process.stdout.write(`${JSON.stringify(report)}\n`);
process.exit(report.violation === null ? 0 : 1);
