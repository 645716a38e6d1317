import { mkdirSync, type Stats, statSync } from "node:fs";
import { enableCompileCache, flushCompileCache } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";

/**
 * What V8 made of the program's files is kept from one start to the next: loading them is most of what a
 * brick's start and a short command cost, and half of that is saved. What is kept is code, and is run as
 * it is found: it lies in the user's own cache folder, and nowhere if others could write there.
 */

/** To be called before the files are loaded. `NODE_COMPILE_CACHE` names another folder, as for any Node.js. */
export function keepCompiledCode(): void {
  const folder = compiledCodeFolder(process.env, homedir());
  if (folder !== null) enableCompileCache(folder);
}

/** What a long-lived process has compiled by now, for the next one: it may be killed before it ends. */
export function saveCompiledCode(): void {
  flushCompileCache();
}

/** The folder, made if need be; null: there is none that is ours alone. */
export function compiledCodeFolder(
  env: Readonly<Record<string, string | undefined>>,
  home: string,
): string | null {
  const base = env.XDG_CACHE_HOME ?? join(home, ".cache");
  const ours = join(base, "endisk");
  const folder = join(ours, "code");
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    return [base, ours, folder].every((path) => isSafe(statSync(path))) ? folder : null;
  } catch {
    // A user without a home, a file system that is full or read-only: the program runs without.
    return null;
  }
}

/** Nobody but this user and root can put anything there. */
function isSafe({ uid, mode }: Stats): boolean {
  const user = process.getuid?.();
  return (uid === user || uid === 0) && (mode & 0o022) === 0;
}
