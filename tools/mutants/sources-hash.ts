import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

/** Of the names and contents of all these files and folders: the same hash, the same sources. */
export function sourcesHash(root: string, names: readonly string[]): string {
  const hash = createHash("sha256");
  const add = (path: string) => {
    const full = join(root, path);
    if (statSync(full).isDirectory()) {
      for (const name of readdirSync(full).sort()) add(join(path, name));
      return;
    }
    const bytes = readFileSync(full);
    hash.update(`${path}\n${bytes.length}\n`).update(bytes);
  };
  for (const name of names) add(name);
  return hash.digest("hex");
}
