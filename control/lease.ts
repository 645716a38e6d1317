/**
 * A brick's own lease: its right to answer as primary or gateway. It is counted from the moment the
 * keepalive was sent, so that it never outlives what the leader reckons with. A grant begins to
 * count only when the brick's own cluster state is as new as the leader's was: a brick that comes
 * back must not act on views that were changed while it was away.
 */
export interface Lease {
  untilMs: number;
  /** The newest grant for which the brick's state is too old yet. */
  waiting: { untilMs: number; stateVersion: number } | null;
}

export function noLease(): Lease {
  return { untilMs: Number.NEGATIVE_INFINITY, waiting: null };
}

export interface LeaseGrant {
  readonly sentMs: number;
  readonly leaseMs: number;
  readonly stateVersion: number;
}

/** Whether the lease became longer. */
export function takeGrant(lease: Lease, grant: LeaseGrant, ownVersion: number): boolean {
  const untilMs = grant.sentMs + grant.leaseMs;
  if (untilMs <= lease.untilMs) return false;
  if (ownVersion >= grant.stateVersion) {
    lease.untilMs = untilMs;
    return true;
  }
  // Answers may pass each other; an older one that waits for less is not worth keeping.
  if (lease.waiting === null || lease.waiting.untilMs < untilMs) {
    lease.waiting = { untilMs, stateVersion: grant.stateVersion };
  }
  return false;
}

/** The brick's state has reached a version; whether the lease became longer by it. */
export function reachVersion(lease: Lease, ownVersion: number): boolean {
  const { waiting } = lease;
  if (waiting === null || ownVersion < waiting.stateVersion) return false;
  lease.waiting = null;
  if (waiting.untilMs <= lease.untilMs) return false;
  lease.untilMs = waiting.untilMs;
  return true;
}

export function isLeaseValid(lease: Lease, nowMs: number): boolean {
  return nowMs < lease.untilMs;
}
