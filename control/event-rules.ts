import type { ClusterState, VolumeRecord } from "../brick/cluster-state.ts";
import { levelOf } from "../brick/feature-level.ts";
import { sizeText } from "../brick/size-text.ts";
import type { Command, CommandOf } from "./commands.ts";
import { brickEvents } from "./event-rules-bricks.ts";
import { shardEvents } from "./event-rules-shards.ts";
import type { EventDraft, Severity } from "./events.ts";

/**
 * Which events a command makes, from the state before and after it. Pure, and the same on every
 * brick. No event holds a secret: of credentials it says that there are some.
 */
export function eventsOf(
  before: ClusterState,
  after: ClusterState,
  command: Command,
): EventDraft[] {
  if (before === after) return [];
  return [
    ...brickEvents(before, after, command),
    ...shardEvents(before, after, command),
    ...levelEvents(before, after),
    ...tokenEvents(before, after, command),
    ...volumeEvents(before, after),
    ...attachmentEvents(before, after),
    ...accessEvents(before, after, command),
    ...unitEvents(before, after, command),
    ...eraseEvents(before, after, command),
  ];
}

/** Another brick leads the control plane than did before (0: nobody was known). */
export function leaderEvent(before: number, leader: number): EventDraft {
  const instead = before === 0 ? "" : `, after brick ${before}`;
  const text = `brick ${leader} leads the control plane now${instead}`;
  return { severity: "info", kind: "leader_elected", subject: "cluster", text };
}

function levelEvents(before: ClusterState, after: ClusterState): EventDraft[] {
  if (levelOf(before) === levelOf(after)) return [];
  const text = `every brick knows feature level ${levelOf(after)}: the cluster uses it from now on`;
  return [{ severity: "info", kind: "level_raised", subject: "cluster", text }];
}

function tokenEvents(before: ClusterState, after: ClusterState, command: Command): EventDraft[] {
  if (command.type !== "addJoinToken" || before.joinTokens === after.joinTokens) return [];
  const text = "a token was made with which one brick may join";
  return [{ severity: "info", kind: "token_made", subject: "cluster", text }];
}

function volumeEvents(before: ClusterState, after: ClusterState): EventDraft[] {
  if (before.volumes === after.volumes) return [];
  const events: EventDraft[] = [];
  for (const volume of Object.values(after.volumes)) {
    const old = before.volumes[volume.name];
    if (old === volume) continue;
    if (old === undefined || old.uuid !== volume.uuid) {
      const size = `${sizeText(volume.sizeBytes)} in ${volume.copies} copies`;
      events.push(onVolume(volume, "volume_created", `volume ${volume.name} created: ${size}`));
    } else events.push(...changedVolume(old, volume));
  }
  return events;
}

function changedVolume(old: VolumeRecord, volume: VolumeRecord): EventDraft[] {
  const { name } = volume;
  const events: EventDraft[] = [];
  if (old.sizeBytes !== volume.sizeBytes) {
    const text = `volume ${name} resized from ${sizeText(old.sizeBytes)} to ${sizeText(volume.sizeBytes)}`;
    events.push(onVolume(volume, "volume_resized", text));
  }
  if (old.status === "ready" && volume.status === "deleting") {
    events.push(onVolume(volume, "volume_deleted", `volume ${name} deleted`));
  }
  if ((old.open ?? false) !== (volume.open ?? false)) {
    const text = volume.open
      ? `volume ${name} is open to everyone, unproven`
      : `volume ${name} is open to everyone no more`;
    events.push(onVolume(volume, "access_changed", text));
  }
  if (old.access === volume.access) return events;
  for (const [initiator, { lun }] of Object.entries(volume.access ?? {})) {
    const was = old.access?.[initiator];
    if (was !== undefined && was.lun === lun) continue;
    const as = lun === null ? "" : ` as LUN ${lun}`;
    const text = `volume ${name} allowed to ${initiator}${as}`;
    events.push(onVolume(volume, "access_changed", text));
  }
  for (const initiator of Object.keys(old.access ?? {})) {
    if (volume.access?.[initiator] !== undefined) continue;
    const text = `volume ${name} denied to ${initiator}`;
    events.push(onVolume(volume, "access_changed", text));
  }
  return events;
}

function attachmentEvents(before: ClusterState, after: ClusterState): EventDraft[] {
  if (before.attachments === after.attachments) return [];
  const events: EventDraft[] = [];
  for (const volume of Object.values(after.volumes)) {
    const old = before.attachments[volume.uuid];
    const now = after.attachments[volume.uuid];
    if (old === now) continue;
    const { name } = volume;
    if (now === undefined) {
      const text = `volume ${name} is served by no brick now; brick ${old!.brick} gave it up`;
      events.push(onVolume(volume, "volume_detached", text));
    } else if (old === undefined) {
      const text = `volume ${name} is served by brick ${now.brick} now`;
      events.push(onVolume(volume, "volume_attached", text));
    } else if (old.brick !== now.brick) {
      const text = `volume ${name} is served by brick ${now.brick} now, by brick ${old.brick} before`;
      events.push(onVolume(volume, "volume_moved", text));
    }
  }
  return events;
}

