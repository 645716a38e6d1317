import { assert } from "../../brick/assert.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { raftLimits } from "./raft-limits.ts";
import type { Entry, HardState, RaftEffect, RaftMessage, Snapshot } from "./raft-types.ts";

/**
 * The one way out of a server, for messages and for work of the store alike. A message that
 * promises something is held here until what it promises survives a power cut: which promise a
 * message makes stands in one table, and no other code decides when a message leaves.
 */
export interface Outbox {
  /** Tickets are given to persist effects in order. */
  issuedTicket: number;
  durableTicket: number;
  /** The ticket of the latest change of term or vote. */
  hardStateTicket: number;
  /** The last entry of the log once each ticket is durable. */
  logTickets: { readonly ticket: number; lastIndex: number }[];
  /** The log is on the medium up to here. */
  durableIndex: number;
  held: { readonly ticket: number; readonly to: BrickNumber; readonly message: RaftMessage }[];
  /** Of the present step. */
  messages: { readonly to: BrickNumber; readonly message: RaftMessage }[];
  dirty: Dirty;
}

interface Dirty {
  hardState: boolean;
  snapshot: Snapshot | null;
  resetsLog: boolean;
  cutAfterIndex: number | null;
  repairs: Entry[];
  entries: Entry[];
}

/**
 * What must be durable before a message may leave (Raft figure 2: "updated on stable storage
 * before responding to RPCs").
 */
const promiseOf = {
  // A candidate votes for itself by asking.
  vote: "hardState",
  voteReply: "hardState",
  // "I have these entries": everything given to the store so far.
  appendReply: "everything",
  snapshotReply: "everything",
  heartbeatReply: "hardState",
  preVote: "nothing",
  preVoteReply: "nothing",
  // A leader's own copy counts only once durable (see commit.ts); sending overlaps the flush. Its
  // term is durable, or it would not have been elected.
  append: "nothing",
  heartbeat: "nothing",
  snapshotChunk: "nothing",
  timeoutNow: "nothing",
  repairRequest: "nothing",
  repairReply: "nothing",
} as const satisfies Record<RaftMessage["type"], "nothing" | "hardState" | "everything">;

export function openOutbox(durableIndex: number): Outbox {
  return {
    issuedTicket: 0,
    durableTicket: 0,
    hardStateTicket: 0,
    logTickets: [],
    durableIndex,
    held: [],
    messages: [],
    dirty: clean(),
  };
}

function clean(): Dirty {
  return {
    hardState: false,
    snapshot: null,
    resetsLog: false,
    cutAfterIndex: null,
    repairs: [],
    entries: [],
  };
}

export function send(outbox: Outbox, to: BrickNumber, message: RaftMessage): void {
  outbox.messages.push({ to, message });
}

export function persistHardState(outbox: Outbox): void {
  outbox.dirty.hardState = true;
}

export function persistEntry(outbox: Outbox, entry: Entry): void {
  outbox.dirty.entries.push(entry);
}

export function persistRepair(outbox: Outbox, entry: Entry): void {
  outbox.dirty.repairs.push(entry);
}

export function persistSnapshot(outbox: Outbox, snapshot: Snapshot): void {
  outbox.dirty.snapshot = snapshot;
}

/** Entries after `index` are void, whether the store has them already or not. */
export function persistCut(outbox: Outbox, index: number): void {
  const { dirty } = outbox;
  dirty.entries = dirty.entries.filter((entry) => entry.index <= index);
  dirty.repairs = dirty.repairs.filter((entry) => entry.index <= index);
  dirty.cutAfterIndex = Math.min(dirty.cutAfterIndex ?? index, index);
  outbox.durableIndex = Math.min(outbox.durableIndex, index);
  for (const one of outbox.logTickets) one.lastIndex = Math.min(one.lastIndex, index);
}

/** The log begins anew after a snapshot; `index` is the snapshot's. */
export function persistReset(outbox: Outbox, index: number): void {
  outbox.dirty = {
    ...outbox.dirty,
    resetsLog: true,
    cutAfterIndex: null,
    repairs: [],
    entries: [],
  };
  outbox.durableIndex = Math.min(outbox.durableIndex, index);
  for (const one of outbox.logTickets) one.lastIndex = Math.min(one.lastIndex, index);
}

export function isHardStateDurable(outbox: Outbox): boolean {
  return !outbox.dirty.hardState && outbox.durableTicket >= outbox.hardStateTicket;
}

/** The store has done everything up to `ticket`. */
export function takePersisted(outbox: Outbox, ticket: number): void {
  assert(ticket > outbox.durableTicket && ticket <= outbox.issuedTicket);
  outbox.durableTicket = ticket;
  while (outbox.logTickets.length > 0 && outbox.logTickets[0]!.ticket <= ticket) {
    outbox.durableIndex = outbox.logTickets.shift()!.lastIndex;
  }
}

/** Ends a step: the work for the store first, then every message whose promise holds. */
export function flushOutbox(
  outbox: Outbox,
  present: { hardState: HardState; lastIndex: number; compactThroughIndex: number },
): RaftEffect[] {
  const effects: RaftEffect[] = [];
  const { dirty } = outbox;
  const changesLog =
    dirty.snapshot !== null ||
    dirty.cutAfterIndex !== null ||
    dirty.repairs.length > 0 ||
    dirty.entries.length > 0;
  if (dirty.hardState || changesLog) {
    const ticket = (outbox.issuedTicket += 1);
    if (dirty.hardState) outbox.hardStateTicket = ticket;
    if (changesLog) outbox.logTickets.push({ ticket, lastIndex: present.lastIndex });
    const { snapshot, resetsLog, cutAfterIndex, repairs, entries } = dirty;
    const hardState = dirty.hardState ? present.hardState : null;
    const { compactThroughIndex } = present;
    effects.push({
      type: "persist",
      ticket,
      hardState,
      snapshot,
      resetsLog,
      cutAfterIndex,
      repairs,
      entries,
      compactThroughIndex,
    });
    outbox.dirty = clean();
  }
  for (const { to, message } of outbox.messages) {
    outbox.held.push({ ticket: ticketFor(outbox, message), to, message });
  }
  outbox.messages = [];
  const isFree = (one: { ticket: number }) => one.ticket <= outbox.durableTicket;
  for (const { to, message } of outbox.held.filter(isFree)) {
    effects.push({ type: "send", to, message });
  }
  outbox.held = outbox.held.filter((one) => !isFree(one)).slice(-raftLimits.heldMessagesMax);
  return effects;
}

function ticketFor(outbox: Outbox, message: RaftMessage): number {
  switch (promiseOf[message.type]) {
    case "nothing":
      return 0;
    case "hardState":
      return outbox.hardStateTicket;
    case "everything":
      return outbox.issuedTicket;
  }
}
