import { parseArgs } from "node:util";
import { bitRot } from "./bit-rot.ts";

const help = `npm run bit-rot -- [--seed N] [--damages N]

Damages pages of the log of one brick of a simulated cluster at a time, while it runs or between two
boots, and sees each round healed: nothing wrong is served, and every copy is there again. Exit status:
0 when all was, 1 when not, 2 when the options are wrong.

  --seed N      which pages, and how (default: a random one, printed)
  --damages N   at least so many (default 10000)
`;

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    damages: { type: "string", default: "10000" },
    help: { type: "boolean", short: "h" },
  },
});
if (values.help) {
  process.stdout.write(help);
  process.exit(0);
}
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
const damages = Number(values.damages);
if (!Number.isSafeInteger(seed) || seed < 0 || !Number.isSafeInteger(damages)) {
  process.stderr.write(help);
  process.exit(2);
}
process.stdout.write(`seed=${seed} damages=${damages}\n`);
try {
  process.stdout.write(`${JSON.stringify(await bitRot(seed, damages))}\n`);
} catch (error) {
  process.stdout.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
}
