import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { bitRot } from "./bit-rot.ts";
import { indexRot } from "./index-rot.ts";
import { raftRot } from "./raft-rot.ts";

const help = `npm run bit-rot -- [--seed N] [--damages N] [--index N] [--raft N]

Damages pages of the log of one brick of a simulated cluster at a time, while it runs or between two
boots, and sees each round healed: nothing wrong is served, and every copy is there again. Then damages
a file of the index (RocksDB's own, on this machine's disk) or a superblock at a time: the store has all
that it acknowledged, or says that it has not, or refuses. The same for a file of Raft: log, tail, vote,
snapshot. Exit status: 0 when all was so, 1 when not, 2
when the options are wrong.

  --seed N      which pages, and how (default: a random one, printed)
  --damages N   of the log, at least so many (default 10000)
  --index N     of the index and superblocks, at least so many (default 1000)
  --raft N      of Raft's files, at least so many (default 10000)
`;

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    damages: { type: "string", default: "10000" },
    index: { type: "string", default: "1000" },
    raft: { type: "string", default: "10000" },
    help: { type: "boolean", short: "h" },
  },
});
if (values.help) {
  process.stdout.write(help);
  process.exit(0);
}
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
const damages = Number(values.damages);
const index = Number(values.index);
const raft = Number(values.raft);
if (![seed, damages, index, raft].every((one) => Number.isSafeInteger(one) && one >= 0)) {
  process.stderr.write(help);
  process.exit(2);
}
process.stdout.write(`seed=${seed} damages=${damages} index=${index} raft=${raft}\n`);
const folder = mkdtempSync(path.join(tmpdir(), "endisk-rot-"));
process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
try {
  process.stdout.write(`raft: ${JSON.stringify(await raftRot(seed, raft))}\n`);
  process.stdout.write(`${JSON.stringify(await bitRot(seed, damages))}\n`);
  const ofIndex = await indexRot({ seed, damagesMin: index, folder });
  process.stdout.write(`index: ${JSON.stringify(ofIndex)}\n`);
} catch (error) {
  process.stdout.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
}
