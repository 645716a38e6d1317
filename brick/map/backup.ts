import { assert } from "../assert.ts";
import type { BrickNumber } from "../units.ts";
import {
  commitTo,
  completeAt,
  cutLog,
  isComplete,
  journalEntry,
  journalFacts,
  mergeOverlay,
  overlaysOf,
  type Replica,
  send,
  truncate,
} from "./replica.ts";
import { decodeOverlay, decodePrepare, decodeStart, encodeJson } from "./replica-messages.ts";
import { emptyFacts, overlaysMax, sharedTo } from "./replica-state.ts";
import { type Taking, takeRecords } from "./transfer.ts";
import { windowsFrom } from "./windows.ts";

/** A gap is asked for again after this. */
const needAfterMs = 20;
/** Who has heard nothing of its view asks: its primary may take it for the boot before this one. */
const askAfterMs = 500;

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
  /** The primary's lastOp when the view began, or its commit point when it greeted us anew. */
  startLastOp: number;
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
    accepting: false,
    startDurable: false,
    completeDurable: false,
    ackDue: false,
    lastNeedMs: Number.NEGATIVE_INFINITY,
    taking: { transfer: 0, partNext: 1, end: false },
  };
  replica.effects.wakeAfter(replica.shard, askAfterMs);
}

export function onStart(
  replica: Replica,
  role: Backup,
  from: BrickNumber,
  commitOp: number,
  body: Buffer,
): void {
  const payload = decodeStart(body);
  const { facts } = replica;
  const { view } = replica.view!;
  if (payload === null || facts.promised > view) return;
  role.startLastOp = Math.max(payload.lastOp, commitOp);
  if (!role.greeted) {
    role.greeted = true;
    // What is not in the primary's log never committed. From here on this log is a part of that
    // one, even before the view is accepted.
    truncate(replica, sharedTo(facts, payload.starts));
    cutLog(replica, facts.lastOp);
    facts.starts = payload.starts;
    facts.promised = view;
    role.validatedOp = facts.lastOp;
    journalFacts(replica, 0, () => {});
  }
  const hello = {
    boot: replica.effects.boot(),
    // What its damaged log lacks it had acknowledged: removals among it may be forgotten elsewhere.
    // So it begins with an empty table, as who was away for longer than they are kept.
    accepted: facts.lossy ? 0 : role.acceptedBefore,
    commitOp: facts.commitOp,
    baseOp: facts.baseOp,
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
  else {
    commitTo(replica, role.validatedOp);
    cutLog(replica, role.validatedOp);
    setOverlayAside(replica);
  }
  const { facts } = replica;
  replica.pending.clear();
  facts.promised = replica.view!.view;
  facts.commitOp = commitOp;
  facts.lastOp = commitOp;
  facts.overlayFrom = commitOp + 1;
  facts.windows = windowsFrom(payload.windows);
  facts.starts = payload.starts;
  // A member had acknowledged what it lacks, and counts as complete until the control plane knows.
  if (replica.view!.members.includes(replica.self)) facts.lossy = true;
  role.validatedOp = commitOp;
  journalFacts(replica, 0, () => {});
  acceptWhenReady(replica, role);
}

/** What an overlay holds may be what recovery lacks: a new one begins beside it. */
function setOverlayAside(replica: Replica): void {
  const { facts } = replica;
  const overlays = overlaysOf(facts);
  if (overlays.length === facts.overlays.length) return;
  if (overlays.length > overlaysMax) {
    overlays.shift();
    facts.lossy = true;
  }
  facts.overlays = overlays;
  facts.incarnationLast += 1;
  facts.overlayIncarnation = facts.incarnationLast;
}

/** Leaves the tables to the sweep and begins with empty ones. */
export function startAfresh(replica: Replica): void {
  const { promised, incarnationLast, number } = replica.facts;
  cutLog(replica, 0);
  replica.facts = { ...emptyFacts(incarnationLast + 1), promised, number };
  replica.acceptedDurable = 0;
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
  // As a member it would be taken for complete: the control plane must learn of the loss first.
  if (replica.view!.candidates.includes(replica.self)) facts.lossy = false;
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
  const bare = entry.inlineBytes > 0 && entry.inline === null;
  if (bare && !replica.effects.has(entry.key!)) return;
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
  assert(entry.op === replica.facts.lastOp + 1, "a log that its primary does not know");
  entry.view = view.view;
  replica.pending.set(entry.op, entry);
  replica.facts.lastOp = entry.op;
  role.validatedOp = entry.op;
  journalEntry(replica, entry, commitOp, () => {
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
  // Before it has accepted the view, an overlay may still be told to begin elsewhere.
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
  // Before that an overlay message may be under way that replaces the base: sent again later.
  if (!role.accepting) return;
  takeRecords(replica, role.taking, part, body);
  wakeBackup(replica, role);
}

/** Asks for the start of the view; or merges the overlay over a base that is whole, step by step. */
export function wakeBackup(replica: Replica, role: Backup): void {
  const { facts, effects, shard } = replica;
  if (!role.greeted) {
    need(replica, role, 0);
    effects.wakeAfter(shard, askAfterMs);
    return;
  }
  if (!role.taking.end || facts.overlayFrom === 0 || !role.startDurable) {
    if (role.taking.end && facts.overlayFrom !== 0) effects.wakeAfter(shard, 10);
    return;
  }
  if (!mergeOverlay(replica, facts.overlayIncarnation)) {
    effects.wakeAfter(shard, 0);
    return;
  }
  completeAt(facts, facts.commitOp);
  effects.checkpoint(() => {
    if (replica.role === role) role.completeDurable = true;
  });
}
