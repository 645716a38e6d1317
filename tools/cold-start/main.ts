import { parseArgs } from "node:util";
import { grainsPerShardRun } from "../../brick/cluster-state.ts";
import { grainBytes } from "../../brick/units.ts";
import { Initiator, readCapacityBytes, transferCdb } from "../load/initiator-io.ts";
import { RealCluster, targetOf } from "../real-cluster-io.ts";

const help = `node tools/cold-start/main.ts [--grains N] [--bricks N]

Writes so many grains of a volume, kills the whole cluster (kill -9, all processes at once), starts it
again and says how long it takes until every shard of the map has answered a read; then every grain is
read, and must be what was written. Exit status: 0 when the shards had answered within 30 s, 1 when not
or when something was lost, 2 when the options are wrong.

  --grains N   grains written, 4 KiB each (default 100000)
  --bricks N   bricks, all on this machine (default 3)
`;

/** FIGURES: a cluster that was killed as a whole serves so many grains again within this. */
const servingSecondsMax = 30;
const pieceBytes = 4096;
const depth = 32;
/** SAM-5 §5.3.1: not now; the initiator asks again. */
const busyStatus = 0x08;

const { values } = parseArgs({
  options: {
    grains: { type: "string" },
    bricks: { type: "string" },
    help: { type: "boolean", short: "h" },
  },
});
if (values.help) {
  process.stdout.write(help);
  process.exit(0);
}
const grains = Number(values.grains ?? 100_000);
const bricks = Number(values.bricks ?? 3);
if (!(Number.isSafeInteger(grains) && grains > 0 && Number.isSafeInteger(bricks) && bricks > 1)) {
  process.stderr.write(help);
  process.exit(2);
}

/** What grain `at` holds: its own number, over and over. */
function contentOf(at: number): Buffer {
  const content = Buffer.alloc(pieceBytes);
  for (let word = 0; word < pieceBytes; word += 8) content.writeBigUInt64BE(BigInt(at + 1), word);
  return content;
}

async function session(cluster: RealCluster): Promise<Initiator> {
  const [host, port] = cluster.portal(1).split(":");
  const address = { host: host!, port: Number(port) };
  const initiator = await Initiator.connect({ ...address, target: targetOf("disk0") });
  // What every session is told first is told to this.
  await readCapacityBytes(initiator);
  return initiator;
}

/** Carries out a command for every `step`-th grain, as many at a time as a queue is deep. */
async function forEachGrain(step: number, act: (at: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < grains) {
      const at = next;
      next += step;
      await act(at);
    }
  };
  await Promise.all(Array.from({ length: depth }, worker));
}

const progress = (line: string) => process.stderr.write(`${line}\n`);
const secondsSince = (beganMs: number) => (performance.now() - beganMs) / 1000;
const sizeMiB = Math.ceil((grains * grainBytes) / 2 ** 20);
const cluster = new RealCluster({ bricks, capacity: "16GiB", volumes: [`disk0:${sizeMiB}MiB`] });
let servedSeconds = Number.POSITIVE_INFINITY;
try {
  await cluster.start();
  const writing = await session(cluster);
  const beganMs = performance.now();
  await forEachGrain(1, async (at) => {
    const cdb = transferCdb("write", at * grainBytes, pieceBytes);
    let { status, sense } = await writing.command(cdb, { write: contentOf(at) });
    while (status === busyStatus) {
      ({ status, sense } = await writing.command(cdb, { write: contentOf(at) }));
    }
    if (status !== 0) throw new Error(`grain ${at} was not written: status ${status}, ${sense}`);
  });
  const writeSeconds = secondsSince(beganMs);
  progress(`${grains} grains written in ${writeSeconds.toFixed(1)} s`);
  writing.destroy();
  await cluster.killAll(Array.from({ length: bricks }, (_, at) => at + 1));
  const killedMs = performance.now();
  await cluster.start();
  const readySeconds = secondsSince(killedMs);
  progress(`initiators can log in after ${readySeconds.toFixed(1)} s`);
  const reading = await session(cluster);
  let busy = 0;
  const readBack = async (at: number) => {
    const cdb = transferCdb("read", at * grainBytes, pieceBytes);
    for (;;) {
      const { status, sense, data } = await reading.command(cdb, { readBytes: pieceBytes });
      if (status === 0 && !data.equals(contentOf(at))) throw new Error(`grain ${at} is another`);
      if (status === 0) return;
      if (status !== busyStatus)
        throw new Error(`grain ${at} was not read: status ${status}, ${sense}`);
      busy += 1;
    }
  };
  // One of each run of grains, and so of each shard that has any.
  await forEachGrain(Math.min(grainsPerShardRun, Math.ceil(grains / depth)), readBack);
  servedSeconds = secondsSince(killedMs);
  progress(`every shard has answered after ${servedSeconds.toFixed(1)} s`);
  await forEachGrain(1, readBack);
  const verifiedSeconds = secondsSince(killedMs);
  reading.destroy();
  const times = { writeSeconds, readySeconds, servedSeconds, verifiedSeconds };
  const report = { grains, bricks, ...times, busy };
  process.stdout.write(`${JSON.stringify(report)}\n`);
} finally {
  await cluster.dispose();
}
process.exit(servedSeconds <= servingSecondsMax ? 0 : 1);
