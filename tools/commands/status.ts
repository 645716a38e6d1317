import type { Command } from "commander";
import type { BrickSummary, ClusterStatus, VolumeSummary } from "../../control/api.ts";
import { exitCode } from "../exit-codes.ts";
import { healthText } from "../health/health-text.ts";
import { isHealthy } from "../health/problems.ts";
import { sizeText } from "../options.ts";
import { table } from "../table.ts";
import { type AdminOptions, ask, print, withClusterOptions } from "./admin.ts";

export function addStatus(endisk: Command): void {
  withClusterOptions(
    endisk
      .command("status")
      .description("Show the cluster: what is wrong and what to do, bricks, volumes, space"),
  )
    .option("--check", `end with exit code ${exitCode.unhealthy} when something is wrong`)
    .action(async (options: AdminOptions & { check?: boolean }) => {
      const status = await ask(options, (client) => client.status());
      print(options, status, () => statusText(status, Date.now()));
      if (options.check === true && !isHealthy(status.problems)) {
        process.exitCode = exitCode.unhealthy;
      }
    });
}

export function statusText(status: ClusterStatus, wallMs: number): string {
  const { shards } = status;
  const short = shards.short === 0 ? "" : `, ${shards.short} short of copies`;
  const away = shards.unavailable === 0 ? "" : `, ${shards.unavailable} UNAVAILABLE`;
  const used = `${sizeText(status.usedBytes)} used of ${sizeText(status.capacityBytes)}`;
  const reserve = `${sizeText(status.reserveBytes)} in reserve`;
  const overhead = `${sizeText(status.overheadBytes)} of headers`;
  const epoch = `epoch ${status.gcEpoch}${status.gcMarked < status.gcEpoch ? ", being marked" : ""}`;
  return [
    healthText(status.problems, wallMs),
    "",
    `cluster ${status.clusterId}, led by brick ${status.leader || "(none)"}`,
    `space   ${used}, ${sizeText(status.freeBytes)} free, ${reserve}`,
    `used    ${sizeText(status.chunkBytes)} of chunks, ${overhead}, ${sizeText(status.reclaimableBytes)} reclaimable`,
    `written ${sizeText(status.writtenBytes)} by volumes, before copies and deduplication`,
    `garbage ${epoch}`,
    `balance ${status.rebalance}`,
    `level   ${levelText(status)}`,
    `map     ${shards.whole} of ${shards.total} shards whole${short}${away}`,
    `chunks  ${status.chunkCount} stored`,
    `targets one a volume, and ${status.commonTarget} for LUNs`,
    `dedup   ${status.dedupHits} chunks met their like, ${sizeText(status.dedupBytes)} not stored again`,
    "",
    bricksText(status.bricks),
    "",
    volumesText(status.volumes),
  ].join("\n");
}

/** Every brick knows the cluster's level; what some know beyond it waits for the others. */
export function levelText({ level, bricks }: Pick<ClusterStatus, "level" | "bricks">): string {
  const known = bricks.filter(({ levelNewest }) => levelNewest > 0);
  const newest = Math.max(level, ...known.map(({ levelNewest }) => levelNewest));
  if (newest === level) return `${level}, which every brick knows`;
  const behind = known.filter(({ levelNewest }) => levelNewest < newest).map((one) => one.number);
  const silent = bricks.filter(({ levelNewest }) => levelNewest === 0).map((one) => one.number);
  const old = behind.length > 0 ? `older builds on brick ${behind.join(", ")}` : "";
  const away = silent.length > 0 ? `no answer from brick ${silent.join(", ")}` : "";
  const why = [old, away].filter((text) => text !== "").join("; ");
  return `${level}, until all know ${newest}${why === "" ? "" : `: ${why}`}`;
}

export function bricksText(bricks: readonly BrickSummary[]): string {
  const rows = bricks.map((brick) => [
    brick.number,
    statusWord(brick),
    brick.leader ? "leader" : brick.voter ? "voter" : "learner",
    sizeText(brick.usedBytes),
    sizeText(brick.capacityBytes),
    memoryText(brick),
    brick.build === "" ? "-" : `${brick.build}, level ${brick.levelNewest}`,
    brick.domain || "-",
    brick.portalAddress,
    brick.apiAddress,
  ]);
  const heads = ["brick", "status", "raft", "used", "capacity", "memory", "build"];
  heads.push("domain", "portal", "api");
  return table(heads, rows);
}

function memoryText({ memoryBytes, residentBytes }: BrickSummary): string {
  if (residentBytes === 0) return "-";
  const takes = sizeText(residentBytes);
  return memoryBytes === 0 ? takes : `${takes} of ${sizeText(memoryBytes)}`;
}

function statusWord({ status, full, spare, growing }: BrickSummary): string {
  if (full) return `${status}, full`;
  if (spare) return `${status}, spare`;
  return growing ? `${status}, filling` : status;
}

export function volumesText(volumes: readonly VolumeSummary[]): string {
  if (volumes.length === 0) return "no volumes";
  const rows = volumes.map((volume) => [
    volume.name,
    sizeText(volume.sizeBytes),
    sizeText(volume.usedBytes),
    sizeText(volume.freeBytes),
    volume.copies,
    volume.encrypted ? "yes" : "no",
    volume.status,
    volume.attachedBrick === 0 ? "-" : `brick ${volume.attachedBrick}`,
    accessWord(volume),
    volume.target,
  ]);
  const heads = [
    "volume",
    "size",
    "used",
    "free",
    "copies",
    "encrypted",
    "status",
    "attached",
    "access",
  ];
  return table([...heads, "target"], rows);
}

/** Who may use it, in a word; `endisk volume show` says it in full. */
function accessWord({ open, access }: VolumeSummary): string {
  if (open) return "everyone";
  return access.length === 0 ? "loopback" : `${access.length} named`;
}
