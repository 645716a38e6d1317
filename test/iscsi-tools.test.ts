import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import { TestAuthority } from "../iscsi/authority.test-double.ts";
import { MemoryVolume, memoryDirectory } from "../iscsi/memory-volume.test-double.ts";
import { openAuthority } from "../iscsi/open-authority.test-double.ts";
import { startPortal } from "../iscsi/portal.ts";

/** Initiators that others wrote, against the target; skipped where they are not installed. */

const run = promisify(execFile);
const target = "iqn.2026-11.endisk:disk";
/** Long enough for a loaded machine; each takes a second or so. */
const limitMs = 60_000;

function missing(tool: string): string | false {
  try {
    execFileSync("which", [tool], { stdio: "ignore" });
    return false;
  } catch {
    return `${tool} is not installed`;
  }
}

async function openDisk(context: TestContext): Promise<string> {
  const volume = new MemoryVolume("disk", 64 << 20);
  const portals: { address: string; tag: number }[] = [];
  const directory = memoryDirectory([volume], portals);
  const portal = await startPortal({
    listen: "127.0.0.1:0",
    announce: "127.0.0.1:0",
    tag: 1,
    directory,
    authority: openAuthority(directory),
    log: () => {},
  });
  portals.push({ address: portal.address, tag: 1 });
  context.after(() => portal.close());
  return `iscsi://${portal.address}`;
}

test("iscsi-ls finds the target and its disk", { skip: missing("iscsi-ls") }, async (context) => {
  const portal = await openDisk(context);
  const { stdout } = await run("iscsi-ls", ["-s", portal], { timeout: limitMs });
  assert.match(stdout, /Target:iqn\.2026-11\.endisk:disk Portal:127\.0\.0\.1:\d+,1/);
  assert.match(stdout, /Lun:0 +Type:DIRECT_ACCESS/);
});

test("qemu-io reads what it wrote and discarded", { skip: missing("qemu-io") }, async (context) => {
  const url = `${await openDisk(context)}/${target}/0`;
  const commands = [
    "write -P 0xab 0 1M",
    "write -P 0xcd 1001472 3M",
    "read -P 0xab 0 1000000",
    "read -P 0xcd 1001472 3M",
    "discard 64k 128k",
    "read -P 0 64k 128k",
    "write -z 200k 8k",
    "read -P 0 200k 8k",
    "flush",
  ];
  const given = commands.flatMap((command) => ["-c", command]);
  const { stdout } = await run("qemu-io", ["-f", "raw", ...given, url], { timeout: limitMs });
  assert.doesNotMatch(stdout, /failed|error/i);
  assert.equal(stdout.match(/^(read|wrote|discard) /gm)?.length, commands.length - 1);
});

test(
  "iscsi-inq proves itself, and has the target prove itself",
  { skip: missing("iscsi-inq") },
  async (context) => {
    const directory = memoryDirectory([new MemoryVolume("disk", 64 << 20)]);
    const authority = new TestAuthority(directory);
    const secret = Buffer.from("sixteen-bytes-ok");
    const mutual = { user: "the-target", secret: Buffer.from("another-sixteen!") };
    const account = { user: "alice", secret, algorithms: [8, 7, 6, 5], mutual };
    authority.proofOfOthers = { method: "chap", account };
    const options = { listen: "127.0.0.1:0", announce: "127.0.0.1:0", tag: 1, log: () => {} };
    const portal = await startPortal({ ...options, directory, authority });
    context.after(() => portal.close());
    const inquire = (user: string, query = "") => {
      return run("iscsi-inq", [`iscsi://${user}${portal.address}/${target}/0${query}`], {
        timeout: limitMs,
      });
    };
    const right = "alice%sixteen-bytes-ok@";
    const proof = "?target_user=the-target&target_password=another-sixteen!";
    for (const query of ["", proof]) {
      const { stdout } = await inquire(right, query);
      assert.match(stdout, /Peripheral Qualifier:CONNECTED/);
    }
    for (const user of ["", "alice%sixteen-bytes-no@", "bob%sixteen-bytes-ok@"]) {
      await assert.rejects(inquire(user), /Authentication failure/);
    }
  },
);

/** Families of libiscsi's conformance suite that the command set covers. */
const families = [
  "Inquiry",
  "Mandatory",
  "ModeSense6",
  "Prefetch10",
  "Prefetch16",
  "Read6",
  "Read10",
  "Read12",
  "Read16",
  "ReadCapacity10",
  "ReadCapacity16",
  "ReportSupportedOpcodes",
  "TestUnitReady",
  "Unmap",
  "Verify10",
  "Verify12",
  "Verify16",
  "Write10",
  "Write12",
  "Write16",
  "WriteSame10",
  "WriteSame16",
  "WriteVerify10",
  "WriteVerify12",
  "WriteVerify16",
  "iSCSIcmdsn",
  "iSCSIdatasn",
  "iSCSIResiduals",
];

for (const family of families) {
  const skip = missing("iscsi-test-cu");
  test(`iscsi-test-cu ${family}`, { skip }, async (context) => {
    const url = `${await openDisk(context)}/${target}/0`;
    const args = ["-d", "-n", "-t", `ALL.${family}`, url];
    const { stdout } = await run("iscsi-test-cu", args, { timeout: limitMs });
    // The summary: total, ran, passed, failed.
    const summary = stdout.match(/^ +tests +(\d+) +(\d+) +(\d+) +(\d+)/m);
    assert(summary !== null, stdout);
    assert.equal(summary[3], summary[1], stdout);
  });
}
