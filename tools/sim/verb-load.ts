import { Prng } from "../../brick/prng.ts";
import { type BrickNumber, grainBytes, KiB, sectorBytes } from "../../brick/units.ts";
import { patienceMs, patiently } from "./scene.ts";
import { type SimCluster, volumeName } from "./sim-cluster.ts";

const writeEveryMs = 200;
const tryAgainMs = 250;
const triesMax = 40;
const smallBytes = 4 * KiB;
/** Unless more are asked for: small ones travel with the map, large ones do not. */
const firstPieces = 6;

/** What was written once, to a grain of its own. */
interface Piece {
  readonly volume: string;
  readonly offsetBytes: number;
  readonly data: Buffer;
  /** It was answered GOOD; else each of its sectors may be there or not. */
  landed: boolean;
}

/** An initiator before, while and after an operator's verb runs: what it was told is kept, and looked for. */
export class VerbLoad {
  readonly #cluster: SimCluster;
  readonly #prng: Prng;
  readonly #pieces: Piece[] = [];
  #working = false;
  #writing = false;

  constructor(cluster: SimCluster) {
    this.#cluster = cluster;
    this.#prng = new Prng(cluster.options.seed + 0.75 * 2 ** 32);
  }

  get landed(): number {
    return this.#pieces.filter(({ landed }) => landed).length;
  }

  /** Data that are there before the verb, answered GOOD. */
  async fill(through: BrickNumber, volume: string, largePieces = 0): Promise<void> {
    for (let count = 0; count < (largePieces || firstPieces); count += 1) {
      const piece = this.#newPiece(volume, largePieces > 0);
      for (let tries = 0; !piece.landed; tries += 1) {
        if (tries >= triesMax) throw new Error(`volume ${volume} cannot be written`);
        await this.#write(through, piece);
        if (!piece.landed) await this.#cluster.world.runFor(tryAgainMs);
      }
    }
  }

  /** Writes on, through a portal that runs, until it is told to end. */
  begin(through: BrickNumber): void {
    this.#working = true;
    this.#next(through);
  }

  async end(): Promise<void> {
    this.#working = false;
    await this.#cluster.world.runUntil(() => !this.#writing, 2 * patienceMs);
  }

  #next(through: BrickNumber): void {
    const { world, nodes } = this.#cluster;
    world.after(writeEveryMs, () => {
      if (!this.#working) return;
      const portal = nodes.has(through) ? through : [...nodes.keys()][0];
      const volume = portal === undefined ? undefined : this.#cluster.volumeAt(portal);
      if (volume === undefined) return this.#next(through);
      const piece = this.#newPiece(volumeName);
      this.#writing = true;
      patiently(this, portal!, volume.write(piece.offsetBytes, [piece.data])).then((done) => {
        piece.landed = done?.ok === true;
        this.#writing = false;
        this.#next(through);
      });
    });
  }

  get cluster(): SimCluster {
    return this.#cluster;
  }

  #newPiece(volume: string, large?: boolean): Piece {
    const number = this.#pieces.length;
    const isLarge = large || number % 3 === 2;
    const data = this.#prng.fill(Buffer.alloc(isLarge ? grainBytes : smallBytes));
    const piece = { volume, offsetBytes: number * grainBytes, data, landed: false };
    this.#pieces.push(piece);
    return piece;
  }

  async #write(through: BrickNumber, piece: Piece): Promise<void> {
    const volume = this.#cluster.volumeAt(through, piece.volume);
    if (volume === undefined) return;
    const { world } = this.#cluster;
    const done = volume.write(piece.offsetBytes, [piece.data]);
    piece.landed = (await world.complete(done, 2 * patienceMs)).ok;
  }

  /** What is not as it was written, through a portal; null: nothing. `erased` reads as zeros. */
  async check(through: BrickNumber, isThere: (volume: string) => "kept" | "erased" | "gone") {
    for (const piece of this.#pieces) {
      const { volume, offsetBytes, data, landed } = piece;
      const fate = isThere(volume);
      if (fate === "gone") continue;
      const found = await this.#read(through, piece);
      if (found === null) return `${volume} at ${offsetBytes} cannot be read`;
      const where = `${volume} at ${offsetBytes}`;
      for (let at = 0; at < data.length; at += sectorBytes) {
        const sector = found.subarray(at, at + sectorBytes);
        const isData = sector.equals(data.subarray(at, at + sectorBytes));
        const isZeros = sector.every((byte) => byte === 0);
        if (fate === "erased" ? !isZeros : !(isData || (!landed && isZeros))) {
          return `${where} is not what was ${fate === "erased" ? "erased" : "written"} there`;
        }
      }
    }
    return null;
  }

  async #read(through: BrickNumber, { volume, offsetBytes, data }: Piece): Promise<Buffer | null> {
    const { world } = this.#cluster;
    for (let tries = 0; tries < triesMax; tries += 1) {
      const read = this.#cluster.volumeAt(through, volume)?.read(offsetBytes, data.length);
      const found = read === undefined ? null : await world.complete(read, 2 * patienceMs);
      if (found?.ok) return Buffer.concat(found.buffers);
      if (found !== null && found.fault.code !== "unavailable") return null;
      await world.runFor(tryAgainMs);
    }
    return null;
  }
}
