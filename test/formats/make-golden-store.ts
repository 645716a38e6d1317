import { mkdirSync, readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { goldenVolume, makeVolume, openGolden, pieces } from "./golden-brick.ts";

/**
 * `node test/formats/make-golden-store.ts FOLDER`: makes a data folder in the present formats, to be
 * committed with a release, so that later ones are held to reading it. docs/formats.md says how.
 */

const folder = process.argv[2];
if (folder === undefined) {
  process.stderr.write("node test/formats/make-golden-store.ts FOLDER\n");
  process.exit(2);
}
mkdirSync(folder, { recursive: true });
for (const life of [1, 2]) {
  const node = await openGolden(folder);
  if (life === 1) await makeVolume(node);
  const volume = await goldenVolume(node);
  for (const { offsetBytes, bytes } of pieces.filter((piece) => piece.life === life)) {
    const written = await volume.write(offsetBytes, [bytes]);
    if (!written.ok) throw new Error(`a write at ${offsetBytes} failed`);
  }
  if (life === 1) await node.close();
}
// Notes of the key-value store to people, which name this machine; no start needs them.
const index = path.join(folder, "index");
for (const name of readdirSync(index)) {
  if (/^(?:LOG|OPTIONS|LOCK)/.test(name)) rmSync(path.join(index, name));
}
// The second life ends here, as if it were killed: its log has no seal.
process.kill(process.pid, "SIGKILL");
