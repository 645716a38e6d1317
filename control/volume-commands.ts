import {
  type AttachmentRecord,
  brickOf,
  type ClusterState,
  isReachable,
  type VolumeRecord,
} from "../brick/cluster-state.ts";
import { volumeBytesMax, volumeBytesStep } from "../brick/units.ts";
import { commonName } from "./access.ts";
import { type Applied, done, refuse } from "./command-result.ts";
import { type CommandOf, copiesMax } from "./commands.ts";
import { pendingUnknown, takePending } from "./pending-keys.ts";

export const volumesMax = 16_384;

export function createVolume(state: ClusterState, command: CommandOf<"createVolume">): Applied {
  const { name, uuid, sizeBytes, copies } = command;
  if (state.volumes[name] !== undefined) {
    const { status } = state.volumes[name];
    const why = status === "deleting" ? "it is still being deleted" : "it exists";
    return refuse(state, "taken", `cannot create volume ${name}: ${why}; choose another name`);
  }
  if (name === commonName(state.clusterId)) {
    const message = `cannot create volume ${name}: the cluster's own target has that name; choose another`;
    return refuse(state, "taken", message);
  }
  if (volumeByUuid(state, uuid) !== undefined) {
    return refuse(state, "taken", `cannot create volume ${name}: uuid ${uuid} is another volume's`);
  }
  const wrong = wrongSize(sizeBytes);
  if (wrong !== null) return refuse(state, "bad_value", `cannot create volume ${name}: ${wrong}`);
  if (copies < 1 || copies > copiesMax) {
    const message = `cannot create volume ${name}: ${copies} copies; must be 1 to ${copiesMax}`;
    return refuse(state, "bad_value", message);
  }
  if (Object.keys(state.volumes).length >= volumesMax) {
    const message = `cannot create volume ${name}: there are ${volumesMax} volumes, which is the most`;
    return refuse(state, "limit", message);
  }
  const { keyDomain } = command;
  const taken = keyDomain === undefined ? null : takePending(state, uuid, keyDomain);
  if (keyDomain !== undefined && taken === null) return pendingUnknown(state, name, keyDomain);
  const encrypted = taken !== null && { keyDomain: keyDomain!, keyCheck: taken.pending.check };
  const branch = state.branchNext;
  const volume: VolumeRecord = {
    name,
    uuid,
    sizeBytes,
    copies,
    degradedWrites: command.degradedWrites,
    branch,
    family: branch,
    generation: 1,
    status: "ready",
    ...encrypted,
  };
  const made = withVolume(taken?.state ?? state, volume);
  return done({ ...made, branchNext: branch + 1 }, branch);
}

export function resizeVolume(state: ClusterState, command: CommandOf<"resizeVolume">): Applied {
  const { name, sizeBytes, shrink } = command;
  const volume = readyVolume(state, name);
  if (volume === null) return unknownVolume(state, "resize", name);
  const wrong = wrongSize(sizeBytes);
  if (wrong !== null) return refuse(state, "bad_value", `cannot resize volume ${name}: ${wrong}`);
  if (sizeBytes === volume.sizeBytes) {
    return refuse(state, "no_change", `volume ${name} has ${sizeBytes} bytes already`);
  }
  if (sizeBytes < volume.sizeBytes && !shrink) {
    const message = `cannot shrink volume ${name} from ${volume.sizeBytes} to ${sizeBytes} bytes: what lies beyond would be lost; say so explicitly, or give a larger size`;
    return refuse(state, "bad_value", message);
  }
  return done(withVolume(state, { ...volume, sizeBytes }));
}

export function deleteVolume(state: ClusterState, command: CommandOf<"deleteVolume">): Applied {
  const volume = readyVolume(state, command.name);
  if (volume === null) return unknownVolume(state, "delete", command.name);
  return done(withVolume(state, { ...volume, status: "deleting" }));
}