function accessEvents(before: ClusterState, after: ClusterState, command: Command): EventDraft[] {
  switch (command.type) {
    case "setInitiator": {
      if (before.initiators === after.initiators) return [];
      const { name, chap } = command;
      const done = before.initiators?.[name] === undefined ? "added" : "replaced";
      const how = chap === null ? "known by its name alone" : "which proves itself by CHAP";
      return [onInitiator(name, `initiator ${name} ${done}, ${how}`)];
    }
    case "removeInitiator":
      return [onInitiator(command.name, `initiator ${command.name} removed`)];
    case "setDiscoveryChap": {
      const done = command.chap === null ? "no" : "new";
      const text = `discovery has ${done} credentials of its own`;
      return [{ severity: "info", kind: "access_changed", subject: "discovery", text }];
    }
    default:
      return [];
  }
}

function unitEvents(before: ClusterState, after: ClusterState, command: Command): EventDraft[] {
  if (command.type !== "changeUnit") return [];
  const old = before.units?.[command.uuid];
  const now = after.units?.[command.uuid];
  const volume = Object.values(after.volumes).find(({ uuid }) => uuid === command.uuid);
  if (volume === undefined || now === undefined || old === now) return [];
  const said = unitChangeText(command, volume.name);
  const events = said === null ? [] : [onVolume(volume, said.kind, said.text)];
  const was = old?.sanitize?.state;
  const is = now.sanitize?.state;
  if (was === is) return events;
  const kind = is === "running" ? "sanitize_begun" : "sanitize_ended";
  if (is === "running") {
    events.push(onVolume(volume, kind, `volume ${volume.name} is being sanitized`, "warning"));
  } else if (is === "failed") {
    events.push(onVolume(volume, kind, `sanitizing volume ${volume.name} failed`, "critical"));
  } else if (was === "running") {
    events.push(onVolume(volume, kind, `volume ${volume.name} is sanitized`));
  }
  return events;
}

/** A cryptographic erase: the old key is given up, and then nobody has it any more. */
function eraseEvents(before: ClusterState, after: ClusterState, command: Command): EventDraft[] {
  if (command.type !== "rekeyVolume" && command.type !== "changeUnit") return [];
  const { uuid } = command;
  const volume = Object.values(after.volumes).find((one) => one.uuid === uuid);
  if (volume === undefined) return [];
  const { name } = volume;
  const was = before.units?.[uuid]?.sanitize ?? null;
  const is = after.units?.[uuid]?.sanitize ?? null;
  if (was?.retiredKey === undefined && is?.retiredKey !== undefined) {
    const text = `volume ${name} has a new key: its old one is destroyed, and what was written with it is lost for good`;
    return [onVolume(volume, "key_retired", text, "warning")];
  }
  if (was?.retiredKey === undefined || is !== null) return [];
  const text = `no brick of the cluster has the old key of volume ${name} any more`;
  return [onVolume(volume, "key_destroyed", text)];
}

function unitChangeText(
  { change }: CommandOf<"changeUnit">,
  volume: string,
): { kind: string; text: string } | null {
  switch (change.type) {
    case "reset":
      return { kind: "unit_reset", text: `volume ${volume} reset by ${hostOf(change.nexus)}` };
    case "clearTaskSet": {
      const text = `all commands of volume ${volume} ended by ${hostOf(change.nexus)}`;
      return { kind: "tasks_cleared", text };
    }
    case "reserveOut": {
      const { action } = change;
      if (action !== "preempt" && action !== "preemptAndAbort" && action !== "clear") return null;
      const done = action === "clear" ? "cleared" : "preempted";
      const text = `reservations of volume ${volume} ${done} by ${hostOf(change.nexus)}`;
      return { kind: "reservations_preempted", text };
    }
    default:
      return null;
  }
}

/** The initiator's name, without its session. */
function hostOf({ initiatorPort }: { readonly initiatorPort: string }): string {
  return initiatorPort.replace(/,i,0x[0-9a-f]+$/i, "");
}

function onVolume(
  { name }: VolumeRecord,
  kind: string,
  text: string,
  severity: Severity = "info",
): EventDraft {
  return { severity, kind, subject: `volume ${name}`, text };
}

function onInitiator(name: string, text: string): EventDraft {
  return { severity: "info", kind: "access_changed", subject: `initiator ${name}`, text };
}
