import type { LentMemory } from "../rpc/lent-memory.ts";
import type { UnitChange, UnitOutcome } from "../unit/unit-changes.ts";
import type { NexusId, UnitRecord } from "../unit/unit-record.ts";

/**
 * A thin disk as its gateway sees it: byte ranges, aligned to sectors, of immutable meaning once
 * acknowledged. The iSCSI target above knows nothing else of the cluster.
 */
export interface Volume {
  readonly info: VolumeInfo;
  /**
   * Reads [offsetBytes, offsetBytes + lengthBytes). The buffers, in order, add up to lengthBytes;
   * they may be shared with caches: never write into them. Never-written sectors are zeros.
   */
  read(offsetBytes: number, lengthBytes: number, task?: VolumeTask): Promise<VolumeRead>;
  /**
   * Writes the buffers' bytes, durably on all copies, before it resolves ok. The buffers belong to
   * the volume until then and may be kept by its caches after: never write into them again.
   */
  write(offsetBytes: number, data: readonly Buffer[], task?: VolumeTask): Promise<VolumeDone>;
  /** WRITE ATOMIC: as a write, but of the whole range or of nothing, whatever fails meanwhile. */
  writeAtomic(offsetBytes: number, data: readonly Buffer[], task?: VolumeTask): Promise<VolumeDone>;
  /** Makes the range read as zeros and gives its space back; durable when it resolves ok. */
  unmap(offsetBytes: number, lengthBytes: number, task?: VolumeTask): Promise<VolumeDone>;
  /**
   * COMPARE AND WRITE: when the range reads as `compare`, writes `data` (as long as it), with
   * nothing of another command between; else fault "miscompare". Atomic over all portals.
   */
  compareAndWrite(
    offsetBytes: number,
    compare: readonly Buffer[],
    data: readonly Buffer[],
    task?: VolumeTask,
  ): Promise<VolumeDone>;
  /** ORWRITE: sets the bits that are set in `data`, with nothing of another command between. */
  orWrite(offsetBytes: number, data: readonly Buffer[], task?: VolumeTask): Promise<VolumeDone>;
  /**
   * Makes the range at `offsetBytes` read as `source` reads, by map edits alone: no data moves, unless
   * one of the two volumes is encrypted.
   * `source.uuid` may be this volume's own; overlapping ranges read as before the copy.
   */
  copyFrom(
    source: { readonly uuid: string; readonly offsetBytes: number },
    offsetBytes: number,
    lengthBytes: number,
    task?: VolumeTask,
  ): Promise<VolumeDone>;
  /** Which of the range is written: alternating runs from offsetBytes, at most `runsMax` of them. */
  allocation(
    offsetBytes: number,
    lengthBytes: number,
    runsMax: number,
    task?: VolumeTask,
  ): Promise<VolumeAllocation>;

  /** The SCSI state that all portals share, as this brick knows it now. */
  unit(): UnitRecord;
  /**
   * Changes it. Resolves when the change is committed, every reachable brick knows it (and the
   * gateway acts by it), and the commands that it ends have settled everywhere (DESIGN.md,
   * invariant 5). Resolves with the device server's answer.
   */
  changeUnit(change: UnitChange): Promise<UnitChanged>;
  /** `unit()` as new as this call. */
  freshUnit(): Promise<{ ok: true; unit: UnitRecord } | { ok: false; fault: VolumeFault }>;
  /**
   * Calls back on each newer record, before any command is checked against it. What the watcher
   * returns resolves when the commands of its portal that the new notices end have settled.
   */
  watchUnit(watcher: UnitWatcher): { stop(): void };
  /**
   * Where the unit is served, for ALUA: the state of each target port (brick number). While nobody
   * serves it, as after a start, the port that is asked expects to be the one.
   */
  ports(): readonly VolumePort[];
  isServed(): boolean;
  /** Moves the attachment to the gateway of a target port (SET TARGET PORT GROUPS). */
  moveTo(targetPort: number): Promise<VolumeDone>;
  /** Space behind the volume, for thin-provisioning thresholds. */
  space(): VolumeSpace;
}

