import type {
  ChapRecord,
  ClusterState,
  InitiatorRecord,
  VolumeRecord,
} from "../brick/cluster-state.ts";
import { type Applied, done, refuse } from "./command-result.ts";
import type { CommandOf } from "./commands.ts";
import { readyVolume, unknownVolume, withVolume } from "./volume-commands.ts";

/** Who may use which volume, and by which proof. */

export const initiatorsMax = 1024;
/** Initiators named for one volume. */
export const accessMax = 256;

export function setInitiator(state: ClusterState, command: CommandOf<"setInitiator">): Applied {
  const { name, chap } = command;
  const initiators = state.initiators ?? {};
  if (initiators[name] === undefined && Object.keys(initiators).length >= initiatorsMax) {
    const message = `cannot add initiator ${name}: there are ${initiatorsMax}, which is the most; remove one`;
    return refuse(state, "limit", message);
  }
  const twice = chap === null ? null : secretTwice(state, name, chap);
  if (twice !== null) return refuse(state, "bad_value", `cannot add initiator ${name}: ${twice}`);
  const record: InitiatorRecord = { name, chap };
  return done({ ...state, initiators: { ...initiators, [name]: record } });
}

/** A volume of which the last initiator went would be open to all again: they are denied first. */
export function removeInitiator(
  state: ClusterState,
  { name }: CommandOf<"removeInitiator">,
): Applied {
  if (state.initiators?.[name] === undefined) return unknownInitiator(state, "remove", name);
  const volumes = Object.values(state.volumes).filter((one) => one.access?.[name] !== undefined);
  if (volumes.length > 0) {
    const some = volumes.slice(0, 5).map((one) => one.name);
    const message = `cannot remove initiator ${name}: it is allowed ${volumes.length} volumes (${some.join(", ")}); deny it those first`;
    return refuse(state, "not_now", message);
  }
  const { [name]: _removed, ...initiators } = state.initiators;
  return done({ ...state, initiators });
}

export function allowVolume(state: ClusterState, command: CommandOf<"allowVolume">): Applied {
  const { name, initiator, lun } = command;
  const volume = readyVolume(state, name);
  if (volume === null) return unknownVolume(state, "allow", name);
  if (state.initiators?.[initiator] === undefined) {
    return unknownInitiator(state, `allow volume ${name} to`, initiator);
  }
  const access = volume.access ?? {};
  if (access[initiator] === undefined && Object.keys(access).length >= accessMax) {
    const message = `cannot allow volume ${name} to ${initiator}: it is allowed to ${accessMax}, which is the most`;
    return refuse(state, "limit", message);
  }
  const other = lun === null ? undefined : volumeAt(state, initiator, lun);
  if (other !== undefined && other.name !== name) {
    const message = `cannot allow volume ${name} to ${initiator} as LUN ${lun}: that is volume ${other.name}; choose another number`;
    return refuse(state, "taken", message);
  }
  if (access[initiator]?.lun === lun) {
    return refuse(state, "no_change", `volume ${name} is allowed to ${initiator} already`);
  }
  return done(withVolume(state, { ...volume, access: { ...access, [initiator]: { lun } } }));
}

export function denyVolume(state: ClusterState, command: CommandOf<"denyVolume">): Applied {
  const { name, initiator } = command;
  const volume = readyVolume(state, name);
  if (volume === null) return unknownVolume(state, "deny", name);
  if (volume.access?.[initiator] === undefined) {
    const message = `cannot deny volume ${name} to ${initiator}: it is not allowed to it`;
    return refuse(state, "unknown", message);
  }
  const { [initiator]: _denied, ...access } = volume.access;
  return done(withVolume(state, { ...volume, access }));
}

export function openVolume(state: ClusterState, command: CommandOf<"openVolume">): Applied {
  const { name, open } = command;
  const volume = readyVolume(state, name);
  if (volume === null) return unknownVolume(state, open ? "open" : "close", name);
  if ((volume.open ?? false) === open) {
    const message = `volume ${name} is ${open ? "" : "not "}open to everyone already`;
    return refuse(state, "no_change", message);
  }
  return done(withVolume(state, { ...volume, open }));
}

export function setDiscoveryChap(
  state: ClusterState,
  { chap }: CommandOf<"setDiscoveryChap">,
): Applied {
  if (chap === null) {
    if (state.discoveryChap === undefined) {
      return refuse(state, "no_change", "discovery has no credentials of its own already");
    }
    const { discoveryChap: _cleared, ...rest } = state;
    return done(rest);
  }
  const twice = secretTwice(state, null, chap);
  if (twice !== null) {
    return refuse(state, "bad_value", `cannot set the credentials of discovery: ${twice}`);
  }
  return done({ ...state, discoveryChap: chap });
}

function volumeAt(state: ClusterState, initiator: string, lun: number): VolumeRecord | undefined {
  return Object.values(state.volumes).find((one) => one.access?.[initiator]?.lun === lun);
}

/**
 * RFC 7143 §9.2.1: a secret proves one party to another, in one direction. Who proves by the same
 * secret as another could pass for it. Why the new one may not be; null when it may. `owner`: the
 * initiator that is replaced; null: discovery.
 */
function secretTwice(state: ClusterState, owner: string | null, chap: ChapRecord): string | null {
  const { secret, mutual } = chap;
  if (mutual !== null && mutual.secret.fingerprint === secret.fingerprint) {
    return "the target would prove itself by the initiator's own secret; give it another";
  }
  const given = fingerprintsOf(chap);
  const others: [string, ChapRecord | null | undefined][] = Object.values(state.initiators ?? {})
    .filter((one) => one.name !== owner)
    .map((one) => [`initiator ${one.name}`, one.chap]);
  if (owner !== null) others.push(["discovery", state.discoveryChap]);
  for (const [whose, other] of others) {
    if (other === null || other === undefined) continue;
    if (fingerprintsOf(other).some((one) => given.includes(one))) {
      return `${whose} has the same secret; each needs its own`;
    }
  }
  return null;
}

function fingerprintsOf({ secret, mutual }: ChapRecord): string[] {
  return [secret.fingerprint, ...(mutual === null ? [] : [mutual.secret.fingerprint])];
}

function unknownInitiator(state: ClusterState, action: string, name: string): Applied {
  const message = `cannot ${action} initiator ${name}: it is not known; add it with \`endisk initiator add\``;
  return refuse(state, "unknown", message);
}
