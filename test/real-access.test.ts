import assert from "node:assert/strict";
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { RealCluster, targetOf } from "../tools/real-cluster-io.ts";
import { runTool } from "../tools/run-tool-io.ts";

/**
 * Who is let in, on real processes, as libiscsi's tools find it at a portal that is not on loopback
 * alone; and where the secrets are to be seen, which is nowhere.
 */

const endiskPath = fileURLToPath(new URL("../tools/bin/endisk", import.meta.url));
const cluster = new RealCluster({
  bricks: 2,
  portalHost: "0.0.0.0",
  volumes: ["disk0:1GiB", "disk1:1GiB"],
});
const host = "iqn.2026-11.test:host";
const other = "iqn.2026-11.test:other";
/** What must not be found anywhere; nothing else contains it. */
const secrets = { host: "Zq7-host-secret", other: "Zq7-other-secret", target: "Zq7-its-own-one" };
/** Everything that a command printed. */
const printed: string[] = [];

before(() => cluster.start());
after(() => cluster.dispose());

async function endisk(args: readonly string[], input?: string) {
  const given = [...args, "--data", cluster.data];
  const result = await runTool(endiskPath, given, input === undefined ? {} : { input });
  printed.push(result.output);
  return result;
}

async function done(args: readonly string[], input?: string): Promise<string> {
  const { code, output } = await endisk(args, input);
  assert.equal(code, 0, `${args.join(" ")}: ${output}`);
  return output;
}

interface Asking {
  readonly name?: string;
  readonly secret?: string;
  readonly volume?: string;
  readonly lun?: number;
  readonly brick?: number;
  /** What the target must prove in return. */
  readonly target?: string;
}

/** INQUIRY by libiscsi, which speaks CHAP with MD5; whether it was let in. */
async function isLetIn(asking: Asking): Promise<boolean> {
  const { name, secret, volume, lun, brick } = asking;
  const account = secret === undefined ? "" : `user%${secret}@`;
  const mutual = asking.target === undefined ? "" : mutualPart(asking.target);
  const path = `${targetOf(volume ?? "disk0")}/${lun ?? 0}${mutual}`;
  const url = `iscsi://${account}${cluster.portal(brick ?? 1)}/${path}`;
  const { code, output } = await runTool("iscsi-inq", ["-i", name ?? host, url]);
  if (code === 0) {
    assert.match(output, /Vendor:END/);
    return true;
  }
  assert.match(output, /[Ll]ogin|Failed to/, output);
  return false;
}

function mutualPart(secret: string): string {
  return `?target_user=disks&target_password=${secret}`;
}

function secretFile(name: string, secret: string, mode = 0o600): string {
  const path = join(cluster.folder, name);
  writeFileSync(path, `${secret}\n`);
  chmodSync(path, mode);
  return path;
}

/** Credentials that libiscsi 1.19 can prove: it knows no more than MD5. */
const md5 = ["--chap-user", "user", "--weakest", "md5"];

test("a portal that is not on loopback alone lets nobody in until somebody is named", async () => {
  assert.equal(await isLetIn({}), false);
  const { output } = await runTool("iscsi-ls", ["-i", host, `iscsi://${cluster.portal(1)}`]);
  assert.doesNotMatch(output, /Target:/);
});

test("a secret comes from a private file or standard input, never from what others can read", async () => {
  const open = secretFile("open", secrets.host, 0o644);
  const refused = await endisk(["initiator", "add", host, "--secret-file", open]);
  assert.equal(refused.code, 6, refused.output);
  assert.match(refused.output, /others can read it; run chmod 600/);
  const short = await endisk(["initiator", "add", host, "--secret-file", "-"], "eleven-byte");
  assert.equal(short.code, 2);
  assert.match(short.output, /the secret has 11 bytes; it must have 12 to 128/);
  const bare = await endisk(["initiator", "add", host]);
  assert.equal(bare.code, 2, bare.output);
});

