import { assert } from "../assert.ts";
import { NumberMap } from "../number-map.ts";
import { stage } from "../stage-times.ts";
import type { BrickNumber } from "../units.ts";
import { type Entry, encodeEntryHead } from "./entry.ts";
import { newHints } from "./new-hints.ts";
import {
  commitTo,
  giveUpWaiting,
  isComplete,
  journalEntry,
  journalFacts,
  others,
  type Replica,
  rememberStart,
  send,
} from "./replica.ts";
import { decodeHello, encodeJson } from "./replica-messages.ts";
import { beginTransfer, pumpTransfer, type Transfer } from "./transfer.ts";
import { imageOf } from "./windows.ts";

/** Entries and bytes proposed and not committed, per shard; more requests are told `not_now`. */
export const pipelineOpsMax = 1024;
export const pipelineBytesMax = 16 * 1024 * 1024;
/**
 * Entries pending when a view begins, above which hints are left as they are, as while the log has no
 * room: they would add up over views in which nothing commits. Garbage collection finds and corrects what they have wrong.
 */
export const pendingHintedMax = 4 * pipelineOpsMax;
/** What was not answered is sent again after this. */
const resendAfterMs = 100;
/** Backups learn of the commit point within this when nothing else is sent. */
const commitNewsAfterMs = 20;

/** Another brick of the view, as the primary sees it. Invariant: ackedOp < nextOp.
 *
 *     greeting ──hello, its log reaches our commit point──▶ streaming
 *         └─────hello, it lacks committed entries──▶ streaming, with a transfer for its base
 */
export interface Peer {
  readonly brick: BrickNumber;
  state: "greeting" | "streaming";
  /** Its boot when it greeted. */
  boot: number;
  nextOp: number;
  /** Durable there, in this view, up to here; 0 before its first ack. */
  ackedOp: number;
  acked: boolean;
  /** Commit point it was last told of. */
  toldCommitOp: number;
  lastNewsMs: number;
  transfer: Transfer | null;
}

export interface Primary {
  readonly is: "primary";
  readonly peers: Map<BrickNumber, Peer>;
  /** lastOp when the view began: look-ups wait until it has committed. */
  readonly startOp: number;
  /** Before this nothing commits: what was taken over, and who holds its chunks now, go together. */
  hintedOp: number;
  /** The start record and our own entries up to here are durable. */
  durableOp: number;
  startDurable: boolean;
  pendingBytes: number;
  /** Highest epoch of a fence that is committed or under way, by branch. */
  readonly fencing: Map<number, number>;
  /** Entries under way by branch and sequence, to recognise what is sent again. */
  readonly bySequence: Map<number, NumberMap<Entry>>;
  readonly waiting: NumberMap<((entry: Entry) => void)[]>;
  /** Numbers the transfers of this view from 1. */
  transferNext: number;
  /** Gave way: answers nothing more in this view. */
  released: boolean;
}

/** Begins to lead the present view. */
export function becomePrimary(replica: Replica): void {
  giveUpWaiting(replica);
  const { facts, effects } = replica;
  const view = replica.view!;
  const fit = isComplete(replica) && !facts.lossy && facts.promised <= view.view;
  if (!fit || view.primaryBoot !== effects.boot()) {
    replica.role = { is: "idle" };
    return;
  }
  const role: Primary = {
    is: "primary",
    peers: new Map(),
    startOp: facts.lastOp,
    hintedOp: 0,
    durableOp: 0,
    startDurable: false,
    pendingBytes: 0,
    fencing: new Map(),
    bySequence: new Map(),
    waiting: new NumberMap(),
    transferNext: 1,
    released: false,
  };
  replica.role = role;
  facts.promised = view.view;
  facts.accepted = view.view;
  rememberStart(facts, view.view, facts.lastOp);
  for (let op = facts.commitOp + 1; op <= facts.lastOp; op += 1) {
    const entry = replica.pending.get(op);
    assert(entry !== undefined, "a pending entry is missing");
    if (entry.view < view.view) effects.counters.settleBytes += entry.inline?.length ?? 0;
    entry.view = view.view;
    index(role, entry);
  }
  for (const brick of others(replica)) {
    role.peers.set(brick, newPeer(brick, facts.commitOp));
  }
  const startOp = facts.lastOp;
  journalFacts(replica, startOp, () => {
    if (replica.role !== role) return;
    role.startDurable = true;
    role.durableOp = Math.max(role.durableOp, startOp);
    advanceCommit(replica, role);
  });
  for (const peer of role.peers.values()) sendStart(replica, peer);
  effects.wakeAfter(replica.shard, resendAfterMs);
  if (replica.pending.size > pendingHintedMax || effects.isLogShort()) return;
  for (const hint of newHints(replica)) {
    role.hintedOp = facts.lastOp + 1;
    propose(
      replica,
      role,
      (op, view) => ({ ...hint, op, view }),
      () => {},
    );
  }
}

