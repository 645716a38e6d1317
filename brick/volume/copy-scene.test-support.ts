import assert from "node:assert/strict";
import { sectorBytes } from "../units.ts";
import { type Bench, bytesOf } from "./gateway-bench.ts";
import { fillWith } from "./sector-model.ts";

/** For tests of EXTENDED COPY: a range with something in it, and what it reads as. */

/** Virtual time; a copy that carries bytes takes some. */
const limitMs = 120_000;

export function until<T>(bench: Bench, promise: Promise<T>): Promise<T> {
  return bench.cluster.time.until(promise, limitMs);
}

export async function readAt(
  bench: Bench,
  offsetBytes: number,
  lengthBytes: number,
): Promise<Buffer> {
  return bytesOf(await until(bench, bench.gateway.read(offsetBytes, lengthBytes)));
}

/** Random writes and holes in the range; `model` follows. */
export async function scribble(bench: Bench, fromBytes: number, model: Buffer): Promise<void> {
  const { prng } = bench.cluster;
  const sectors = model.length / sectorBytes;
  for (let count = 0; count < 40; count += 1) {
    const first = prng.between(0, sectors - 1);
    const length = Math.min(prng.pick([1, 3, 8, 64, 128, 200]), sectors - first);
    const bytes = fillWith(prng.chance(0.2) ? 0 : 1000 + count, length);
    bytes.copy(model, first * sectorBytes);
    const at = fromBytes + first * sectorBytes;
    assert.deepEqual(await until(bench, bench.gateway.write(at, [bytes])), { ok: true });
  }
}