test("one-way CHAP: the right name and secret, through any portal, and nothing else", async () => {
  const file = secretFile("host", secrets.host);
  await done(["initiator", "add", host, ...md5, "--secret-file", file]);
  assert.equal(await isLetIn({ secret: secrets.host }), false, "known, but not allowed");
  await done(["volume", "allow", "disk0", host]);
  assert.equal(await isLetIn({ secret: secrets.host }), true);
  assert.equal(await isLetIn({ secret: secrets.host, brick: 2 }), true);
  assert.equal(await isLetIn({ secret: "Zq7-not-the-one" }), false);
  assert.equal(await isLetIn({}), false);
  assert.equal(await isLetIn({ name: other, secret: secrets.host }), false);
  assert.equal(await isLetIn({ volume: "disk1", secret: secrets.host }), false);
});

test("LUNs of the common target are each initiator's own", async () => {
  const status = await cluster.status();
  const common = status.commonTarget.slice(targetOf("").length);
  await done(["initiator", "add", other, ...md5, "--secret-file", "-"], secrets.other);
  await done(["volume", "allow", "disk1", other, "--lun", "3"]);
  const asking = { name: other, secret: secrets.other, volume: common };
  assert.equal(await isLetIn({ ...asking, lun: 3 }), true);
  assert.equal(await isLetIn({ secret: secrets.host, volume: common, lun: 3 }), false);
  const portal = `iscsi://user%${secrets.other}@${cluster.portal(1)}`;
  const { output } = await runTool("iscsi-ls", ["-i", other, portal]);
  assert.match(output, new RegExp(`Target:${status.commonTarget} `));
  assert.match(output, new RegExp(`Target:${targetOf("disk1")} `));
  assert.doesNotMatch(output, new RegExp(targetOf("disk0")));
});

test("an initiator that is weaker than its account asks is refused", async () => {
  await done(
    ["initiator", "add", other, "--chap-user", "user", "--secret-file", "-"],
    secrets.other,
  );
  assert.equal(await isLetIn({ name: other, secret: secrets.other, volume: "disk1" }), false);
});

test("one secret is not taken for two initiators, nor for both directions", async () => {
  const twice = await endisk(["initiator", "add", other, "--secret-file", "-"], secrets.host);
  assert.equal(twice.code, 2, twice.output);
  assert.match(twice.output, /initiator iqn.2026-11.test:host has the same secret/);
  const file = secretFile("same", secrets.other);
  const mutual = ["--mutual-user", "disks", "--mutual-secret-file", file];
  const both = await endisk(
    ["initiator", "add", other, "--secret-file", "-", ...mutual],
    secrets.other,
  );
  assert.equal(both.code, 2, both.output);
  assert.match(both.output, /own secret; give it another/);
  const own = secretFile("target", secrets.target);
  const right = ["--mutual-user", "disks", "--mutual-secret-file", own];
  await done(["initiator", "add", other, ...md5, ...right, "--secret-file", "-"], secrets.other);
});

test("mutual CHAP: the target proves itself to those who ask it to", async () => {
  const asking = { name: other, secret: secrets.other, volume: "disk1" };
  assert.equal(await isLetIn({ ...asking, target: secrets.target }), true);
  assert.equal(await isLetIn({ ...asking, target: "Zq7-someone-else" }), false);
  assert.equal(await isLetIn(asking), true, "it is for the initiator to ask");
});

test("a generated secret is shown once, and serves", async () => {
  const name = "iqn.2026-11.test:generated";
  const made = JSON.parse(await done(["initiator", "add", name, ...md5, "--generate", "--json"]));
  printed.pop();
  assert.match(made.secret, /^[A-Za-z0-9_-]{16}$/);
  await done(["volume", "allow", "disk1", name]);
  assert.equal(await isLetIn({ name, secret: made.secret, volume: "disk1" }), true);
  const shown = JSON.parse(await done(["initiator", "show", name, "--json"]));
  assert.deepEqual(shown, {
    name,
    user: "user",
    weakest: "md5",
    mutualUser: "",
    volumes: [{ name: "disk1", lun: -1 }],
  });
});

