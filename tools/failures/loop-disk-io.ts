import { existsSync, mkdirSync, rmSync, statfsSync, statSync } from "node:fs";
import { join } from "node:path";
import { runTool } from "../run-tool-io.ts";
import { CannotRun } from "./scenarios.ts";

/** A file system of its own, in a file, that can be filled and that can turn read-only. */

const programs = [
  "/usr/sbin/mkfs.ext4",
  "/usr/sbin/e2fsck",
  "/usr/bin/mount",
  "/usr/bin/fallocate",
];
const unmountAttemptsMax = 50;

export class LoopDisk {
  readonly #image: string;
  readonly #folder: string;
  #mounted = false;

  /** Makes and mounts it; `folder` need not exist. */
  static async make(image: string, folder: string, bytes: number): Promise<LoopDisk> {
    requireRoot("a file system of a brick's own is mounted");
    const missing = programs.filter((path) => !existsSync(path));
    if (missing.length > 0) throw new CannotRun(`missing here: ${missing.join(" ")}`);
    const disk = new LoopDisk(image, folder);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    await run("truncate", "-s", String(bytes), image);
    await run("/usr/sbin/mkfs.ext4", "-q", "-F", "-m", "0", image);
    await disk.mount();
    return disk;
  }

  private constructor(image: string, folder: string) {
    this.#image = image;
    this.#folder = folder;
  }

  async mount(): Promise<void> {
    await run("mount", "-o", "loop", this.#image, this.#folder);
    this.#mounted = true;
  }

  get #ballast(): string {
    return join(this.#folder, "ballast");
  }

  /** Someone else takes all the room that is left. */
  async fill(): Promise<void> {
    const { bavail, bsize } = statfsSync(this.#folder);
    // A few blocks of it go to the file's own description.
    const taken = statSync(this.#ballast, { throwIfNoEntry: false })?.size ?? 0;
    const wanted = String(taken + bavail * bsize);
    const result = await runTool("fallocate", ["-l", wanted, this.#ballast]);
    if (result.code !== 0 && !/No space left/.test(result.output)) throw new Error(result.output);
    const rest = statfsSync(this.#folder);
    if (rest.bavail * rest.bsize > fullBytesMax) throw new Error(`${rest.bavail} blocks are left`);
  }

  makeRoom(): void {
    rmSync(this.#ballast, { force: true });
  }

  /** As after an error of the medium: ext4 stops writing, files that are open included. */
  async turnReadOnly(): Promise<void> {
    await run("mount", "-o", "remount,abort", this.#folder);
  }

  /** Checks it and mounts it anew. Nobody may use it. */
  async mend(): Promise<void> {
    await this.#unmount();
    const checked = await runTool("/usr/sbin/e2fsck", ["-f", "-y", this.#image]);
    // Exit code 1: errors were corrected.
    if (checked.code === null || checked.code > 1) throw new Error(checked.output);
    await this.mount();
  }

  async #unmount(): Promise<void> {
    for (let attempt = 1; this.#mounted; attempt += 1) {
      const { code, output } = await runTool("umount", [this.#folder]);
      if (code === 0) this.#mounted = false;
      else if (attempt === unmountAttemptsMax) throw new Error(output);
      else await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async dispose(): Promise<void> {
    await this.#unmount();
    rmSync(this.#image, { force: true });
  }
}

const fullBytesMax = 2 * 1024 * 1024;

export function requireRoot(why: string): void {
  if (process.getuid?.() !== 0) throw new CannotRun(`this takes root: ${why}`);
}

async function run(program: string, ...args: readonly string[]): Promise<void> {
  const { code, output } = await runTool(program, args);
  if (code !== 0) throw new Error(`${program} ${args.join(" ")}: exit ${code}: ${output}`);
}