export type UnitWatcher = (unit: UnitRecord) => Promise<void>;

export type UnitChanged = { ok: true; outcome: UnitOutcome } | { ok: false; fault: VolumeFault };

export interface VolumePort {
  readonly targetPort: number;
  /** `optimized`: its gateway serves the volume; `nonOptimized`: it forwards to that one. */
  readonly state: "optimized" | "nonOptimized" | "unavailable";
}

export interface VolumeSpace {
  /** Bytes of the volume that are mapped, as far as known here. */
  readonly usedBytes: number;
  /** What can still be written, by the bricks' free space with every copy on another brick. */
  readonly freeBytes: number;
  /** Of the pool: used and all, before copies. */
  readonly poolUsedBytes: number;
  readonly poolBytes: number;
}

/** Facts of a volume that its SCSI identity is made of. */
export interface VolumeInfo {
  readonly name: string;
  /** 16 random bytes, hex; stable over the volume's life, different for a clone. */
  readonly uuid: string;
  /** Its data are encrypted; absent: they are not. */
  readonly keyDomain?: number;
  /** May grow while attached; the object given is always the present one. */
  readonly sizeBytes: number;
}

/**
 * The life of one command, so that task management can settle it: `cancel` asks the volume to
 * bring the operation to its end soon, either landed or certain never to land. The operation's
 * promise still tells which (fault "cancelled": it never lands).
 */
export class VolumeTask {
  /** Whose command it is: reservations are checked where it takes effect. null: the cluster's own. */
  readonly nexus: NexusId | null;
  /**
   * `noticeNext` of the unit when the command began: a later notice that ends the tasks of its
   * nexus voids it, wherever it is under way.
   */
  readonly noticeNext: number;
  cancelled = false;
  /**
   * Of a write that is all its command does: what its data lie in. The volume gives it back when the
   * data are needed no more.
   */
  memory: LentMemory | null = null;
  /** Set by the volume while the operation is under way. */
  onCancel: (() => void) | null = null;

  constructor(nexus: NexusId | null = null, noticeNext = 0) {
    this.nexus = nexus;
    this.noticeNext = noticeNext;
  }

  cancel(): void {
    if (this.cancelled) return;
    this.cancelled = true;
    this.onCancel?.();
  }
}

export type VolumeFault =
  /** A holder, a shard or the quorum is away: the initiator may try again. Nothing is lost. */
  | { code: "unavailable"; reason: string }
  /** The bricks are full: SCSI 27/07. The write did not land. */
  | { code: "no_space" }
  /** The range passes the end of the volume. */
  | { code: "out_of_range"; sizeBytes: number }
  /** Every brick that is not failed has answered absent or damaged. */
  | { code: "lost"; offsetBytes: number }
  /** The task was cancelled and can never land. */
  | { code: "cancelled" }
  /** The volume was deleted. */
  | { code: "deleted" }
  /** Another initiator has reserved the unit. */
  | { code: "reservation_conflict" }
  /** COMPARE AND WRITE: the first byte that differs, from the start of the range. Nothing landed. */
  | { code: "miscompare"; offsetBytes: number }
  /** The unit is being sanitized, or was in vain. */
  | { code: "sanitizing" };

export type VolumeRead =
  /** `release`: says, once, that the buffers are needed no more; who does not call it need not. */
  { ok: true; buffers: Buffer[]; release?: () => void } | { ok: false; fault: VolumeFault };
export type VolumeDone = { ok: true } | { ok: false; fault: VolumeFault };
export type VolumeAllocation =
  | { ok: true; runs: { lengthBytes: number; mapped: boolean }[] }
  | { ok: false; fault: VolumeFault };

/** What a portal can offer to initiators, at this moment. */
export interface VolumeDirectory {
  /** Every volume that may be logged in to, sorted by name. */
  list(): VolumeInfo[];
  /** The volume by name; undefined when there is none. Opening is cheap and may be repeated. */
  open(name: string): Volume | undefined;
  /** Every portal of the cluster: address "HOST:PORT", and its portal group tag (brick number). */
  portals(): { address: string; tag: number }[];
}
