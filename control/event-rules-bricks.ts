import { type BrickRecord, type ClusterState, isReachable } from "../brick/cluster-state.ts";
import { sizeText } from "../brick/size-text.ts";
import { noHealth } from "./brick-commands.ts";
import type { Command } from "./commands.ts";
import { counted } from "./counted-text.ts";
import { durationText } from "./duration-text.ts";
import type { EventDraft, Severity } from "./events.ts";

/** Shares of a brick's capacity at which an operator is told, in per cent. */
export const spaceThresholds = [80, 90] as const;

/** What became of bricks. */
export function brickEvents(
  before: ClusterState,
  after: ClusterState,
  command: Command,
): EventDraft[] {
  if (before.bricks === after.bricks) return [];
  const events: EventDraft[] = [];
  if (command.type === "initCluster") {
    const text = `cluster ${after.clusterId} begins with brick 1`;
    events.push({ severity: "info", kind: "cluster_begun", subject: "cluster", text });
  }
  for (const brick of Object.values(after.bricks)) {
    const old = before.bricks[brick.number];
    if (old === brick) continue;
    if (old === undefined) events.push(joined(brick));
    else events.push(...presenceEvents(old, brick, after), ...spaceEvents(old, brick));
  }
  if (command.type === "announceBrick" && command.cut && isNewBoot(before, after, command.number)) {
    const text = `brick ${command.number} lost the end of its log: its map replicas count as damaged until another has vouched for them`;
    events.push(onBrick(command.number, "log_damaged", text, "warning"));
  }
  if (hadNoPower(before, after, command)) {
    const text = "all bricks were without power at once: the cluster has started anew";
    events.push({ severity: "warning", kind: "cold_start", subject: "cluster", text });
  }
  return events;
}

function joined({ number, peerAddress, capacityBytes }: BrickRecord): EventDraft {
  const text = `brick ${number} joined from ${peerAddress}, with ${sizeText(capacityBytes)}`;
  return onBrick(number, "brick_joined", text);
}

function presenceEvents(old: BrickRecord, brick: BrickRecord, after: ClusterState): EventDraft[] {
  const { number, status } = brick;
  const events: EventDraft[] = [];
  if (status !== old.status) {
    if (status === "failed") {
      const away = awayText(old, after);
      const text = `brick ${number} counts as failed${away}: its copies are made anew on others`;
      events.push(onBrick(number, "brick_failed", text, "critical"));
    } else if (status === "draining") {
      events.push(onBrick(number, "brick_draining", `brick ${number} is being emptied`));
    } else if (status === "removed") {
      events.push(onBrick(number, "brick_removed", `brick ${number} was removed`));
    } else if (old.status === "draining") {
      events.push(onBrick(number, "drain_ended", `brick ${number} is being emptied no more`));
    }
  }
  if (isReachable(old) && !isReachable(brick) && status !== "removed") {
    const text = `brick ${number} is down: it has not been heard, and its lease has ended`;
    events.push(onBrick(number, "brick_down", text, "warning"));
  } else if (!isReachable(old) && isReachable(brick)) {
    const first = old.status === "joining";
    const text = first
      ? `brick ${number} takes part now`
      : `brick ${number} is back${awayText(old, after)}`;
    events.push(onBrick(number, first ? "brick_up" : "brick_returned", text));
  } else if (isReachable(brick) && old.boot !== brick.boot) {
    const text = `brick ${number} has started anew (boot ${brick.boot})`;
    events.push(onBrick(number, "brick_restarted", text));
  }
  if (old.spare === true && brick.spare !== true) {
    events.push(
      onBrick(number, "spare_used", `brick ${number} is no spare any more: it takes data`),
    );
  }
  if (old.growing === true && brick.growing !== true) {
    events.push(onBrick(number, "brick_grown", `brick ${number} has its share of the data`));
  }
  if (old.voter !== brick.voter) {
    const text = `brick ${number} is ${brick.voter ? "now" : "no longer"} a voter of the control plane`;
    events.push(onBrick(number, "voter_changed", text));
  }
  return events;
}

