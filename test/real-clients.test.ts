import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Initiator } from "../tools/load/initiator-io.ts";
import { RealCluster, targetOf } from "../tools/real-cluster-io.ts";
import { runTool } from "../tools/run-tool-io.ts";

/** libiscsi's and QEMU's initiators against a cluster of three bricks, through each portal. */

const cluster = new RealCluster({ volumes: ["disk0:1TiB", "small:64MiB"] });
const portals = [1, 2, 3];

before(() => cluster.start());
after(() => cluster.dispose());

for (const number of portals) {
  test(`iscsi-inq knows the disk at portal ${number}`, async () => {
    const { code, output } = await runTool("iscsi-inq", [cluster.url(number)]);
    assert.equal(code, 0, output);
    assert.match(output, /Peripheral Device Type:DIRECT_ACCESS/);
  });

  test(`iscsi-readcapacity16 sees 1 TiB at portal ${number}`, async () => {
    const { code, output } = await runTool("iscsi-readcapacity16", ["-s", cluster.url(number)]);
    assert.equal(code, 0, output);
    assert.equal(output.trim(), String(2 ** 40));
  });

  test(`a thin disk is announced in the block limits at portal ${number}`, async () => {
    const inquiry = (page: number) =>
      runTool("iscsi-inq", ["-e", "1", "-c", String(page), cluster.url(number)]);
    const thin = await inquiry(0xb2);
    assert.equal(thin.code, 0, thin.output);
    assert.match(thin.output, /lbpu:1|Unmap:1|lbpu: *1/i);
    const identity = await inquiry(0x83);
    assert.equal(identity.code, 0, identity.output);
  });

  test(`discovery at portal ${number} lists both volumes with every portal`, async () => {
    const colon = cluster.portal(number).lastIndexOf(":");
    const session = await Initiator.connect({
      host: cluster.portal(number).slice(0, colon),
      port: Number(cluster.portal(number).slice(colon + 1)),
      target: null,
    });
    const targets = await session.sendTargets();
    await session.logout();
    const wanted = portals.map((brick) => `${cluster.portal(brick)},${brick}`);
    assert.deepEqual(
      targets.map(({ target, addresses }) => ({ target, addresses: addresses.toSorted() })),
      ["disk0", "small"].map((volume) => ({ target: targetOf(volume), addresses: wanted })),
    );
  });

  test(`iscsi-ls finds the volumes at portal ${number}`, async () => {
    const args = ["-s", `iscsi://${cluster.portal(number)}`];
    const { code, output } = await runTool("iscsi-ls", args);
    assert.equal(code, 0, output);
    assert.ok(output.includes(targetOf("disk0")), output);
  });

  test(`qemu-io writes, discards and verifies patterns through portal ${number}`, async () => {
    const at = `${number}G`;
    const next = (mib: number) => `${number * 1024 + mib}M`;
    await qemuIo(cluster.url(number), [
      `write -P 0xa${number} ${at} 8M`,
      `write -z ${next(2)} 1M`,
      `discard ${next(4)} 1M`,
      `write -P 0x5${number} ${next(6)} 512`,
      "flush",
      `read -P 0xa${number} ${at} 2M`,
      `read -P 0 ${next(2)} 1M`,
      `read -P 0xa${number} ${next(3)} 1M`,
      `read -P 0 ${next(4)} 1M`,
      `read -P 0x5${number} ${next(6)} 512`,
      `read -P 0xa${number} ${next(7)} 1M`,
    ]);
  });

  test(`what portal ${number} wrote is read through the others`, async () => {
    for (const other of portals.filter((portal) => portal !== number)) {
      await qemuIo(cluster.url(other), [`read -P 0xa${number} ${number * 1024 + 7}M 1M`]);
    }
  });
}

test("qemu-img reads the size and copies an image in and out", async () => {
  const info = await runTool("qemu-img", ["info", "--output=json", cluster.url(1, "small")]);
  assert.equal(info.code, 0, info.output);
  assert.equal(JSON.parse(info.output)["virtual-size"], 64 * 2 ** 20);
  const image = `${cluster.folder}/image.raw`;
  const made = await runTool("qemu-img", ["create", "-f", "raw", image, "64M"]);
  assert.equal(made.code, 0, made.output);
  await qemuIo(image, ["write -P 0x77 1M 3M", "write -P 0x78 40M 64k"]);
  const copied = await runTool("qemu-img", [
    "convert",
    "-n",
    "-f",
    "raw",
    "-O",
    "raw",
    image,
    cluster.url(2, "small"),
  ]);
  assert.equal(copied.code, 0, copied.output);
  const same = await runTool("qemu-img", [
    "compare",
    "-f",
    "raw",
    "-F",
    "raw",
    image,
    cluster.url(3, "small"),
  ]);
  assert.equal(same.code, 0, same.output);
});

test("a volume that grows is seen larger by the next initiator", async () => {
  await cluster.endisk("volume", "resize", "small", "--size", "128MiB");
  const { output } = await runTool("iscsi-readcapacity16", ["-s", cluster.url(3, "small")]);
  assert.equal(output.trim(), String(128 * 2 ** 20));
});

test("identical data is stored once, and status shows it", async () => {
  await cluster.endisk("volume", "create", "twins", "--size", "1GiB");
  await qemuIo(cluster.url(1, "twins"), ["write -P 0xc1 0 4M"]);
  const before = await cluster.status();
  await qemuIo(cluster.url(1, "twins"), ["write -P 0xc1 512M 4M"]);
  const after = await cluster.status();
  assert.ok(after.dedupHits > before.dedupHits, JSON.stringify({ before, after }));
  assert.ok(after.chunkBytes - before.chunkBytes < 1024 * 1024);
});

test("a volume of 64 TiB is created, used at its end and deleted", async () => {
  await cluster.endisk("volume", "create", "huge", "--size", "64TiB");
  await qemuIo(cluster.url(2, "huge"), ["write -P 0x3c 65535G 1M", "read -P 0x3c 65535G 1M"]);
  await cluster.endisk("volume", "delete", "huge");
  const { volumes } = await cluster.status();
  assert.ok(volumes.every((volume) => volume.name !== "huge" || volume.status === "deleting"));
});

test("the metrics of the brick that answered count the commands", async () => {
  let commands = 0;
  for (const number of portals) commands += await cluster.metric(number, "endisk_commands_total");
  assert.ok(commands > 50, `${commands} commands`);
});

test("a clean stop ends with exit code 0, and the data is there after the next start", async () => {
  assert.equal(await cluster.stop(), 0);
  await cluster.start();
  for (const number of portals) {
    await qemuIo(cluster.url(number), [`read -P 0xa${number} ${number * 1024 + 7}M 1M`]);
  }
});

async function qemuIo(url: string, commands: readonly string[]): Promise<void> {
  const args = ["-f", "raw", "-t", "none", ...commands.flatMap((command) => ["-c", command]), url];
  const { code, output } = await runTool("qemu-io", args);
  assert.equal(code, 0, output);
  // qemu-io reports a pattern that does not match in its output.
  assert.doesNotMatch(output, /fail|error|mismatch/i);
}
