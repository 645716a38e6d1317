import { sizeText } from "../../brick/size-text.ts";
import { spaceThresholds } from "../../control/event-rules-bricks.ts";
import type { HealthFacts, Problem } from "./facts.ts";

/** A volume that is mapped up to this share of its size is told of; it hurts nobody by itself. */
export const volumePercentMax = 90;

/** Space of the whole cluster, and of volumes. */
export function spaceProblems(facts: HealthFacts): Problem[] {
  return [...clusterSpace(facts), ...volumeSpace(facts)];
}

function clusterSpace({ stats }: HealthFacts): Problem[] {
  let used = 0;
  let free = 0;
  let reclaimable = 0;
  for (const one of stats.values()) {
    used += one.usedBytes;
    free += one.freeBytes;
    reclaimable += one.reclaimableBytes;
  }
  if (used + free === 0) return [];
  const percent = Math.floor((used / (used + free)) * 100);
  const [low] = spaceThresholds;
  if (percent < low) return [];
  const full = free === 0;
  return [
    {
      code: full ? "space_exhausted" : "space_low",
      severity: full ? "critical" : "warning",
      subject: "cluster",
      what: full
        ? "the cluster is full: writes are refused"
        : `the cluster is ${percent} % full: ${sizeText(free)} are free`,
      sinceMs: 0,
      doing: `garbage collection runs; ${sizeText(Math.max(0, reclaimable))} are waiting for compaction`,
      advice: "add a brick, or delete or trim what is not needed",
    },
  ];
}

function volumeSpace({ state, stats }: HealthFacts): Problem[] {
  const mapped = new Map<number, number>();
  for (const one of stats.values()) {
    for (const [branch, bytes] of one.mapped) {
      mapped.set(branch, (mapped.get(branch) ?? 0) + bytes);
    }
  }
  return Object.values(state.volumes).flatMap(({ name, branch, sizeBytes, status }) => {
    const percent = Math.floor(((mapped.get(branch) ?? 0) / sizeBytes) * 100);
    if (status !== "ready" || percent < volumePercentMax) return [];
    return [
      {
        code: "volume_nearly_full",
        severity: "info",
        subject: `volume ${name}`,
        what: `volume ${name} is ${percent} % written`,
        sinceMs: 0,
        doing: "it can be written up to its size",
        advice: `\`endisk volume resize ${name} --size SIZE\`, or trim what its file system has freed`,
      } as const,
    ];
  });
}
