import { assert } from "../../brick/assert.ts";
import { crc32 } from "../../brick/crc32.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { persistReset, persistSnapshot, send } from "./outbox.ts";
import { configurationAt, type Peer, type Raft } from "./raft-state.ts";
import type { Snapshot, SnapshotChunk, SnapshotReply } from "./raft-types.ts";
import { accept } from "./replication.ts";
import { hearLeader } from "./roles.ts";

/** The state machine gave its state after `index`: the log up to there may go (section 7). */
export function takeSnapshotMade(raft: Raft, index: number, data: Buffer): void {
  if (index <= (raft.snapshot?.index ?? 0)) return;
  assert(index <= raft.appliedIndex, "a snapshot is made of what was applied");
  assert(data.length <= raft.limits.snapshotBytesMax, "the state machine outgrew its snapshots");
  const term = raft.log.termAt(index)!;
  const configuration = configurationAt(raft, index);
  raft.snapshot = { index, term, configuration, data };
  persistSnapshot(raft.outbox, raft.snapshot);
  raft.log.compactThrough(index - raft.limits.trailingEntries);
  const ruling = raft.configurations.findLastIndex((one) => one.index <= index);
  raft.configurations = raft.configurations.slice(ruling);
}

/** One chunk is on its way at a time: snapshots are small and rare, and heartbeats go on. */
export function sendSnapshotChunk(raft: Raft, peer: Peer): void {
  assert(peer.progress.state === "snapshot");
  const { snapshot, offsetBytes } = peer.progress;
  send(raft.outbox, peer.brick, {
    type: "snapshotChunk",
    term: raft.term,
    index: snapshot.index,
    snapshotTerm: snapshot.term,
    configuration: snapshot.configuration,
    sizeBytes: snapshot.data.length,
    checksum: checksumOf(snapshot),
    offsetBytes,
    bytes: snapshot.data.subarray(offsetBytes, offsetBytes + raft.limits.snapshotChunkBytes),
  });
  peer.retryAtMs = raft.nowMs + raft.timing.retryMs;
}

const checksums = new WeakMap<Snapshot, number>();

/** Computed once for a snapshot, however many chunks and followers it has. */
function checksumOf(snapshot: Snapshot): number {
  const known = checksums.get(snapshot);
  if (known !== undefined) return known;
  const checksum = crc32(snapshot.data);
  checksums.set(snapshot, checksum);
  return checksum;
}

export function receiveSnapshotChunk(raft: Raft, from: BrickNumber, message: SnapshotChunk): void {
  hearLeader(raft, from);
  if (message.index <= raft.appliedIndex) {
    accept(raft, from, Math.min(raft.commitIndex, raft.log.wholeThroughIndex));
    return;
  }
  const { index, snapshotTerm: term, sizeBytes, checksum } = message;
  const same = raft.incoming !== null && raft.incoming.index === index;
  if (!same || raft.incoming!.checksum !== checksum || raft.incoming!.sizeBytes !== sizeBytes) {
    raft.incoming = { index, term, sizeBytes, checksum, chunks: [], receivedBytes: 0 };
  }
  const incoming = raft.incoming!;
  if (message.offsetBytes === incoming.receivedBytes) {
    incoming.chunks.push(message.bytes);
    incoming.receivedBytes += message.bytes.length;
  }
  if (incoming.receivedBytes >= sizeBytes) {
    raft.incoming = null;
    const data = Buffer.concat(incoming.chunks);
    if (data.length === sizeBytes && crc32(data) === checksum) {
      install(raft, { index, term, configuration: message.configuration, data });
      accept(raft, from, index);
      return;
    }
  }
  const offsetBytes = raft.incoming?.receivedBytes ?? 0;
  send(raft.outbox, from, { type: "snapshotReply", term: raft.term, index, offsetBytes });
}

/** Raft figure 13, steps 6 to 8. */
function install(raft: Raft, snapshot: Snapshot): void {
  const { log } = raft;
  const { index, term } = snapshot;
  // "If existing log entry has same index and term as snapshot's last included entry, retain log
  // entries following it"; otherwise "discard the entire log".
  if (log.termAt(index) === term) {
    log.compactThrough(index);
  } else {
    log.reset(index, term);
    persistReset(raft.outbox, index);
  }
  const kept = raft.configurations.filter((one) => one.index > index && one.index <= log.lastIndex);
  raft.configurations = [{ index, configuration: snapshot.configuration }, ...kept];
  raft.snapshot = snapshot;
  raft.commitIndex = Math.max(raft.commitIndex, index);
  raft.appliedIndex = index;
  raft.agreedIndex = Math.max(raft.agreedIndex, index);
  persistSnapshot(raft.outbox, snapshot);
  raft.effects.push({ type: "restore", snapshot });
}

export function receiveSnapshotReply(raft: Raft, peer: Peer, message: SnapshotReply): void {
  const { progress } = peer;
  if (progress.state !== "snapshot" || progress.snapshot.index !== message.index) return;
  const { offsetBytes } = message;
  if (offsetBytes === progress.offsetBytes || offsetBytes > progress.snapshot.data.length) return;
  progress.offsetBytes = offsetBytes;
  sendSnapshotChunk(raft, peer);
}
