import {
  type NexusId,
  type NexusSet,
  namesNexus,
  type Registration,
  sameNexus,
} from "./unit-record.ts";

/**
 * Registrations as sets of nexuses. One that was made with ALL_TG_PT stands for a registration on
 * each target port, also of bricks that join later; what is then done through a single port takes
 * that port out of it (SPC-4 §6.16.3: as if each port had received the request by itself).
 */
type Registrations = readonly Registration[];

export function registrationOf(all: Registrations, nexus: NexusId): Registration | undefined {
  return all.find((one) => namesNexus(one.nexus, nexus));
}

export function isRegistered(all: Registrations, nexus: NexusId): boolean {
  return registrationOf(all, nexus) !== undefined;
}

/** Registrations that share a nexus with `who`. */
export function overlapping(all: Registrations, who: NexusSet): Registration[] {
  return all.filter((one) =>
    who.targetPort === 0
      ? one.nexus.initiatorPort === who.initiatorPort
      : namesNexus(one.nexus, who),
  );
}

/** Registers `who` under `key`, whatever it was registered under before. */
export function registered(
  all: Registrations,
  who: NexusSet,
  key: string,
  targetPorts: readonly number[],
): Registrations {
  const at = all.findIndex((one) => sameNexus(one.nexus, who));
  const registration = { nexus: who, key };
  if (at < 0) return [...unregistered(all, who, targetPorts), registration];
  // In its place: READ KEYS shows them in order of registration.
  const others = unregistered([...all.slice(0, at), ...all.slice(at + 1)], who, targetPorts);
  return [...others.slice(0, at), registration, ...others.slice(at)];
}

/** `targetPorts`: all there are now. What is left on none of them is gone. */
export function unregistered(
  all: Registrations,
  who: NexusSet,
  targetPorts: readonly number[],
): Registrations {
  const overlap = new Set(overlapping(all, who));
  return all.flatMap((one) => {
    if (!overlap.has(one)) return [one];
    if (one.nexus.targetPort !== 0 || who.targetPort === 0) return [];
    const exceptPorts = [...(one.nexus.exceptPorts ?? []), who.targetPort];
    if (targetPorts.every((port) => exceptPorts.includes(port))) return [];
    return [{ ...one, nexus: { ...one.nexus, exceptPorts } }];
  });
}
