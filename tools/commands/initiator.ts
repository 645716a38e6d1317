import type { Command } from "commander";
import type { InitiatorSummary } from "../../control/api.ts";
import { findCluster } from "../find-cluster-io.ts";
import { initiatorNameSchema, parseOption, UsageError } from "../options.ts";
import { table } from "../table.ts";
import { type AdminOptions, ask, print, withClusterOptions } from "./admin.ts";
import { type ChapOptions, hasChapOptions, sealedChap, withChapOptions } from "./chap-options.ts";

type AddOptions = AdminOptions & ChapOptions & { auth: boolean };

export function addInitiator(endisk: Command): void {
  const initiator = endisk
    .command("initiator")
    .description("Say which initiators there are, and what each must prove");

  withChapOptions(
    withClusterOptions(
      initiator
        .command("add <NAME>")
        .description("Add an initiator by its iSCSI name, or replace it"),
    ),
  )
    .option("--no-auth", "known by its name alone, which anyone can claim")
    .action(async (given: string, options: AddOptions) => {
      const name = parseOption("NAME", given, initiatorNameSchema);
      const wantsChap = hasChapOptions(options);
      if (wantsChap !== options.auth) {
        throw new UsageError(
          "an initiator is added with a secret (--secret-file or --generate), or with --no-auth",
        );
      }
      const { secret } = findCluster(options);
      const made = wantsChap ? sealedChap(options, secret, name, name) : null;
      const value = await ask(options, (client) => client.initiatorSet(name, made?.chap ?? null));
      const generated = made?.generated ?? null;
      const shown = generated === null ? value : { ...value, secret: generated };
      print(options, shown, () => {
        const lines = [initiatorsText([value])];
        if (generated !== null) lines.push("", `secret: ${generated} (it is not shown again)`);
        return lines.join("\n");
      });
    });

  withClusterOptions(
    initiator.command("remove <NAME>").description("Forget an initiator that may use no volume"),
  ).action(async (given: string, options: AdminOptions) => {
    const name = parseOption("NAME", given, initiatorNameSchema);
    await ask(options, (client) => client.initiatorRemove(name));
    print(options, { name }, () => `initiator ${name} is removed`);
  });

  withClusterOptions(initiator.command("list").description("List the initiators")).action(
    async (options: AdminOptions) => {
      const { initiators } = await ask(options, (client) => client.initiatorList());
      print(options, initiators, () => initiatorsText(initiators));
    },
  );

  withClusterOptions(initiator.command("show <NAME>").description("Show one initiator")).action(
    async (given: string, options: AdminOptions) => {
      const name = parseOption("NAME", given, initiatorNameSchema);
      const value = await ask(options, (client) => client.initiatorShow(name));
      print(options, value, () => initiatorsText([value]));
    },
  );
}

export function addDiscovery(endisk: Command): void {
  const chap = endisk
    .command("discovery")
    .description("Say what discovery sessions must prove")
    .command("chap")
    .description("Credentials of discovery, instead of each initiator's own");

  withChapOptions(
    withClusterOptions(chap.command("set").description("Every discovery session must prove these")),
  ).action(async (options: AdminOptions & ChapOptions) => {
    const { secret } = findCluster(options);
    const made = sealedChap(options, secret, null, "discovery");
    await ask(options, (client) => client.discoveryChap(made.chap));
    const { user, weakest } = made.chap;
    const shown = { user, weakest, ...(made.generated !== null && { secret: made.generated }) };
    print(options, shown, () => {
      const lines = [`discovery must prove user ${user}, by ${weakest} or stronger`];
      if (made.generated !== null) lines.push(`secret: ${made.generated} (it is not shown again)`);
      return lines.join("\n");
    });
  });

  withClusterOptions(
    chap.command("clear").description("Discovery proves each initiator's own credentials again"),
  ).action(async (options: AdminOptions) => {
    await ask(options, (client) => client.discoveryChap(null));
    print(options, {}, () => "discovery has no credentials of its own");
  });
}

export function initiatorsText(initiators: readonly InitiatorSummary[]): string {
  if (initiators.length === 0) return "no initiators";
  const rows = initiators.map((one) => [
    one.name,
    one.user === "" ? "none" : `${one.user} (${one.weakest} or stronger)`,
    one.mutualUser || "-",
    one.volumes.map(({ name, lun }) => (lun < 0 ? name : `${name} (LUN ${lun})`)).join(", ") || "-",
  ]);
  return table(["initiator", "proves", "target proves", "volumes"], rows);
}
