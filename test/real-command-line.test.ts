import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { RealCluster } from "../tools/real-cluster-io.ts";
import { runTool } from "../tools/run-tool-io.ts";

/** The executable as a person or a script meets it: what it prints, refuses, and returns. */

const endiskPath = fileURLToPath(new URL("../tools/bin/endisk", import.meta.url));
const cluster = new RealCluster({ bricks: 1 });

before(() => cluster.start());
after(() => cluster.dispose());

function endisk(...args: string[]) {
  return runTool(endiskPath, args);
}

test("every command has help", async () => {
  const commands = [
    [],
    ["up"],
    ["init"],
    ["brick"],
    ["brick", "list"],
    ["brick", "show"],
    ["brick", "drain"],
    ["brick", "remove"],
    ["token"],
    ["status"],
    ["events"],
    ["volume"],
    ["volume", "create"],
    ["volume", "list"],
    ["volume", "show"],
    ["volume", "resize"],
    ["volume", "delete"],
    ["volume", "allow"],
    ["volume", "deny"],
    ["initiator"],
    ["initiator", "add"],
    ["initiator", "remove"],
    ["initiator", "list"],
    ["initiator", "show"],
    ["discovery", "chap", "set"],
    ["discovery", "chap", "clear"],
  ];
  for (const command of commands) {
    const { code, output } = await endisk(...command, "--help");
    assert.equal(code, 0, output);
    assert.match(output, new RegExp(`^Usage: endisk ${command.join(" ")}`), command.join(" "));
  }
});

test("a wrong value is refused with exit code 2 and what would be right", async () => {
  for (const [args, expected] of [
    [["volume", "create", "disk1", "--size", "big"], /--size "big" is not a size/],
    [["volume", "create", "Disk"], /NAME "Disk" is not a volume name/],
    [["status", "--api", "nowhere"], /--api "nowhere" is not an address: write HOST:PORT/],
    [["up", "--bricks", "0"], /--bricks "0" must be from 1 to 16/],
    [["up", "--portal", "127.0.0.1:3280"], /overlap/],
    [["brick"], /--data DIR is missing/],
    [["brick", "--data", "/nonexistent", "--join", "127.0.0.1:1"], /belong together/],
    [["initiator", "add", "host", "--no-auth"], /NAME "host" is not an iSCSI name: iqn/],
    [["volume", "allow", "disk0"], /say whom: either an INITIATOR/],
    [["volume", "allow", "disk0", "--no-auth", "--lun", "1"], /--lun goes with an INITIATOR/],
    [["volume", "allow", "disk0", "iqn.2026-11.test:a", "--lun", "256"], /must be from 0 to 255/],
    [["events", "--since", "yesterday"], /--since "yesterday" is not the number of an event/],
    [["frobnicate"], /unknown command/],
  ] as const) {
    const { code, output } = await endisk(...args);
    assert.equal(code, 2, `${args.join(" ")}: ${output}`);
    assert.match(output, expected);
    assert.doesNotMatch(output, /\n +at /, "no stack trace");
  }
});

test("a volume's life on the command line", async () => {
  const data = ["--data", cluster.data];
  const made = await endisk(
    "volume",
    "create",
    "v1",
    "--size",
    "2GiB",
    "--copies",
    "1",
    "--json",
    ...data,
  );
  assert.equal(made.code, 0, made.output);
  assert.equal(JSON.parse(made.output).sizeBytes, 2 * 2 ** 30);
  assert.equal((await endisk("volume", "create", "v1", "--copies", "1", ...data)).code, 5);
  const grown = await endisk("volume", "resize", "v1", "--size", "3GiB", "--json", ...data);
  assert.equal(JSON.parse(grown.output).sizeBytes, 3 * 2 ** 30);
  const listed = JSON.parse((await endisk("volume", "list", "--json", ...data)).output);
  assert.deepEqual(
    listed.map((volume: { name: string }) => volume.name),
    ["disk0", "v1"],
  );
  assert.equal((await endisk("volume", "delete", "v1", ...data)).code, 0);
  assert.equal((await endisk("volume", "show", "v1", ...data)).code, 4);
  // The name is free again, and the new volume is another one.
  const again = await endisk("volume", "create", "v1", "--size", "1GiB", "--json", ...data);
  assert.equal(again.code, 0, again.output);
  assert.notEqual(JSON.parse(again.output).uuid, JSON.parse(made.output).uuid);
  assert.equal((await endisk("volume", "delete", "v1", ...data)).code, 0);
  assert.equal((await endisk("volume", "show", "none", ...data)).code, 4);
  assert.equal((await endisk("brick", "show", "77", ...data)).code, 4);
});

test("a data directory in use is refused", async () => {
  const up = await endisk("up", "--data", cluster.data);
  assert.equal(up.code, 7, up.output);
  const brick = await endisk("brick", "--data", join(cluster.data, "brick-1"));
  assert.equal(brick.code, 7, brick.output);
});

test("an address in use is named at once", async () => {
  const other = join(cluster.folder, "other");
  const args = ["--data", other, "--api", cluster.api(5), "--portal", cluster.portal(1)];
  const { code, output } = await endisk("up", ...args);
  assert.equal(code, 7, output);
  assert.ok(output.includes(`${cluster.portal(1)} is in use`), output);
});

test("who does not know the secret is refused, and a secret that others can read is not used", async () => {
  const stranger = mkdtempSync(join(tmpdir(), "endisk-stranger-"));
  try {
    const made = await endisk(
      "init",
      "--data",
      stranger,
      "--listen",
      "127.0.0.1:1",
      "--portal",
      "127.0.0.1:2",
      "--api",
      "127.0.0.1:3",
      "--capacity",
      "256MiB",
    );
    assert.equal(made.code, 0, made.output);
    const refused = await runTool(
      endiskPath,
      ["status", "--api", cluster.api(1), "--data", stranger],
      { env: { XDG_STATE_HOME: join(stranger, "state") } },
    );
    assert.equal(refused.code, 6, refused.output);
    chmodSync(join(stranger, "cluster.secret"), 0o644);
    const loose = await endisk("brick", "--data", stranger);
    assert.equal(loose.code, 6, loose.output);
    assert.match(loose.output, /others can read it/);
  } finally {
    rmSync(stranger, { recursive: true });
  }
});

test("no cluster there: exit code 3", async () => {
  const { code, output } = await endisk("status", "--data", "/nonexistent");
  assert.equal(code, 3, output);
});
