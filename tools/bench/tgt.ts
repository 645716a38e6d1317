import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, ftruncateSync, openSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { runTool } from "../run-tool-io.ts";

/** Linux's user-space target tgtd with LUNs on plain files: what we are measured beside. */

const target = "iqn.2026-11.endisk.bench:file";

export class Tgt {
  /** By LUN. */
  readonly urls: readonly string[];
  readonly #child: ChildProcess;
  readonly #control: string;
  readonly #env: NodeJS.ProcessEnv;

  private constructor(
    child: ChildProcess,
    urls: readonly string[],
    control: string,
    env: NodeJS.ProcessEnv,
  ) {
    this.#child = child;
    this.#control = control;
    this.urls = urls;
    this.#env = env;
  }

  static async start(options: {
    folder: string;
    port: number;
    sizeBytes: number;
    volumes: number;
  }): Promise<Tgt> {
    const luns = Array.from({ length: options.volumes }, (_, at) => at + 1);
    const env = { TGTD_IPC_SOCKET: join(options.folder, "tgt.sock") };
    const portal = `127.0.0.1:${options.port}`;
    // Daemons of this machine are told apart by their control port, any number.
    const control = String(options.port);
    const child = spawn("tgtd", ["-f", "-C", control, "--iscsi", `portal=${portal}`], {
      stdio: "ignore",
      env: { ...process.env, ...env },
    });
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", ({ message }) => {
        reject(new Error(`${message}: apt-get install tgt, or measure with --no-tgt`));
      });
    });
    const tgt = new Tgt(
      child,
      luns.map((lun) => `iscsi://${portal}/${target}/${lun}`),
      control,
      env,
    );
    await tgt.#admin("target", "new", ["-T", target], 50);
    for (const lun of luns) {
      const file = join(options.folder, `tgt-${lun}.img`);
      const handle = openSync(file, "w");
      ftruncateSync(handle, options.sizeBytes);
      closeSync(handle);
      await tgt.#admin("logicalunit", "new", ["--lun", String(lun), "-b", file]);
    }
    await tgt.#admin("target", "bind", ["-I", "ALL"]);
    return tgt;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  async #admin(mode: string, op: string, args: string[], attemptsMax = 1): Promise<void> {
    const words = [
      "-C",
      this.#control,
      "--lld",
      "iscsi",
      "--mode",
      mode,
      "--op",
      op,
      "--tid",
      "1",
      ...args,
    ];
    for (let attempt = 1; ; attempt += 1) {
      const { code, output } = await runTool("tgtadm", words, { env: this.#env });
      if (code === 0) return;
      if (attempt >= attemptsMax) throw new Error(`tgtadm ${words.join(" ")}: ${output}`);
      await sleep(100);
    }
  }

  stop(): Promise<void> {
    return new Promise((resolve) => {
      this.#child.on("close", () => resolve());
      this.#child.kill("SIGKILL");
    });
  }
}
