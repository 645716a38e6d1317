import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { DiskError, type Host, type Kv } from "../../brick/host.ts";
import { openRealHost } from "../../brick/host-io.ts";
import { Prng } from "../../brick/prng.ts";
import { StoreOpenError } from "../../brick/store/store-open.ts";
import {
  openStore,
  StoreStory,
  StoreWork,
  type StoryHost,
} from "../../brick/store/store-story.test-support.ts";
import { damageBytes, pageDamages } from "./page-damage.ts";

/** Lives of a store before its files are damaged: each start leaves the index another table file. */
const livesMax = 4;
const burstsPerLife = 12;
const damagesPerStore = 100;
/** Files of the index, and what says who the brick is. */
const damagedFiles = /^index\/(\d+\.(sst|log)|MANIFEST-\d+|CURRENT|OPTIONS-\d+)$|^superblock-[ab]$/;

export interface IndexRotReport {
  damages: number;
  /** It started with all that it had acknowledged. */
  whole: number;
  /** It started, and said that it had lost something. */
  known: number;
  /** It did not start, and said why. */
  refused: number;
  /** It stopped itself when it met the damage. */
  stopped: number;
  /** Chunks that it did not find, and did not know to be missing: garbage collection tells it. */
  absent: number;
}

class Stopped extends Error {}

/** A real disk and a real RocksDB. What one test opens of them, it also closes. */
class RotHost {
  readonly host: StoryHost;
  readonly #kvs: Kv[];

  static async open(dataFolder: string): Promise<RotHost> {
    const network = { send: () => {}, onMessage: () => {}, setPeers: () => {} };
    return new RotHost(await openRealHost({ dataFolder, network, log: () => {} }));
  }

  private constructor(real: Host) {
    const kvs: Kv[] = [];
    const openKv = async (folder: string) => {
      const kv = await real.disk.openKv(folder);
      kvs.push(kv);
      return { ...kv, close: async () => {} };
    };
    const crash = (reason: unknown): never => {
      throw new Stopped(String(reason));
    };
    this.#kvs = kvs;
    this.host = { ...real, disk: { ...real.disk, openKv }, crash, mark: () => {} };
  }

  async close(): Promise<void> {
    for (const kv of this.#kvs) await kv.close();
  }
}

/**
 * Damages one file of the index, or a superblock, of a store on the real machine, opens it, and looks
 * for what had been acknowledged: it may be refused or known to be lost, never wrong or forgotten.
 */
export async function indexRot({
  seed,
  damagesMin,
  folder,
}: {
  seed: number;
  damagesMin: number;
  folder: string;
}): Promise<IndexRotReport> {
  const prng = new Prng(seed);
  const report = { damages: 0, whole: 0, known: 0, refused: 0, stopped: 0, absent: 0 };
  while (report.damages < damagesMin) {
    const image = path.join(folder, "image");
    const story = await usedStore(prng, path.join(folder, "used"), image);
    for (let left = damagesPerStore; left > 0; left -= 1) {
      const copy = path.join(folder, "copy");
      cpSync(image, copy, { recursive: true });
      const file = prng.pick(filesOf(copy));
      const how = prng.pick(pageDamages);
      const at = path.join(copy, file);
      const bytes = readFileSync(at);
      const damaged = damageBytes(bytes, how, prng);
      writeFileSync(at, damaged);
      report.damages += 1;
      if (damaged.equals(bytes)) report.whole += 1;
      else await examine(copy, story, report, `damage ${report.damages}: ${how} of ${file}`);
      rmSync(copy, { recursive: true });
    }
    rmSync(image, { recursive: true });
  }
  return report;
}

/** Works for a few lives, and copies the files while the last one goes on. */
async function usedStore(prng: Prng, folder: string, image: string): Promise<StoreStory> {
  mkdirSync(folder, { recursive: true });
  const story = new StoreStory();
  for (let lives = prng.between(1, livesMax); lives > 0; lives -= 1) {
    const real = await RotHost.open(folder);
    const opened = await openStore(real.host);
    story.apply(story.restartMark(opened));
    const work = new StoreWork(opened, prng, story);
    await work.bursts(burstsPerLife);
    await work.flush();
    if (lives === 1) cpSync(folder, image, { recursive: true });
    await work.close();
    await real.close();
  }
  rmSync(folder, { recursive: true });
  return story;
}

function filesOf(folder: string): string[] {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" }).sort();
  return names.filter((name) => damagedFiles.test(name));
}

async function examine(
  folder: string,
  story: StoreStory,
  report: IndexRotReport,
  what: string,
): Promise<void> {
  const real = await RotHost.open(folder);
  try {
    const { store, counting } = await openStore(real.host);
    const known = store.cut || store.damaged;
    const forgets = counting.gap || counting.applied < story.ackedRecord;
    if (forgets && !known) {
      const text = `of ${story.ackedRecord} records ${counting.applied} are known`;
      throw new Error(`${what}: ${text}, and nobody says that any are lost`);
    }
    for (const chunk of story.live()) {
      const read = await store.readChunk(chunk.key);
      if (!read.ok && !known) report.absent += 1;
      if (read.ok && !read.bytes.equals(chunk.bytes)) throw new Error(`${what}: wrong bytes`);
    }
    await store.close();
    if (known) report.known += 1;
    else report.whole += 1;
  } catch (error) {
    if (error instanceof Stopped) report.stopped += 1;
    else if (error instanceof DiskError || error instanceof StoreOpenError) report.refused += 1;
    else throw new Error(what, { cause: error });
  } finally {
    await real.close();
  }
}
