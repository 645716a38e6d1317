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
  /** Makes the range read as zeros and gives its space back; durable when it resolves ok. */
  unmap(offsetBytes: number, lengthBytes: number, task?: VolumeTask): Promise<VolumeDone>;
  /** Which of the range is written: alternating runs from offsetBytes, at most `runsMax` of them. */
  allocation(offsetBytes: number, lengthBytes: number, runsMax: number): Promise<VolumeAllocation>;
}

/** Facts of a volume that its SCSI identity is made of. */
export interface VolumeInfo {
  readonly name: string;
  /** 16 random bytes, hex; stable over the volume's life, different for a clone. */
  readonly uuid: string;
  /** May grow while attached; the object given is always the present one. */
  readonly sizeBytes: number;
}

/**
 * The life of one command, so that task management can settle it: `cancel` asks the volume to
 * bring the operation to its end soon, either landed or certain never to land. The operation's
 * promise still tells which (fault "cancelled": it never lands).
 */
export class VolumeTask {
  cancelled = false;
  /** Set by the volume while the operation is under way. */
  onCancel: (() => void) | null = null;

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
  | { code: "deleted" };

export type VolumeRead = { ok: true; buffers: Buffer[] } | { ok: false; fault: VolumeFault };
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
