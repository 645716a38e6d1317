import { existsSync } from "node:fs";
import type { Machines } from "../real-cluster-io.ts";
import { runTool } from "../run-tool-io.ts";
import { requireRoot } from "./loop-disk-io.ts";
import { CannotRun } from "./scenarios.ts";

/** A network namespace for each brick, all on one bridge, whose packets can be dropped. */

const programs: readonly (readonly [string, string])[] = [
  ["/usr/sbin/ip", "iproute2"],
  ["/usr/sbin/nft", "nftables"],
];
/** TEST-NET-2 (RFC 5737) and an interface name of at most 15 characters. */
const network = "198.51.100";
const bridge = "endiskfail0";

export class Namespaces implements Machines {
  readonly #numbers: readonly number[];

  static async make(count: number): Promise<Namespaces> {
    requireRoot("bricks get network namespaces of their own");
    const missing = programs.filter(([path]) => !existsSync(path)).map(([, name]) => name);
    if (missing.length > 0) throw new CannotRun(`apt-get install ${missing.join(" ")}`);
    const made = new Namespaces(Array.from({ length: count }, (_, at) => at + 1));
    // What a run that was killed has left.
    await made.dispose();
    await ip("link", "add", bridge, "type", "bridge");
    await ip("addr", "add", `${network}.254/24`, "dev", bridge);
    await ip("link", "set", bridge, "up");
    for (const number of made.#numbers) await made.#add(number);
    return made;
  }

  private constructor(numbers: readonly number[]) {
    this.#numbers = numbers;
  }

  host(number: number): string {
    return `${network}.${number}`;
  }

  command(number: number): readonly string[] {
    return ["/usr/sbin/ip", "netns", "exec", nameOf(number)];
  }

  async #add(number: number): Promise<void> {
    const [outside, inside] = [`${nameOf(number)}o`, `${nameOf(number)}i`];
    await ip("netns", "add", nameOf(number));
    await ip("link", "add", outside, "type", "veth", "peer", "name", inside);
    await ip("link", "set", outside, "master", bridge, "up");
    await ip("link", "set", inside, "netns", nameOf(number));
    const within = (...args: string[]) => ip("-n", nameOf(number), ...args);
    await within("addr", "add", `${this.host(number)}/24`, "dev", inside);
    await within("link", "set", inside, "up");
    await within("link", "set", "lo", "up");
  }

  /** Drops all that the brick sends and receives; with `from`, what it exchanges with those bricks. */
  async cut(number: number, from?: readonly number[]): Promise<void> {
    const others = from?.map((one) => this.host(one)).join(", ");
    const rule = (side: string) =>
      others === undefined ? "drop" : `ip ${side} { ${others} } drop`;
    const rules = [
      "table inet cut {",
      `chain in { type filter hook input priority 0; ${rule("saddr")}; }`,
      `chain out { type filter hook output priority 0; ${rule("daddr")}; }`,
      "}",
    ];
    const nft = [...this.command(number), "/usr/sbin/nft", "-f", "-"];
    await run(nft, rules.join("\n"));
  }

  async heal(number: number): Promise<void> {
    await run([...this.command(number), "/usr/sbin/nft", "delete", "table", "inet", "cut"]);
  }

  /** Whatever of it is there. */
  async dispose(): Promise<void> {
    for (const number of this.#numbers) {
      // First the link: those of a namespace go some time after it.
      await runTool("ip", ["link", "del", `${nameOf(number)}o`]);
      await runTool("ip", ["netns", "del", nameOf(number)]);
    }
    await runTool("ip", ["link", "del", bridge]);
  }
}

function nameOf(number: number): string {
  return `endiskfail${number}`;
}

function ip(...args: readonly string[]): Promise<void> {
  return run(["/usr/sbin/ip", ...args]);
}

async function run([program, ...args]: readonly string[], input?: string): Promise<void> {
  const { code, output } = await runTool(program!, args, input === undefined ? {} : { input });
  if (code !== 0) throw new Error(`${program} ${args.join(" ")}: exit ${code}: ${output}`);
}
