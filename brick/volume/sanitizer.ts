import type { ClusterState } from "../cluster-state.ts";
import type { CipherSource } from "../crypt/volume-cipher.ts";
import type { Host } from "../host.ts";
import { isRekeyWanted, sanitizeWhole } from "../unit/sanitize.ts";
import type { UnitChange } from "../unit/unit-changes.ts";
import { GiB, grainBytes, MiB } from "../units.ts";
import type { Attachments } from "./attachments.ts";
import type { Gateway } from "./gateway.ts";

/** Erased in one step: a hundredth of the volume, within these bounds. */
const stepBytesMin = 64 * MiB;
const stepBytesMax = 64 * GiB;
/** Progress is noted in the cluster state at most this often, and in steps of this share. */
const progressEveryMs = 300;
const progressStep = Math.ceil(sanitizeWhole / 100);
const retryMs = 500;

/**
 * Sanitizes the volumes that are served here and whose unit says so: unmaps them from the front to
 * the end. Whoever takes the volume over goes on where the unit says that it had come to; doing a
 * part twice changes nothing. There is no way for it to fail but to take longer.
 *
 * A cryptographic erase gives the volume a new key first, by which nothing was written yet; has the old
 * one destroyed by every brick that has a part in the cluster, after all is unmapped; and is not over
 * before. The unit's record says which of that is done.
 */
export class Sanitizer {
  readonly #host: Host;
  readonly #attachments: Attachments;
  readonly #keys: CipherSource;
  readonly #state: () => ClusterState;
  readonly #submit: (uuid: string, change: UnitChange) => Promise<{ ok: boolean }>;
  readonly #running = new Set<string>();

  constructor(parts: {
    host: Host;
    attachments: Attachments;
    keys: CipherSource;
    state: () => ClusterState;
    submit: (uuid: string, change: UnitChange) => Promise<{ ok: boolean }>;
  }) {
    this.#host = parts.host;
    this.#attachments = parts.attachments;
    this.#keys = parts.keys;
    this.#state = parts.state;
    this.#submit = parts.submit;
  }

  onState(state: ClusterState): void {
    for (const [uuid, unit] of Object.entries(state.units ?? {})) {
      if (unit.sanitize?.state !== "running" || this.#running.has(uuid)) continue;
      // It goes on even when no initiator is left to ask for it.
      const place = this.#attachments.where(uuid);
      if (place !== null && "gateway" in place) this.#run(uuid, place.gateway);
    }
  }

  /** How far it has come; null when there is nothing to do (here) any more. */
  #progress(uuid: string, gateway: Gateway): number | null {
    const sanitize = this.#state().units?.[uuid]?.sanitize;
    if (gateway.isEnded() || sanitize?.state !== "running") return null;
    return sanitize.progress;
  }

  async #run(uuid: string, gateway: Gateway): Promise<void> {
    this.#running.add(uuid);
    const { clock } = this.#host;
    const pause = () => new Promise<void>((resolve) => void clock.after(retryMs, resolve));
    let notedMs = Number.NEGATIVE_INFINITY;
    let noted = this.#progress(uuid, gateway) ?? 0;
    const wholeGrains = gateway.volume().sizeBytes / grainBytes;
    let atBytes = Math.floor((noted / sanitizeWhole) * wholeGrains) * grainBytes;
    while (this.#progress(uuid, gateway) !== null) {
      const { sizeBytes } = gateway.volume();
      if (!(await this.#isRekeyed(uuid, gateway))) {
        await pause();
        continue;
      }
      if (atBytes >= sizeBytes) {
        if (!(await this.#isKeyGone(uuid))) {
          await pause();
          continue;
        }
        const ended = await this.#submit(uuid, { type: "sanitizeEnd", ok: true });
        if (!ended.ok) await pause();
        continue;
      }
      const lengthBytes = Math.min(stepOf(sizeBytes), sizeBytes - atBytes);
      const erased = await gateway.erase(atBytes, lengthBytes);
      if (!erased.ok) {
        await pause();
        continue;
      }
      atBytes += lengthBytes;
      const part = Math.floor((atBytes / sizeBytes) * sanitizeWhole);
      const progress = Math.min(sanitizeWhole - 1, part);
      if (progress - noted < progressStep || clock.nowMs() - notedMs < progressEveryMs) continue;
      notedMs = clock.nowMs();
      noted = progress;
      await this.#submit(uuid, { type: "sanitizeProgress", progress });
    }
    this.#running.delete(uuid);
    // The volume may have come back to this brick, under another attachment, meanwhile.
    this.onState(this.#state());
  }

  /** Whether the volume has the new key that is wanted, if one is; asks for it. */
  async #isRekeyed(uuid: string, gateway: Gateway): Promise<boolean> {
    if (!isRekeyWanted(this.#state().units?.[uuid]?.sanitize)) return true;
    await this.#keys.rekey(gateway.volume());
    // This brick's own state has to say so, too.
    return !isRekeyWanted(this.#state().units?.[uuid]?.sanitize);
  }

  async #isKeyGone(uuid: string): Promise<boolean> {
    const retired = this.#state().units?.[uuid]?.sanitize?.retiredKey;
    return retired === undefined || (await this.#keys.isGone(retired));
  }
}

function stepOf(sizeBytes: number): number {
  const bytes = Math.min(stepBytesMax, Math.max(stepBytesMin, sizeBytes / 100));
  return Math.ceil(bytes / grainBytes) * grainBytes;
}
