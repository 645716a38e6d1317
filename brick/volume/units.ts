import { brickOf, type ClusterState, isReachable } from "../cluster-state.ts";
import type { Host } from "../host.ts";
import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { UnitChange, UnitOutcome } from "../unit/unit-changes.ts";
import { newUnit, type UnitRecord } from "../unit/unit-record.ts";
import type { BrickNumber } from "../units.ts";
import type { Gateway } from "./gateway.ts";
import { unavailable } from "./operation.ts";
import {
  decodeUnitSettle,
  decodeUnitSettleReply,
  encodeUnitSettle,
  encodeUnitSettleReply,
} from "./unit-settle-messages.ts";
import type { UnitChanged, UnitWatcher } from "./volume.ts";

/** A brick that has not settled is asked again after this, and each time twice as long. */
const askAgainMsFirst = 2;
const askAgainMsMax = 50;
const askTimeoutMs = 500;

/** `value`: the version of the unit's record that came of it; it has an `outcome` when it is ok. */
export type Submitted =
  | { readonly ok: true; readonly value: number; readonly outcome?: UnitOutcome }
  | { readonly ok: false; readonly fault: { readonly code: string } };

export interface UnitsParts {
  readonly host: Host;
  readonly calls: Calls;
  state(): ClusterState;
  /** Commits a change. */
  submit(uuid: string, change: UnitChange): Promise<Submitted>;
  /** The gateway that serves the volume here, if there is one. */
  gateway(uuid: string): Gateway | undefined;
  /** Resolves when the state has changed, or at the deadline. */
  changed(deadlineMs: number): Promise<void>;
}

/** What a portal still does because of a record. */
interface Settling {
  readonly unitVersion: number;
}

interface Watched {
  seen: UnitRecord | undefined;
  readonly watchers: Set<UnitWatcher>;
  readonly settling: Set<Settling>;
}

/**
 * The shared SCSI state of volumes as one brick meets it: tells its portal of each change, tells
 * other bricks whether what a change ends has settled here, and brings changes of its own about.
 */
export class Units {
  readonly #parts: UnitsParts;
  readonly #watched = new Map<string, Watched>();

  constructor(parts: UnitsParts) {
    this.#parts = parts;
    parts.calls.serve(messageType.unitSettle, (_from, body, reply) => {
      const request = decodeUnitSettle(body);
      if (request === null) return;
      reply(encodeUnitSettleReply(this.#hasSettled(request.uuid, request.unitVersion)));
    });
  }

  unit(uuid: string): UnitRecord {
    return this.#parts.state().units?.[uuid] ?? newUnit;
  }

  watch(uuid: string, watcher: UnitWatcher): { stop(): void } {
    let watched = this.#watched.get(uuid);
    if (watched === undefined) {
      const seen = this.#parts.state().units?.[uuid];
      watched = { seen, watchers: new Set(), settling: new Set() };
      this.#watched.set(uuid, watched);
    }
    const { watchers } = watched;
    watchers.add(watcher);
    return { stop: () => watchers.delete(watcher) };
  }

  onState(state: ClusterState): void {
    for (const [uuid, watched] of this.#watched) {
      const unit = state.units?.[uuid];
      if (unit === watched.seen) continue;
      watched.seen = unit;
      if (unit !== undefined) this.#tell(watched, unit);
    }
  }

  forget(uuid: string): void {
    this.#watched.delete(uuid);
  }

  /**
   * Resolves with the device server's answer once the change is committed, every reachable brick
   * acts by it, and what it ends has settled everywhere. `unavailable`: it may stand all the same;
   * the same change asked for again finds it, and waits for the same.
   */
  async change(uuid: string, change: UnitChange, deadlineMs: number): Promise<UnitChanged> {
    const { clock } = this.#parts.host;
    let result = await this.#parts.submit(uuid, change);
    while (!result.ok && result.fault.code === "not_now" && clock.nowMs() < deadlineMs) {
      await this.#parts.changed(deadlineMs);
      result = await this.#parts.submit(uuid, change);
    }
    if (!result.ok || result.outcome === undefined) {
      return { ok: false, fault: unavailable("the unit's state cannot be changed now") };
    }
    const { outcome, value } = result;
    // Also when it was so before: an earlier try may have been given up while it settled.
    if (outcome === "done" && !(await this.#settleEverywhere(uuid, value, deadlineMs))) {
      return { ok: false, fault: unavailable("the change stands, but has not settled everywhere") };
    }
    return { ok: true, outcome };
  }

  #tell({ watchers, settling }: Watched, unit: UnitRecord): void {
    const ended = [...watchers].map((watcher) => watcher(unit));
    if (ended.length === 0) return;
    const one = { unitVersion: unit.version };
    settling.add(one);
    Promise.all(ended).then(() => settling.delete(one));
  }

  #hasSettled(uuid: string, unitVersion: number): boolean {
    if (this.unit(uuid).version < unitVersion) return false;
    for (const one of this.#watched.get(uuid)?.settling ?? []) {
      if (one.unitVersion <= unitVersion) return false;
    }
    return this.#parts.gateway(uuid)?.hasSettled(unitVersion) ?? true;
  }

  async #settleEverywhere(uuid: string, unitVersion: number, deadlineMs: number): Promise<boolean> {
    const { clock } = this.#parts.host;
    // With the record this state has every brick that may act by an older one: who comes up later
    // gets its lease only with the record.
    while (this.unit(uuid).version < unitVersion) {
      if (clock.nowMs() >= deadlineMs) return false;
      await this.#parts.changed(deadlineMs);
    }
    const waiting = new Map<BrickNumber, number>();
    for (const brick of Object.values(this.#parts.state().bricks)) {
      if (isReachable(brick)) waiting.set(brick.number, brick.boot);
    }
    const body = encodeUnitSettle({ uuid, unitVersion });
    for (let pauseMs = askAgainMsFirst; ; pauseMs = Math.min(askAgainMsMax, 2 * pauseMs)) {
      const asked = [...waiting.keys()].map(async (brick) => {
        if (await this.#ask(brick, body)) waiting.delete(brick);
      });
      await Promise.all(asked);
      for (const [number, boot] of waiting) {
        const brick = brickOf(this.#parts.state(), number);
        // Committed: its leases have ended, or its memory has.
        if (!isReachable(brick) || brick!.boot !== boot) waiting.delete(number);
      }
      if (waiting.size === 0) return true;
      if (clock.nowMs() >= deadlineMs) return false;
      await new Promise<void>((resolve) => void clock.after(pauseMs, resolve));
    }
  }

  #ask(brick: BrickNumber, body: readonly Buffer[]): Promise<boolean> {
    return new Promise((resolve) => {
      this.#parts.calls.call(brick, messageType.unitSettle, body, askTimeoutMs, (reply) => {
        resolve(reply.ok && decodeUnitSettleReply(reply.body) === true);
      });
    });
  }
}
