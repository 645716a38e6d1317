import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";

/** Per user: a file for each api address, that holds the path of the brick's folder. No secrets. */
function stateFolder(): string {
  const base = process.env.XDG_STATE_HOME ?? join(homedir(), ".local", "state");
  return join(base, "endisk", "api");
}

/** Best effort: without it, commands need --data beside --api. */
export function rememberCluster(api: string, folder: string): void {
  try {
    mkdirSync(stateFolder(), { recursive: true, mode: 0o700 });
    writeFileSync(join(stateFolder(), encodeURIComponent(api)), `${resolve(folder)}\n`);
  } catch {
    return;
  }
}

export function rememberedFolder(api: string): string[] {
  try {
    return [readFileSync(join(stateFolder(), encodeURIComponent(api)), "utf8").trim()];
  } catch {
    return [];
  }
}