function newPeer(brick: BrickNumber, commitOp: number): Peer {
  return {
    brick,
    state: "greeting",
    boot: 0,
    nextOp: commitOp + 1,
    ackedOp: 0,
    acked: false,
    toldCommitOp: 0,
    lastNewsMs: 0,
    transfer: null,
  };
}

function index(role: Primary, entry: Entry): void {
  role.pendingBytes += entry.inlineBytes;
  if (entry.kind === "fence") {
    role.fencing.set(entry.branch, Math.max(entry.epoch, role.fencing.get(entry.branch) ?? 0));
  }
  if (entry.sequence === 0) return;
  let sequences = role.bySequence.get(entry.branch);
  if (sequences === undefined) role.bySequence.set(entry.branch, (sequences = new NumberMap()));
  sequences.set(entry.sequence, entry);
}

/** What is under way for the sequence, under this epoch. */
export function underWay(role: Primary, of: { branch: number; epoch: number; sequence: number }) {
  const entry = role.bySequence.get(of.branch)?.get(of.sequence);
  return entry !== undefined && entry.epoch === of.epoch ? entry : undefined;
}

/** Whether the pipeline takes another entry. */
export function hasRoom(replica: Replica, role: Primary): boolean {
  const { facts } = replica;
  return facts.lastOp - facts.commitOp < pipelineOpsMax && role.pendingBytes < pipelineBytesMax;
}

/** Gives the entry its op, logs it here and sends it on; `committed` is told when it has landed. */
export function propose(
  replica: Replica,
  role: Primary,
  make: (op: number, view: number) => Entry,
  committed: (entry: Entry) => void,
): void {
  const { facts } = replica;
  assert(replica.role === role && !role.released);
  const entry = make(facts.lastOp + 1, replica.view!.view);
  facts.lastOp = entry.op;
  replica.pending.set(entry.op, entry);
  index(role, entry);
  awaitCommit(role, entry, committed);
  const stages = replica.effects.stages();
  const sinceMs = stages.since(stage.writeCommit);
  if (sinceMs > 0) awaitCommit(role, entry, () => stages.took(stage.writeCommit, sinceMs));
  for (const peer of role.peers.values()) pump(replica, role, peer);
  if (role.peers.size > 0) replica.effects.wakeAfter(replica.shard, resendAfterMs);
  journalEntry(replica, entry, facts.commitOp, () => {
    if (replica.role !== role) return;
    role.durableOp = entry.op;
    advanceCommit(replica, role);
  });
}

export function awaitCommit(role: Primary, entry: Entry, done: (entry: Entry) => void): void {
  const waiting = role.waiting.get(entry.op);
  if (waiting === undefined) role.waiting.set(entry.op, [done]);
  else waiting.push(done);
}

/** Sends what the peer has not been sent. */
function pump(replica: Replica, role: Primary, peer: Peer): void {
  if (peer.state !== "streaming") return;
  const { facts } = replica;
  while (peer.nextOp <= facts.lastOp) {
    const entry = replica.pending.get(peer.nextOp);
    if (entry === undefined) {
      assert(peer.nextOp <= facts.commitOp, "an entry to send is missing");
      peer.nextOp = facts.commitOp + 1;
      continue;
    }
    const head = encodeEntryHead(entry, facts.commitOp, entry.inline !== null);
    const parts = entry.inline === null ? [head] : [head, entry.inline];
    send(replica, peer.brick, "prepare", facts.commitOp, parts);
    peer.toldCommitOp = facts.commitOp;
    peer.nextOp += 1;
  }
  assert(replica.role === role);
}

/** Commits what every brick of the view has durable, and answers for it. */
function advanceCommit(replica: Replica, role: Primary): void {
  if (!role.startDurable) return;
  let op = role.durableOp;
  for (const peer of role.peers.values()) op = Math.min(op, peer.acked ? peer.ackedOp : 0);
  if (op <= replica.facts.commitOp || op < role.hintedOp) return;
  commitTo(replica, op, (entry) => {
    role.pendingBytes -= entry.inlineBytes;
    const sequences = role.bySequence.get(entry.branch);
    if (sequences?.get(entry.sequence) === entry) sequences.delete(entry.sequence);
    const waiting = role.waiting.get(entry.op);
    if (waiting === undefined) return;
    role.waiting.delete(entry.op);
    for (const done of waiting) done(entry);
  });
  if (role.peers.size > 0) replica.effects.wakeAfter(replica.shard, commitNewsAfterMs);
}