function spaceEvents(old: BrickRecord, brick: BrickRecord): EventDraft[] {
  const { number } = brick;
  const events: EventDraft[] = [];
  for (const percent of spaceThresholds) {
    const was = usedPercent(old) >= percent;
    const is = usedPercent(brick) >= percent;
    if (was === is) continue;
    const text = `brick ${number} is ${is ? `${percent} % full` : `less than ${percent} % full again`}`;
    events.push(onBrick(number, "space_threshold", text, is ? "warning" : "info"));
  }
  if (old.full !== brick.full) {
    const text = brick.full
      ? `brick ${number} is full: new data goes to others`
      : `brick ${number} has room again`;
    const kind = brick.full ? "brick_full" : "brick_has_room";
    events.push(onBrick(number, kind, text, brick.full ? "critical" : "info"));
  }
  return [...events, ...healthEvents(old, brick)];
}

function healthEvents(old: BrickRecord, brick: BrickRecord): EventDraft[] {
  const { number } = brick;
  const was = old.boot === brick.boot ? (old.health ?? noHealth) : noHealth;
  const is = brick.health ?? noHealth;
  const events: EventDraft[] = [];
  const found = is.corruptChunks - was.corruptChunks;
  if (found > 0) {
    const text = `brick ${number} found ${counted(found, "damaged chunk")}: they are read from other bricks`;
    events.push(onBrick(number, "damage_found", text, "critical"));
  }
  const lacked = was.keysLacking ?? 0;
  const lacking = is.keysLacking ?? 0;
  if (lacking > lacked) {
    const text = `brick ${number} lacks the keys of ${counted(lacking, "encrypted volume")}: others serve them, and it asks them for the keys`;
    events.push(onBrick(number, "key_missing", text, "warning"));
  } else if (lacked > 0 && lacking === 0 && old.boot === brick.boot) {
    const text = `brick ${number} has the keys of all encrypted volumes again`;
    events.push(onBrick(number, "key_found", text));
  }
  const shards = counted(is.repairPending, "map shard");
  if (was.repairPending === 0 && is.repairPending > 0) {
    const text = `brick ${number} looks through ${shards} for copies that are missing since bricks left`;
    events.push(onBrick(number, "repair_begun", text));
  } else if (was.repairPending > 0 && is.repairPending === 0 && old.boot === brick.boot) {
    const text = `brick ${number} has every copy in place again in the map shards that it leads`;
    events.push(onBrick(number, "repair_done", text));
  } else if (was.repairPending > 0 && is.repairPending < was.repairPending) {
    const text = `brick ${number} restores copies: ${shards} left`;
    events.push(onBrick(number, "repair_progress", text));
  }
  return events;
}

function usedPercent({ usedBytes, capacityBytes }: BrickRecord): number {
  return capacityBytes === 0 ? 0 : (usedBytes / capacityBytes) * 100;
}

function awayText({ downSinceMs }: BrickRecord, { clusterTimeMs }: ClusterState): string {
  return downSinceMs === 0
    ? ""
    : `, ${durationText(clusterTimeMs - downSinceMs)} after it went down`;
}

function isNewBoot(before: ClusterState, after: ClusterState, number: number): boolean {
  return before.bricks[number]?.boot !== after.bricks[number]?.boot;
}

/**
 * Doubt whether there was power (`unwitnessed`) ends by a witness, or by the certainty that there
 * was none (afterPowerLoss of unit-commands.ts).
 */
function hadNoPower(before: ClusterState, after: ClusterState, command: Command): boolean {
  if (command.type === "witness" || isInDoubt(Object.values(after.bricks))) return false;
  if (command.type !== "announceBrick") return isInDoubt(Object.values(before.bricks));
  const { number, witnessed } = command;
  const others = Object.values(before.bricks).filter((brick) => brick.number !== number);
  if (isInDoubt(others)) return true;
  if (isNewBoot(before, after, number)) return witnessed === false;
  return before.bricks[number]?.unwitnessed === true;
}

function isInDoubt(bricks: readonly BrickRecord[]): boolean {
  return bricks.some((brick) => brick.unwitnessed === true);
}

function onBrick(
  number: number,
  kind: string,
  text: string,
  severity: Severity = "info",
): EventDraft {
  return { severity, kind, subject: `brick ${number}`, text };
}