export function forgetVolume(state: ClusterState, command: CommandOf<"forgetVolume">): Applied {
  const { uuid } = command;
  const volume = volumeByUuid(state, uuid);
  if (volume === undefined) {
    return refuse(state, "unknown", `cannot forget volume ${uuid}: there is none`);
  }
  if (volume.status !== "deleting") {
    const message = `cannot forget volume ${volume.name}: it is ${volume.status}; delete it first`;
    return refuse(state, "not_now", message);
  }
  const { [volume.name]: _volume, ...volumes } = state.volumes;
  const { [uuid]: _attachment, ...attachments } = state.attachments;
  const after = { ...state, volumes, attachments };
  if (state.units?.[uuid] === undefined) return done(after);
  const { [uuid]: _unit, ...units } = state.units;
  return done({ ...after, units });
}

/** What the leader goes on with: whoever began a deletion may not live to see it through. */
export function begunDeletions(state: ClusterState): CommandOf<"forgetVolume">[] {
  return Object.values(state.volumes)
    .filter(({ status }) => status === "deleting")
    .map(({ uuid }) => ({ type: "forgetVolume", uuid }));
}

export function attach(state: ClusterState, command: CommandOf<"attach">): Applied {
  const { uuid, brick: number, boot, expectEpoch } = command;
  const volume = volumeByUuid(state, uuid);
  if (volume?.status !== "ready") {
    return refuse(
      state,
      "unknown",
      `cannot attach volume ${uuid}: ${volume?.status ?? "none such"}`,
    );
  }
  const brick = brickOf(state, number);
  if (!isReachable(brick) || brick!.boot !== boot) {
    const known = brick === undefined ? "unknown" : `${brick.status} at boot ${brick.boot}`;
    const message = `cannot attach volume ${volume.name} to brick ${number} boot ${boot}: it is ${known}`;
    return refuse(state, "not_now", message);
  }
  const held = state.attachments[uuid];
  const heldEpoch = held?.epoch ?? 0;
  if (heldEpoch !== expectEpoch) {
    const message = `volume ${volume.name} is attached under epoch ${heldEpoch}, not ${expectEpoch}; look again`;
    return refuse(state, "stale", message);
  }
  if (held !== undefined && mayServe(state, held) && !isAskedByHolder(held, command)) {
    const message = `volume ${volume.name} is attached to brick ${held.brick}, which answers; ask it to give way`;
    return refuse(state, "not_now", message);
  }
  const epoch = state.attachmentEpochNext;
  const attachments = { ...state.attachments, [uuid]: { brick: number, boot, epoch } };
  return done({ ...state, attachments, attachmentEpochNext: epoch + 1 }, epoch);
}

export function detach(state: ClusterState, command: CommandOf<"detach">): Applied {
  const { uuid, epoch } = command;
  const held = state.attachments[uuid];
  if (held?.epoch !== epoch) {
    const message = `volume ${uuid} is attached under epoch ${held?.epoch ?? 0}, not ${epoch}; look again`;
    return refuse(state, "stale", message);
  }
  const { [uuid]: _detached, ...attachments } = state.attachments;
  return done({ ...state, attachments });
}

/** Whether the holder may still serve under its lease. */
function mayServe(state: ClusterState, held: AttachmentRecord): boolean {
  const brick = brickOf(state, held.brick);
  return isReachable(brick) && brick!.boot === held.boot;
}

function isAskedByHolder(held: AttachmentRecord, { by }: CommandOf<"attach">): boolean {
  return by.brick === held.brick && by.boot === held.boot;
}

function wrongSize(sizeBytes: number): string | null {
  if (sizeBytes >= volumeBytesStep && sizeBytes <= volumeBytesMax) {
    if (sizeBytes % volumeBytesStep === 0) return null;
  }
  return `${sizeBytes} bytes; must be a multiple of ${volumeBytesStep}, from ${volumeBytesStep} to ${volumeBytesMax}`;
}

export function readyVolume(state: ClusterState, name: string): VolumeRecord | null {
  const volume = state.volumes[name];
  return volume?.status === "ready" ? volume : null;
}

export function volumeByUuid(state: ClusterState, uuid: string): VolumeRecord | undefined {
  return Object.values(state.volumes).find((volume) => volume.uuid === uuid);
}

export function withVolume(state: ClusterState, volume: VolumeRecord): ClusterState {
  return { ...state, volumes: { ...state.volumes, [volume.name]: volume } };
}

export function unknownVolume(state: ClusterState, action: string, name: string): Applied {
  const message = `cannot ${action} volume ${name}: there is none of that name, or it is being deleted`;
  return refuse(state, "unknown", message);
}
