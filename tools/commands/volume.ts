import type { Command } from "commander";
import type { VolumeSummary } from "../../control/api.ts";
import type { ApiClient } from "../../control/api-client-io.ts";
import {
  copiesSchema,
  initiatorNameSchema,
  lunSchema,
  parseOption,
  parseOptional,
  UsageError,
  volumeNameSchema,
  volumeSizeSchema,
} from "../options.ts";
import { table } from "../table.ts";
import { type AdminOptions, ask, print, withClusterOptions } from "./admin.ts";
import { volumesText } from "./status.ts";

type CreateOptions = AdminOptions & { size: string; copies: string; encrypt?: boolean };

export function addVolume(endisk: Command): void {
  const volume = endisk.command("volume").description("Create, show, resize and delete volumes");

  withClusterOptions(volume.command("create <NAME>").description("Create a thin volume"))
    .option("--size <SIZE>", "its size as initiators see it", "1TiB")
    .option("--copies <N>", "bricks that keep each of its chunks", "2")
    .option("--encrypt", "encrypt its data with a key of its own; it cannot be changed later")
    .action(async (given: string, options: CreateOptions) => {
      const name = parseOption("NAME", given, volumeNameSchema);
      const size = parseOption("--size", options.size, volumeSizeSchema);
      const copies = parseOption("--copies", options.copies, copiesSchema);
      const encrypt = options.encrypt === true;
      const value = await ask(options, (client) =>
        client.volumeCreate(name, size, copies, encrypt),
      );
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
      print(options, value, () => `${volumesText([value])}\n\n${accessText(value)}`);
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

  addAccess(volume);
}

type AccessOptions = AdminOptions & { lun?: string; auth: boolean };

function addAccess(volume: Command): void {
  const everyone = "everyone, unproven, at every portal";
  withClusterOptions(
    volume
      .command("allow <NAME> [INITIATOR]")
      .description("Let an initiator use a volume; from the first on, only those that are named"),
  )
    .option("--lun <N>", "also as this LUN of the cluster's common target")
    .option("--no-auth", `let ${everyone}`)
    .action(async (name: string, initiator: string | undefined, options: AccessOptions) => {
      const lun = parseOptional("--lun", options.lun, lunSchema) ?? -1;
      if (options.lun !== undefined && initiator === undefined) {
        throw new UsageError("--lun goes with an INITIATOR, who sees the volume as that LUN");
      }
      await changeAccess(name, initiator, options, {
        open: (client, one) => client.volumeOpen(one, true),
        named: (client, one, who) => client.volumeAllow(one, who, lun),
      });
    });

  withClusterOptions(
    volume.command("deny <NAME> [INITIATOR]").description("Take the use of a volume away again"),
  )
    .option("--no-auth", `no longer let ${everyone}`)
    .action(async (name: string, initiator: string | undefined, options: AccessOptions) => {
      await changeAccess(name, initiator, options, {
        open: (client, one) => client.volumeOpen(one, false),
        named: (client, one, who) => client.volumeDeny(one, who),
      });
    });
}

interface AccessChange {
  open(client: ApiClient, name: string): ReturnType<ApiClient["volumeOpen"]>;
  named(client: ApiClient, name: string, initiator: string): ReturnType<ApiClient["volumeDeny"]>;
}

async function changeAccess(
  given: string,
  initiator: string | undefined,
  options: AccessOptions,
  change: AccessChange,
): Promise<void> {
  const name = parseOption("NAME", given, volumeNameSchema);
  if ((initiator === undefined) === options.auth) {
    throw new UsageError("say whom: either an INITIATOR by its iSCSI name, or --no-auth");
  }
  const value = await ask(options, (client) => {
    if (initiator === undefined) return change.open(client, name);
    return change.named(client, name, parseOption("INITIATOR", initiator, initiatorNameSchema));
  });
  print(options, value, () => accessText(value));
}

/** Who may use the volume. */
function accessText({ name, open, access }: VolumeSummary): string {
  const lines: string[] = [];
  if (open) lines.push(`volume ${name} is open to everyone, unproven, at every portal`);
  if (access.length > 0) {
    const rows = access.map((one) => [one.initiator, one.lun < 0 ? "-" : String(one.lun)]);
    lines.push(table(["allowed initiator", "LUN of the common target"], rows));
  } else if (!open) {
    lines.push(`volume ${name} is open to everyone at loopback portals, and to nobody at others`);
  }
  return lines.join("\n");
}
