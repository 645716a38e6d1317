import type { ClusterState } from "../brick/cluster-state.ts";
import type { UnitOutcome } from "../brick/unit/unit-changes.ts";

/** Why a command was refused. Nothing has changed; the message names the value and what is right. */
export interface CommandFault {
  readonly code: /** The cluster has no state yet, or has one already. */
    | "not_initialised"
    | "already_initialised"
    /** What the command names is not there. */
    | "unknown"
    /** A name, uuid or token that must be new is taken. */
    | "taken"
    | "token_refused"
    /** The compare-and-set failed: look again and decide anew. */
    | "stale"
    /** An older store, a stale boot, or a second start of a copy of the store. */
    | "store_refused"
    /** The brick was given up; it must drop its replicas of the map before it returns. */
    | "given_up"
    /** The present state does not allow it. */
    | "not_now"
    /** It changes nothing. */
    | "no_change"
    | "bad_value"
    | "limit"
    /** The submission is older than what the cluster remembers. */
    | "expired"
    /** Only the Raft leader itself may do this. */
    | "leader_only"
    /** No leader answered in time: the command may or may not be applied. */
    | "unavailable";
  readonly message: string;
}

/**
 * `value`: the brick's number (initCluster, joinBrick), the attachment's epoch (attach), the branch
 * (createVolume), the key domain (reserveKeyDomain), the new view (changeView), the version of the unit's record (changeUnit), else 0. `outcome`: what the device server answers to a
 * changeUnit, which may be that it changed nothing.
 */
export type CommandResult =
  | { readonly ok: true; readonly value: number; readonly outcome?: UnitOutcome }
  | { readonly ok: false; readonly fault: CommandFault };

export interface Applied {
  readonly state: ClusterState;
  readonly result: CommandResult;
}

export function done(state: ClusterState, value = 0): Applied {
  return { state, result: { ok: true, value } };
}

export function answer(state: ClusterState, outcome: UnitOutcome, version: number): Applied {
  return { state, result: { ok: true, value: version, outcome } };
}

export function refuse(state: ClusterState, code: CommandFault["code"], message: string): Applied {
  return { state, result: { ok: false, fault: { code, message } } };
}
