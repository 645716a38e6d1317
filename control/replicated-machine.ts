import type { ClusterState } from "../brick/cluster-state.ts";
import { crc32 } from "../brick/crc32.ts";
import { levelOf } from "../brick/feature-level.ts";
import { advanceTime, apply, emptyClusterState } from "./cluster-machine.ts";
import type { CommandFault, CommandResult } from "./command-result.ts";
import type { CommandId, Envelope } from "./commands.ts";
import { eventsOf, leaderEvent } from "./event-rules.ts";
import { type EventDraft, type EventLog, emptyEventLog, withEvents } from "./events.ts";

/** What Raft replicates: the cluster state, and the results that a retry may ask for again. */
export interface ReplicatedMachine {
  readonly cluster: ClusterState;
  readonly remembered: { readonly [brick: string]: RememberedResults };
  /** What has happened, for people; absent: nothing yet. */
  readonly events?: EventLog;
  /** The brick that led Raft at the newest entry; absent: not known. */
  readonly leader?: number;
}

interface RememberedResults {
  /** Submissions of older boots are refused: nobody waits for them. */
  readonly boot: number;
  /** Results below this sequence have been received. */
  readonly settled: number;
  readonly results: { readonly [sequence: string]: CommandResult };
}

/** A submitter waits for no two commands further apart than this; so many results are kept. */
export const submitWindowMax = 256;
/**
 * What does not know feature levels must not go on from a state that has one above the first: of such a
 * state the snapshot's version is 2.
 */
const snapshotVersionMax = 2;

function snapshotVersionOf({ cluster }: ReplicatedMachine): number {
  return levelOf(cluster) > 1 ? snapshotVersionMax : 1;
}

export const emptyMachine: ReplicatedMachine = { cluster: emptyClusterState, remembered: {} };

/** Applies an entry once, however often it was submitted under the same id. */
export function applyEnvelope(
  before: ReplicatedMachine,
  envelope: Envelope,
): { machine: ReplicatedMachine; result: CommandResult } {
  const { id, timeMs, command } = envelope;
  const machine = withLeader(before, envelope);
  const known = id === null ? null : remembered(machine, id);
  if (known !== null && "result" in known) return { machine, result: known.result };
  const timed = advanceTime(machine.cluster, timeMs);
  const { state, result } = apply(timed, command);
  const noted = withNoted(machine, envelope, eventsOf(timed, state, command), state.clusterTimeMs);
  if (id === null) return { machine: { ...noted, cluster: state }, result };
  // Entries of one submitter may pass each other: what has been settled stays so.
  const settled = Math.max(id.settled, known?.settled ?? 0);
  const kept = Object.entries(known?.results ?? {}).filter(([at]) => Number(at) >= settled);
  const results = { ...Object.fromEntries(kept), [id.sequence]: result };
  const memory = { boot: id.boot, settled, results };
  return {
    machine: {
      ...noted,
      cluster: state,
      remembered: { ...machine.remembered, [id.brick]: memory },
    },
    result,
  };
}

function withLeader(machine: ReplicatedMachine, envelope: Envelope): ReplicatedMachine {
  const { leader } = envelope;
  if (leader === undefined || leader === machine.leader) return machine;
  const event = leaderEvent(machine.leader ?? 0, leader);
  return { ...withNoted(machine, envelope, [event], machine.cluster.clusterTimeMs), leader };
}

function withNoted(
  machine: ReplicatedMachine,
  { wallMs = 0 }: Envelope,
  drafts: readonly EventDraft[],
  clusterMs: number,
): ReplicatedMachine {
  if (drafts.length === 0) return machine;
  const events = withEvents(machine.events ?? emptyEventLog, drafts, { clusterMs, wallMs });
  return { ...machine, events };
}

/** What is remembered of the submitter, or at once the answer to this very submission. */
function remembered(
  machine: ReplicatedMachine,
  id: CommandId,
): RememberedResults | { result: CommandResult } | null {
  if (id.sequence < id.settled || id.sequence - id.settled >= submitWindowMax) {
    const message = `submission ${id.sequence} of brick ${id.brick} is not within ${submitWindowMax} of ${id.settled}`;
    return refused("limit", message);
  }
  const memory = machine.remembered[id.brick];
  if (memory === undefined || memory.boot < id.boot) return null;
  const result = memory.results[id.sequence];
  if (memory.boot === id.boot && result !== undefined) return { result };
  if (memory.boot > id.boot || id.sequence < memory.settled) {
    const message = `submission ${id.sequence} of brick ${id.brick} boot ${id.boot} comes too late: boot ${memory.boot} has settled all below ${memory.settled}`;
    return refused("expired", message);
  }
  return memory;
}

function refused(code: CommandFault["code"], message: string): { result: CommandResult } {
  return { result: { ok: false, fault: { code, message } } };
}

export function encodeSnapshot(machine: ReplicatedMachine): Buffer {
  const body = JSON.stringify(machine);
  const checksum = crc32(body);
  return Buffer.from(
    JSON.stringify({
      format: "endisk-cluster",
      version: snapshotVersionOf(machine),
      checksum,
      body,
    }),
  );
}

export type SnapshotDecode =
  | { ok: true; machine: ReplicatedMachine }
  | { ok: false; message: string };

export function decodeSnapshot(bytes: Buffer): SnapshotDecode {
  try {
    const outer = JSON.parse(bytes.toString("utf8"));
    if (outer?.format !== "endisk-cluster") return { ok: false, message: "no cluster snapshot" };
    if (outer.version !== 1 && outer.version !== snapshotVersionMax) {
      const message = `cluster snapshot version ${outer.version}; this brick knows up to ${snapshotVersionMax}: run a newer build on it`;
      return { ok: false, message };
    }
    if (typeof outer.body !== "string" || crc32(outer.body) !== outer.checksum) {
      return { ok: false, message: "the cluster snapshot's checksum is wrong" };
    }
    return { ok: true, machine: JSON.parse(outer.body) };
  } catch (error) {
    return { ok: false, message: `the cluster snapshot is no JSON: ${String(error)}` };
  }
}
