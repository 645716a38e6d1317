import type { BrickNumber } from "../units.ts";
import { sameOperation } from "./entry.ts";
import {
  commitTo,
  isComplete,
  journalEntry,
  journalFacts,
  mergeOverlay,
  type Replica,
  send,
  truncate,
} from "./replica.ts";
import { decodeOverlay, decodePrepare, decodeStart, encodeJson } from "./replica-messages.ts";
import { emptyFacts, type ReplicaFacts, type ViewStart } from "./replica-state.ts";
import { type Taking, takeRecords } from "./transfer.ts";
import { windowsFrom } from "./windows.ts";

/** A gap is asked for again after this. */
const needAfterMs = 20;

/** A member or candidate that does not lead.
 *
 *     waiting ──start──▶ greeted ──holds all that the view began with──▶ accepting ──logged──▶ acks
 *                          └──overlay (it lacks committed entries)──┘
 */
export interface Backup {
  readonly is: "backup";
  greeted: boolean;
  /** What was accepted before this view, for the hello. */
  acceptedBefore: number;
  /** The same as the primary's up to here, in this view. */
  validatedOp: number;
  durableOp: number;
  /** The primary's lastOp when the view began. */
  startLastOp: number;
  starts: ViewStart[];
  accepting: boolean;
  startDurable: boolean;
  /** Complete, and that is on the medium. */
  completeDurable: boolean;
  ackDue: boolean;
  lastNeedMs: number;
  readonly taking: Taking;
}

export function becomeBackup(replica: Replica): void {
  replica.role = {
    is: "backup",
    greeted: false,
    acceptedBefore: replica.facts.accepted,
    validatedOp: 0,
    durableOp: 0,
    startLastOp: 0,
    starts: [],
    accepting: false,
    startDurable: false,
    completeDurable: false,
    ackDue: false,
    lastNeedMs: Number.NEGATIVE_INFINITY,
    taking: { transfer: 0, partNext: 1, end: false },
  };
}

/**
 * Entries up to here are those of the newer views too: each view that began since kept what its
 * primary held at its start. Below the commit point nothing is in doubt.
 */
export function validTo(facts: ReplicaFacts, starts: readonly ViewStart[]): number {
  const known = starts[0] !== undefined && starts[0].view <= facts.accepted;
  if (facts.accepted === 0 || !known) return facts.commitOp;
  let op = facts.lastOp;
  for (const start of starts) if (start.view > facts.accepted) op = Math.min(op, start.lastOp);
  return Math.max(op, facts.commitOp);
}

export function onStart(replica: Replica, role: Backup, from: BrickNumber, body: Buffer): void {
  const payload = decodeStart(body);
  const { facts } = replica;
  const { view } = replica.view!;
  if (payload === null || facts.promised > view) return;
  if (!role.greeted) {
    role.greeted = true;
    role.startLastOp = payload.lastOp;
    role.starts = payload.starts;
    truncate(replica, validTo(facts, payload.starts));
    facts.promised = view;
    role.validatedOp = facts.lastOp;
    journalFacts(replica, 0, () => {});
  }
  const { accepted: _, ...rest } = facts;
  const hello = {
    boot: replica.effects.boot(),
    accepted: role.acceptedBefore,
    commitOp: rest.commitOp,
    baseOp: rest.baseOp,
  };
  send(replica, from, "hello", role.validatedOp, [encodeJson(hello)]);
  acceptWhenReady(replica, role);
  if (role.startDurable) acknowledge(replica, role);
}

/** The primary has committed entries that we lack: new ones go into an overlay from here on. */
export function onOverlay(replica: Replica, role: Backup, commitOp: number, body: Buffer): void {
  const payload = decodeOverlay(body);
  if (payload === null || !role.greeted || role.accepting || role.validatedOp >= commitOp) return;
  if (payload.fresh) startAfresh(replica);
  else commitTo(replica, role.validatedOp);
  const { facts } = replica;
  replica.pending.clear();
  facts.promised = replica.view!.view;
  facts.commitOp = commitOp;
  facts.lastOp = commitOp;
  facts.overlayFrom = commitOp + 1;
  facts.windows = windowsFrom(payload.windows);
  role.validatedOp = commitOp;
  role.starts = payload.starts;
  journalFacts(replica, 0, () => {});
  acceptWhenReady(replica, role);
}

