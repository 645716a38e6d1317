import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { runTool } from "../../tools/run-tool-io.ts";

/** A Linux guest under QEMU without acceleration, which plays scenarios of test/kernel/guest/. */

const cacheFolder = fileURLToPath(new URL("../../.cache/kernel-guest", import.meta.url));
const buildScript = fileURLToPath(new URL("build-guest.sh", import.meta.url));
const buildMsMax = 120_000;
const linesMax = 400;

export interface Guest {
  /** In the order in which they are played, in one boot. */
  scenarios: readonly string[];
  /** "HOST:PORT" of portals 1, 2, ... on this machine's loopback. */
  portals: readonly string[];
  /** What the names of all targets begin with. */
  targets: string;
  /** Further settings of the scenarios, by name. */
  settings?: Readonly<Record<string, string>>;
  lastsMsMax: number;
  /** Does what the guest asks for ("kill 2"). */
  asked?: (words: readonly string[]) => void;
}

export interface GuestRun {
  /** Whether every step of every scenario held. */
  done: boolean;
  /** The names of the steps that held, with the guest's time. */
  steps: string[];
  /** The last lines of the console. */
  console: string;
}

/** Makes the guest's kernel and initial file system; throws when that does not succeed. */
export async function buildGuest(): Promise<void> {
  const built = await runTool("sh", [buildScript, cacheFolder], { timeoutMs: buildMsMax });
  if (built.code !== 0) throw new Error(`build-guest.sh: exit ${built.code}: ${built.output}`);
}

export function runGuest(guest: Guest): Promise<GuestRun> {
  return new Promise((resolve, reject) => {
    const qemu = spawn("qemu-system-x86_64", qemuArgs(guest), {
      stdio: ["ignore", "pipe", "pipe"],
    });
    const run: GuestRun = { done: false, steps: [], console: "" };
    const lines: string[] = [];
    const say = (line: string) => {
      lines.push(line);
      if (lines.length > linesMax) lines.shift();
    };
    const timer = setTimeout(() => {
      say(`[not done within ${guest.lastsMsMax} ms: ended]`);
      qemu.kill("SIGKILL");
    }, guest.lastsMsMax);
    createInterface({ input: qemu.stderr }).on("line", say);
    createInterface({ input: qemu.stdout }).on("line", (line) => {
      say(line);
      // The firmware leaves control characters at the beginning of the first line.
      const [, verb, words] = /GUEST (\w+) ?(.*)/.exec(line) ?? [];
      if (verb === "ok") run.steps.push(words!);
      if (verb === "asks") guest.asked?.(words!.split(" "));
      if (verb === "done") run.done = true;
    });
    qemu.on("error", reject);
    qemu.on("close", () => {
      clearTimeout(timer);
      run.console = lines.join("\n");
      resolve(run);
    });
  });
}

function qemuArgs(guest: Guest): string[] {
  const ports = guest.portals.map((portal) => portal.slice(portal.lastIndexOf(":") + 1));
  const settings = {
    scenarios: guest.scenarios.join(","),
    // The host's loopback as QEMU's user network shows it to the guest.
    host: "10.0.2.2",
    ports: ports.join(","),
    targets: guest.targets,
    ...guest.settings,
  };
  const words = Object.entries(settings).map(([name, value]) => `end.${name}=${value}`);
  return [
    ...["-machine", "q35,accel=tcg", "-cpu", "max", "-m", "768", "-smp", "1"],
    ...["-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"],
    ...["-kernel", `${cacheFolder}/vmlinuz`, "-initrd", `${cacheFolder}/initrd.gz`],
    ...["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile="],
    ...["-append", `console=ttyS0 quiet panic=-1 ${words.join(" ")}`],
  ];
}
