import { assert } from "../assert.ts";
import { isHolder, typeRules } from "./conflicts.ts";
import type { NewNotice } from "./notices.ts";
import {
  isRegistered,
  overlapping,
  registered,
  registrationOf,
  unregistered,
} from "./registrations.ts";
import type { ReserveOut, UnitOutcome } from "./unit-changes.ts";
import {
  type NexusId,
  type NexusSet,
  namesNexus,
  type Registration,
  type ReservationRecord,
  registrationsMax,
  sameNexus,
} from "./unit-record.ts";

/** Persistent reservations: PERSISTENT RESERVE OUT of SPC-4 §5.13 and §6.16. */
export interface Reserved {
  readonly outcome: UnitOutcome;
  readonly reservations: ReservationRecord;
  readonly notices: readonly NewNotice[];
}

const noKey = "0000000000000000";

type Decide = (
  before: ReservationRecord,
  out: ReserveOut,
  targetPorts: readonly number[],
) => Reserved;

const actions: { readonly [Action in ReserveOut["action"]]: Decide } = {
  register,
  registerAndIgnore: register,
  reserve,
  release,
  clear,
  preempt,
  preemptAndAbort: preempt,
  registerAndMove,
};

/** `targetPorts`: all that the unit has now. */
export function reserveOut(
  before: ReservationRecord,
  out: ReserveOut,
  targetPorts: readonly number[],
): Reserved {
  // SPC-2 §5.5.1: while RESERVE(6) holds the unit, every PERSISTENT RESERVE command conflicts.
  if (before.reserve6 !== null) return refused(before, "reservation_conflict");
  const mine = registrationOf(before.registrations, out.nexus);
  const registers = out.action === "register" || out.action === "registerAndIgnore";
  // SPC-4 §6.16.2: all but the registering actions need the key of the asking nexus.
  if (!registers && mine?.key !== out.key) return refused(before, "reservation_conflict");
  const after = actions[out.action](before, out, targetPorts);
  checkInvariants(after.reservations);
  return after;
}

/** SPC-4 §5.13.7, tables 69 (REGISTER) and 70 (REGISTER AND IGNORE EXISTING KEY). */
function register(
  before: ReservationRecord,
  out: ReserveOut,
  targetPorts: readonly number[],
): Reserved {
  const { nexus, allTargetPorts, actionKey, aptpl, initiatorPorts } = out;
  const targetPort = allTargetPorts ? 0 : nexus.targetPort;
  const who: NexusSet = { initiatorPort: nexus.initiatorPort, targetPort };
  const mine = registrationOf(before.registrations, nexus);
  if (out.action === "register") {
    // ALL_TG_PT: what one of the target ports would refuse, all refuse.
    const keys = overlapping(before.registrations, who).map((one) => one.key);
    if (mine === undefined) keys.push(noKey);
    if (keys.some((key) => key !== out.key)) return refused(before, "reservation_conflict");
  }
  // SPEC_I_PT is for a first REGISTER alone.
  if (initiatorPorts.length > 0) {
    const first = out.action === "register" && mine === undefined && actionKey !== noKey;
    if (!first) return refused(before, "invalid_field");
  }
  if (actionKey === noKey) {
    // Nothing to take back: GOOD, and nothing happens.
    if (overlapping(before.registrations, who).length === 0) return unchanged(before);
    const registrations = unregistered(before.registrations, who, targetPorts);
    return unregister({ ...before, aptpl }, { who, cause: nexus, registrations });
  }
  let registrations = registered(before.registrations, who, actionKey, targetPorts);
  for (const initiatorPort of initiatorPorts) {
    const other = { initiatorPort, targetPort };
    // Those that are registered already stay as they are.
    if (overlapping(registrations, other).length > 0) continue;
    registrations = registered(registrations, other, actionKey, targetPorts);
  }
  if (registrations.length > registrationsMax) {
    return refused(before, "insufficient_registration_resources");
  }
  return done({ ...before, aptpl, registrations, generation: nextGeneration(before) });
}

interface Unregistration {
  readonly who: NexusSet;
  readonly cause: NexusId;
  /** What is left. */
  readonly registrations: readonly Registration[];
}

/** SPC-4 §5.13.11.3: the reservation of one who unregisters ends, and registrants learn of it. */
function unregister(
  before: ReservationRecord,
  { who, cause, registrations }: Unregistration,
): Reserved {
  const generation = nextGeneration(before);
  const { held } = before;
  if (held === null) return done({ ...before, registrations, generation });
  const rules = typeRules[held.type];
  const ends = rules.allRegistrants ? registrations.length === 0 : namesNexus(who, held.holder);
  if (!ends) return done({ ...before, registrations, generation });
  const after = { ...before, registrations, generation, held: null };
  return done(after, rules.inside === "registered" ? releasedNotice(registrations, cause) : []);
}

/** SPC-4 §5.13.9. */
function reserve(before: ReservationRecord, { nexus, reservation }: ReserveOut): Reserved {
  assert(reservation !== null, "reserving needs a type");
  const { held } = before;
  if (held === null) return done({ ...before, held: { type: reservation, holder: nexus } });
  const same = isHolder(before, nexus) && held.type === reservation;
  return same ? unchanged(before) : refused(before, "reservation_conflict");
}

