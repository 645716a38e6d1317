import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { RealCluster, targetOf } from "../../tools/real-cluster-io.ts";
import { runTool } from "../../tools/run-tool-io.ts";

/** Linux's own initiator, in a guest, against the three portals of a real cluster. */

const cacheFolder = fileURLToPath(new URL("../../.cache/kernel-guest", import.meta.url));
const buildScript = fileURLToPath(new URL("build-guest.sh", import.meta.url));
const guestMsMax = 170_000;
const cluster = new RealCluster();

before(() => cluster.start());
after(() => cluster.dispose());

test("ext4 and XFS on the kernel's iSCSI disk, through three portals", async (context) => {
  const built = await runTool("sh", [buildScript, cacheFolder], { timeoutMs: 120_000 });
  assert.equal(built.code, 0, built.output);
  const ports = [1, 2, 3].map((number) => cluster.portal(number).split(":")[1]);
  const { output } = await runTool("qemu-system-x86_64", guestArgs(ports.join(",")), {
    timeoutMs: guestMsMax,
  });
  const lines = output.split(/\r?\n/);
  for (const line of lines) if (line.startsWith("GUEST ok")) context.diagnostic(line.slice(9));
  assert.ok(lines.includes("GUEST done"), output.slice(-6_000));
});

function guestArgs(ports: string): string[] {
  const settings = {
    // The host's loopback as QEMU's user network shows it to the guest.
    "end.host": "10.0.2.2",
    "end.ports": ports,
    "end.iqn": targetOf("disk0"),
    "end.mib": "32",
  };
  const words = Object.entries(settings).map(([name, value]) => `${name}=${value}`);
  return [
    ...["-machine", "q35,accel=tcg", "-cpu", "max", "-m", "768", "-smp", "1"],
    ...["-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"],
    ...["-kernel", `${cacheFolder}/vmlinuz`, "-initrd", `${cacheFolder}/initrd.gz`],
    ...["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile="],
    ...["-append", `console=ttyS0 quiet panic=-1 ${words.join(" ")}`],
  ];
}