test("discovery proves its own credentials when they are set", async () => {
  const found = async (account: string) => {
    const portal = `iscsi://${account}${cluster.portal(1)}`;
    const { output } = await runTool("iscsi-ls", ["-i", host, portal]);
    return output.includes(targetOf("disk0"));
  };
  await done(["discovery", "chap", "set", ...md5, "--secret-file", "-"], "Zq7-for-discovery");
  assert.equal(await found("user%Zq7-for-discovery@"), true);
  assert.equal(await found(`user%${secrets.host}@`), false);
  await done(["discovery", "chap", "clear"]);
  assert.equal(await found(`user%${secrets.host}@`), true);
  assert.equal(await found("user%Zq7-for-discovery@"), false);
});

test("what is denied again is closed, and what is opened is everyone's", async () => {
  const early = await endisk(["initiator", "remove", host]);
  assert.equal(early.code, 5, early.output);
  await done(["volume", "deny", "disk0", host]);
  await done(["initiator", "remove", host]);
  assert.equal(await isLetIn({ secret: secrets.host }), false);
  await done(["volume", "allow", "disk0", "--no-auth"]);
  assert.equal(await isLetIn({}), true);
  assert.equal(await isLetIn({ name: "iqn.2026-11.test:anyone" }), true);
  await done(["volume", "deny", "disk0", "--no-auth"]);
  assert.equal(await isLetIn({}), false);
});

test("no secret is in files, logs, command lines, metrics, or anything that was printed", async () => {
  await done(["status"]);
  await done(["status", "--json"]);
  await done(["volume", "show", "disk1"]);
  await done(["initiator", "list"]);
  await done(["initiator", "list", "--json"]);
  const places = new Map<string, string>();
  for (const path of filesUnder(cluster.data)) places.set(path, readFileSync(path, "latin1"));
  assert.ok(places.size > 20, `${places.size} files were read`);
  places.set("the log", cluster.lines.join("\n"));
  places.set("what commands printed", printed.join("\n"));
  for (const brick of [1, 2]) {
    const metrics = await (await fetch(`http://${cluster.api(brick)}/metrics`)).text();
    const health = await (await fetch(`http://${cluster.api(brick)}/health`)).text();
    places.set(`metrics of brick ${brick}`, metrics + health);
    for (const part of ["cmdline", "environ"]) {
      const path = `/proc/${cluster.pid(brick)}/${part}`;
      places.set(path, readFileSync(path, "latin1"));
    }
  }
  // What was looked through is what would hold them.
  const raft = [...places].filter(([place]) => place.includes("/raft/"));
  assert.ok(raft.some(([, text]) => text.includes("setInitiator") && text.includes(other)));
  const hits: string[] = [];
  for (const [place, text] of places) {
    for (const secret of [...Object.values(secrets), "Zq7-for-discovery"]) {
      if (formsOf(secret).some((form) => text.includes(form))) hits.push(`${secret} in ${place}`);
    }
  }
  assert.deepEqual(hits, []);
});

test("the command that brings a secret does not show it while it runs", async () => {
  const file = secretFile("host-again", secrets.host);
  const running = endisk(["initiator", "add", host, ...md5, "--secret-file", file]);
  let seen = 0;
  let ended = false;
  running.finally(() => {
    ended = true;
  });
  while (!ended) {
    for (const line of commandLines()) {
      assert.equal(line.includes(secrets.host), false, line);
      if (line.includes("initiator") && line.includes(host)) seen += 1;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.equal((await running).code, 0);
  assert.ok(seen > 0, "its command line was looked at");
});

/** As it is, and as it would stand in JSON of bytes, in hex and in base64. */
function formsOf(secret: string): string[] {
  const bytes = Buffer.from(secret);
  return [secret, bytes.toString("hex"), bytes.toString("base64").replace(/=+$/, "")];
}

function* filesUnder(folder: string): Generator<string> {
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    const path = join(folder, name);
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat?.isFile() && stat.size > 0) yield path;
  }
}

function commandLines(): string[] {
  const processes = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return processes.flatMap((pid) => {
    try {
      return [readFileSync(`/proc/${pid}/cmdline`, "latin1")];
    } catch {
      // It has ended meanwhile.
      return [];
    }
  });
}