/** Leaves the tables to the sweep and begins with empty ones. */
export function startAfresh(replica: Replica): void {
  const { promised, incarnation } = replica.facts;
  replica.facts = { ...emptyFacts(incarnation + 1), promised };
  replica.pending.clear();
  replica.mapped.clear();
}

/** Once everything the view began with is here, the log says so, and acknowledging may begin. */
function acceptWhenReady(replica: Replica, role: Backup): void {
  const { facts } = replica;
  const lacking = role.validatedOp < role.startLastOp || role.validatedOp < facts.commitOp;
  if (role.accepting || lacking) return;
  role.accepting = true;
  const { view } = replica.view!;
  facts.accepted = view;
  facts.promised = view;
  facts.starts = role.starts;
  for (const entry of replica.pending.values()) entry.view = view;
  const acceptedTo = role.validatedOp;
  journalFacts(replica, acceptedTo, () => {
    if (replica.role !== role) return;
    role.startDurable = true;
    role.durableOp = Math.max(role.durableOp, acceptedTo);
    if (isComplete(replica)) role.completeDurable = true;
    acknowledge(replica, role);
  });
}

export function onPrepare(replica: Replica, role: Backup, commitOp: number, body: Buffer): void {
  const decoded = decodePrepare(body);
  const view = replica.view!;
  if (decoded === null) return;
  const { entry } = decoded;
  if (!role.greeted) {
    need(replica, role, 0);
    return;
  }
  if (entry.op > role.validatedOp + 1) {
    need(replica, role, role.validatedOp + 1);
    return;
  }
  if (entry.op <= role.validatedOp) {
    if (role.startDurable) acknowledge(replica, role);
    return;
  }
  const held = replica.pending.get(entry.op);
  // What follows a replaced entry belonged to a history that did not happen.
  const same = held !== undefined && sameOperation(held, entry);
  if (held !== undefined && !same) truncate(replica, entry.op - 1);
  const heldDurable = same && !replica.undurable.has(entry.op);
  entry.view = view.view;
  replica.pending.set(entry.op, entry);
  replica.facts.lastOp = Math.max(replica.facts.lastOp, entry.op);
  role.validatedOp = entry.op;
  journalEntry(replica, entry, commitOp, heldDurable, () => {
    if (replica.role !== role) return;
    role.durableOp = Math.max(role.durableOp, entry.op);
    acknowledge(replica, role);
  });
  acceptWhenReady(replica, role);
  learnCommit(replica, role, commitOp);
}

export function learnCommit(replica: Replica, role: Backup, commitOp: number): void {
  if (!role.greeted) {
    need(replica, role, 0);
    return;
  }
  if (commitOp > role.validatedOp) need(replica, role, role.validatedOp + 1);
  // Before the view's start is accepted, what is pending here may still be replaced.
  if (role.accepting) commitTo(replica, Math.min(commitOp, role.validatedOp));
}

function need(replica: Replica, role: Backup, op: number): void {
  const nowMs = replica.effects.nowMs();
  if (nowMs - role.lastNeedMs < needAfterMs) return;
  role.lastNeedMs = nowMs;
  send(replica, replica.view!.primary, "need", op);
}

/** One acknowledgement for all that one flush made durable. */
function acknowledge(replica: Replica, role: Backup): void {
  if (role.ackDue || !role.startDurable) return;
  role.ackDue = true;
  replica.effects.soon(() => {
    role.ackDue = false;
    if (replica.role === role) send(replica, replica.view!.primary, "ack", role.durableOp);
  });
}

export function onRecords(replica: Replica, role: Backup, part: number, body: Buffer): void {
  if (!role.greeted) return;
  takeRecords(replica, role.taking, part, body);
  wakeBackup(replica, role);
}

/** The base is whole: merge the overlay over it, step by step, and make that durable. */
export function wakeBackup(replica: Replica, role: Backup): void {
  const { facts, effects, shard } = replica;
  if (!role.taking.end || facts.overlayFrom === 0 || !role.startDurable) {
    if (role.taking.end && facts.overlayFrom !== 0) effects.wakeAfter(shard, 10);
    return;
  }
  if (!mergeOverlay(replica)) {
    effects.wakeAfter(shard, 0);
    return;
  }
  facts.overlayFrom = 0;
  facts.baseOp = facts.commitOp;
  effects.checkpoint(() => {
    if (replica.role === role) role.completeDurable = true;
  });
}
