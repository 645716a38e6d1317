import type { Command } from "commander";
import { copiesSchema, parseOption, volumeNameSchema, volumeSizeSchema } from "../options.ts";
import { type AdminOptions, ask, print, withClusterOptions } from "./admin.ts";
import { volumesText } from "./status.ts";

export function addVolume(endisk: Command): void {
  const volume = endisk.command("volume").description("Create, show, resize and delete volumes");

  withClusterOptions(volume.command("create <NAME>").description("Create a thin volume"))
    .option("--size <SIZE>", "its size as initiators see it", "1TiB")
    .option("--copies <N>", "bricks that keep each of its chunks", "2")
    .action(async (given: string, options: AdminOptions & { size: string; copies: string }) => {
      const name = parseOption("NAME", given, volumeNameSchema);
      const size = parseOption("--size", options.size, volumeSizeSchema);
      const copies = parseOption("--copies", options.copies, copiesSchema);
      const value = await ask(options, (client) => client.volumeCreate(name, size, copies));
      print(options, value, () => volumesText([value]));
    });

  withClusterOptions(volume.command("list").description("List the volumes")).action(
    async (options: AdminOptions) => {
      const value = await ask(options, (client) => client.volumeList());
      print(options, value.volumes, () => volumesText(value.volumes));
    },
  );

  withClusterOptions(volume.command("show <NAME>").description("Show one volume")).action(
    async (given: string, options: AdminOptions) => {
      const name = parseOption("NAME", given, volumeNameSchema);
      const value = await ask(options, (client) => client.volumeShow(name));
      print(options, value, () => volumesText([value]));
    },
  );

  withClusterOptions(
    volume.command("resize <NAME>").description("Change the size of a volume, attached or not"),
  )
    .option("--size <SIZE>", "the new size (needed)")
    .action(async (given: string, options: AdminOptions & { size?: string }) => {
      const name = parseOption("NAME", given, volumeNameSchema);
      const size = parseOption("--size", options.size, volumeSizeSchema);
      const value = await ask(options, (client) => client.volumeResize(name, size));
      print(options, value, () => volumesText([value]));
    });

  withClusterOptions(
    volume.command("delete <NAME>").description("Delete a volume and all that is on it"),
  ).action(async (given: string, options: AdminOptions) => {
    const name = parseOption("NAME", given, volumeNameSchema);
    const value = await ask(options, (client) => client.volumeDelete(name));
    print(options, value, () => `volume ${name} is deleted`);
  });
}