function sendStart(replica: Replica, peer: Peer): void {
  const { facts } = replica;
  const role = replica.role as Primary;
  peer.lastNewsMs = replica.effects.nowMs();
  const payload = encodeJson({ lastOp: role.startOp, starts: facts.starts });
  send(replica, peer.brick, "start", facts.commitOp, [payload]);
}

/** A brick of the view tells what its log holds; `matchOp` up to where it is the same as ours. */
export function onHello(
  replica: Replica,
  role: Primary,
  from: BrickNumber,
  matchOp: number,
  body: Buffer,
): void {
  const peer = role.peers.get(from);
  const hello = decodeHello(body);
  if (peer === undefined || hello === null) return;
  const { facts } = replica;
  if (peer.state !== "greeting") {
    if (hello.boot > peer.boot) greetAgain(replica, peer);
    return;
  }
  peer.boot = hello.boot;
  // It knows of a commit that we lack: this is no complete replica, whatever it took itself for.
  if (hello.commitOp > facts.lastOp) {
    facts.lossy = true;
    return;
  }
  peer.state = "streaming";
  peer.lastNewsMs = replica.effects.nowMs();
  if (matchOp >= facts.commitOp) {
    peer.nextOp = matchOp + 1;
    // It reaches our commit point with an overlay of its own: its base is still to be sent.
    if (hello.baseOp < hello.commitOp) peer.transfer = beginTransfer(role, hello.baseOp);
  } else {
    // What was removed before the chain began cannot be told from what it never had; and no view of
    // the chain needs what it holds.
    const oldest = replica.view!.chain[0]?.view ?? replica.view!.view;
    const fresh = hello.accepted < oldest;
    const overlaid = hello.baseOp < hello.commitOp;
    peer.nextOp = facts.commitOp + 1;
    peer.transfer = beginTransfer(role, fresh ? 0 : overlaid ? hello.baseOp : matchOp);
    const payload = encodeJson({ fresh, windows: imageOf(facts.windows), starts: facts.starts });
    send(replica, from, "overlay", facts.commitOp, [payload]);
  }
  pump(replica, role, peer);
  pumpTransfer(replica, peer);
}

export function onAck(replica: Replica, role: Primary, from: BrickNumber, op: number): void {
  const peer = role.peers.get(from);
  if (peer === undefined || peer.state !== "streaming" || op > replica.facts.lastOp) return;
  peer.lastNewsMs = replica.effects.nowMs();
  if (peer.acked && op <= peer.ackedOp) return;
  peer.acked = true;
  peer.ackedOp = op;
  advanceCommit(replica, role);
}

export function onNeed(replica: Replica, role: Primary, from: BrickNumber, op: number): void {
  const peer = role.peers.get(from);
  if (peer === undefined || peer.state !== "streaming" || op > peer.nextOp) return;
  if (op <= replica.facts.commitOp) {
    // It has started anew within the view, or lacks what we have no more: begin anew with it.
    greetAgain(replica, peer);
    return;
  }
  peer.nextOp = Math.max(op, peer.ackedOp + 1);
  pump(replica, role, peer);
}

function greetAgain(replica: Replica, peer: Peer): void {
  Object.assign(peer, newPeer(peer.brick, replica.facts.commitOp));
  sendStart(replica, peer);
  // It may be lost, and nothing else may wake us: whoever waits for it is heard no more before it answers.
  replica.effects.wakeAfter(replica.shard, resendAfterMs);
}

/** Repeats what was not answered and spreads the commit point. */
export function wakePrimary(replica: Replica, role: Primary): void {
  const { facts, effects } = replica;
  const nowMs = effects.nowMs();
  let again = false;
  for (const peer of role.peers.values()) {
    const late = nowMs - peer.lastNewsMs >= resendAfterMs;
    if (peer.state === "greeting") {
      if (late) sendStart(replica, peer);
      again = true;
      continue;
    }
    const behind = !peer.acked || peer.ackedOp < facts.lastOp;
    if (behind && late) {
      // An overlay message may have been lost: its sender waits for an ack that names the view.
      if (!peer.acked) greetAgain(replica, peer);
      else {
        peer.nextOp = Math.max(peer.ackedOp, facts.commitOp) + 1;
        peer.lastNewsMs = nowMs;
        pump(replica, role, peer);
      }
    }
    if (peer.toldCommitOp < facts.commitOp) {
      peer.toldCommitOp = facts.commitOp;
      send(replica, peer.brick, "commit", facts.commitOp);
    }
    pumpTransfer(replica, peer);
    if (behind || (peer.transfer !== null && replica.view!.transfer)) again = true;
  }
  if (again) effects.wakeAfter(replica.shard, resendAfterMs);
}