/** SPC-4 §5.13.11.2. */
function release(before: ReservationRecord, { nexus, reservation }: ReserveOut): Reserved {
  const { held } = before;
  // Nothing is held, or by others: GOOD, and nothing happens.
  if (held === null || !isHolder(before, nexus)) return unchanged(before);
  if (held.type !== reservation) return refused(before, "invalid_release");
  const told = typeRules[held.type].inside === "registered";
  return done({ ...before, held: null }, told ? releasedNotice(before.registrations, nexus) : []);
}

/** SPC-4 §5.13.11.6. */
function clear(before: ReservationRecord, { nexus }: ReserveOut): Reserved {
  const generation = nextGeneration(before);
  const notices = noticeTo(before.registrations, "reservationsPreempted", nexus, false);
  return done({ ...before, generation, registrations: [], held: null }, notices);
}

/** SPC-4 §5.13.11.4 and, with the commands of the preempted nexuses ended, §5.13.11.5. */
function preempt(before: ReservationRecord, out: ReserveOut): Reserved {
  const { nexus, actionKey, reservation } = out;
  assert(reservation !== null, "preempting needs a type");
  const { held, registrations } = before;
  const all = held !== null && typeRules[held.type].allRegistrants;
  if (actionKey === noKey && !all) return refused(before, "invalid_parameter");
  const named = (one: Registration) => actionKey === noKey || one.key === actionKey;
  const victims = registrations.filter(named);
  if (victims.length === 0) return refused(before, "reservation_conflict");
  const endsTasks = out.action === "preemptAndAbort";
  const generation = nextGeneration(before);
  const kept = registrations.filter((one) => !named(one));
  const told = noticeTo(victims, "registrationsPreempted", nexus, endsTasks);
  const holderKey = held === null ? null : registrationOf(registrations, held.holder)?.key;
  const takesOver = held !== null && (all ? actionKey === noKey : holderKey === actionKey);
  if (!takesOver) {
    // Removing registrations only (§5.13.11.4.4), the asking nexus' own too.
    const ends = all && kept.length === 0;
    return done({ ...before, generation, registrations: kept, held: ends ? null : held }, told);
  }
  // §5.13.11.4.3: the asking nexus keeps its registration, even under the preempted key.
  const mine = registrationOf(registrations, nexus)!;
  const remaining = named(mine)
    ? registrations.flatMap((one) =>
        one === mine ? [{ ...mine, nexus }] : named(one) ? [] : [one],
      )
    : kept;
  const after = {
    ...before,
    generation,
    registrations: remaining,
    held: { type: reservation, holder: nexus },
  };
  const changed = held.type === reservation ? [] : releasedNotice(kept, nexus);
  return done(after, [...told, ...changed]);
}

/** SPC-4 §5.13.8. */
function registerAndMove(
  before: ReservationRecord,
  out: ReserveOut,
  targetPorts: readonly number[],
): Reserved {
  const { nexus, actionKey, aptpl, move } = out;
  assert(move !== null, "moving needs a nexus to move to");
  const { held } = before;
  if (held === null) return refused(before, "invalid_field");
  if (typeRules[held.type].allRegistrants || !isHolder(before, nexus)) {
    return refused(before, "reservation_conflict");
  }
  // A TransportID of the asking initiator port is none to move to, whichever the target port.
  const ownPort = move.to.initiatorPort === nexus.initiatorPort;
  if (actionKey === noKey || ownPort) return refused(before, "invalid_parameter");
  let registrations = registered(before.registrations, move.to, actionKey, targetPorts);
  if (move.unregister) registrations = unregistered(registrations, nexus, targetPorts);
  if (registrations.length > registrationsMax) {
    return refused(before, "insufficient_registration_resources");
  }
  const generation = nextGeneration(before);
  return done({ ...before, aptpl, generation, registrations, held: { ...held, holder: move.to } });
}

/** SPC-4 §6.15.2: PRGENERATION counts what may have changed the registrations. */
function nextGeneration({ generation }: ReservationRecord): number {
  return (generation + 1) % 2 ** 32;
}

function releasedNotice(to: readonly Registration[], cause: NexusId): NewNotice[] {
  return noticeTo(to, "reservationsReleased", cause, false);
}

/** To the nexuses of these registrations but the one that caused it; none when nobody is left. */
function noticeTo(
  registrations: readonly Registration[],
  condition: NewNotice["condition"],
  cause: NexusId,
  endsTasks: boolean,
): NewNotice[] {
  const nexuses = registrations.map((one) => one.nexus).filter((one) => !sameNexus(one, cause));
  return nexuses.length === 0 ? [] : [{ condition, nexuses, except: cause, endsTasks }];
}

function done(reservations: ReservationRecord, notices: readonly NewNotice[] = []): Reserved {
  return { outcome: "done", reservations, notices };
}

function unchanged(reservations: ReservationRecord): Reserved {
  return { outcome: "done", reservations, notices: [] };
}

function refused(reservations: ReservationRecord, outcome: UnitOutcome): Reserved {
  return { outcome, reservations, notices: [] };
}

function checkInvariants({ registrations, held }: ReservationRecord): void {
  assert(registrations.length <= registrationsMax, "registrations are bounded");
  if (held === null) return;
  const holds = typeRules[held.type].allRegistrants
    ? registrations.length > 0
    : isRegistered(registrations, held.holder);
  assert(holds, "a persistent reservation has a holder, which is registered");
}
