import { Command } from "commander";
import { z } from "zod";
import { addressSchema, parseOption, sizeSchema } from "../options.ts";
import { VerifiedLoad } from "./verified-load-io.ts";

/** Verified load against any iSCSI target, from the command line. Overwrites the area. */

const countSchema = z
  .string()
  .regex(/^\d{1,9}$/, "is not a whole number")
  .transform(Number);

await new Command("load")
  .description("Write tagged sectors through iSCSI, read them back, and check every one")
  .argument("<TARGET>", "iqn of the target; its LUN 0 (--lun) is OVERWRITTEN")
  .requiredOption("--portal <HOST:PORT...>", "portals, used in turn when a connection breaks")
  .option("--seconds <N>", "how long", "10")
  .option("--depth <N>", "commands under way", "16")
  .option("--area <SIZE>", "bytes of the volume that are used", "64MiB")
  .option("--seed <N>", "the same seed picks the same ranges", String(Date.now() % 1e9))
  .option("--lun <N>", "logical unit", "0")
  .action(async (target: string, given: Record<string, string> & { portal: string[] }) => {
    const number = (name: string) => parseOption(`--${name}`, given[name], countSchema);
    const load = new VerifiedLoad({
      portals: given.portal.map((text) => parseOption("--portal", text, addressSchema)),
      target,
      areaBytes: parseOption("--area", given.area, sizeSchema),
      depth: number("depth"),
      seed: number("seed"),
      lun: number("lun"),
      start: "anything",
      log: (line) => process.stderr.write(`${line}\n`),
    });
    load.start();
    await new Promise((resolve) => setTimeout(resolve, number("seconds") * 1000));
    await load.stop();
    await load.verify(given.portal[0]!);
    process.stdout.write(`${JSON.stringify(load.report, null, 2)}\n`);
    process.exitCode = load.report.violations.length === 0 ? 0 : 1;
  })
  .parseAsync();
