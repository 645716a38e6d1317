import {
  type AttachmentRecord,
  brickOf,
  type ClusterState,
  isHeld,
  isReachable,
  type VolumeRecord,
} from "../cluster-state.ts";
import type { Host } from "../host.ts";
import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { BrickNumber } from "../units.ts";
import type { Gateway } from "./gateway.ts";
import { decodeMove, encodeMove } from "./move-messages.ts";
import type { EndReason } from "./operation.ts";
import type { VolumePort } from "./volume.ts";

/** The command of the control plane that makes and moves attachments. */
export interface AttachCommand {
  readonly type: "attach";
  readonly uuid: string;
  readonly brick: BrickNumber;
  readonly boot: number;
  readonly expectEpoch: number;
  readonly by: { readonly brick: BrickNumber; readonly boot: number };
}

export interface AttachmentsParts {
  readonly host: Host;
  readonly calls: Calls;
  readonly self: BrickNumber;
  boot(): number;
  state(): ClusterState;
  submit(command: AttachCommand): Promise<{ ok: boolean }>;
  leaseValid(): boolean;
  /** Whether a gateway of the volume may begin here: its key is here, and no retired one. */
  isReady(volume: VolumeRecord): boolean;
  /** Whether one that has begun may go on. */
  hasKey(volume: VolumeRecord): boolean;
  makeGateway(volume: VolumeRecord, epoch: number): Gateway;
  /** An attachment may stand elsewhere now. */
  wake(): void;
}

/** An attachment that was refused is tried again after this. */
export const attachAgainMs = 100;
/** Before an attachment is given away, commands under way get this long to come to their end. */
const giveWayMsMax = 2000;
const giveWayLookMs = 5;

/**
 * Where volumes are served: the gateways of the attachments that this boot of this brick holds,
 * and how attachments are taken and given away.
 */
export class Attachments {
  readonly #parts: AttachmentsParts;
  /** By volume uuid; each under the epoch it was made for. */
  readonly #gateways = new Map<string, Gateway>();
  /** Volumes for which an attachment is being asked for, or was refused a moment ago. */
  readonly #attaching = new Set<string>();
  /** Volumes that are being given away: their gateways begin nothing new. */
  readonly #giving = new Set<string>();
  /** Epochs that a shard has refused: their successor is not known here yet. */
  readonly #fenced = new Set<number>();
  #closed = false;

  constructor(parts: AttachmentsParts) {
    this.#parts = parts;
    parts.calls.serve(messageType.volumeMove, (_from, body) => {
      const request = decodeMove(body);
      const held = request === null ? undefined : parts.state().attachments[request.uuid];
      if (request === null || held?.epoch !== request.epoch) return;
      if (this.#isMine(held, held.epoch)) this.#giveWay(request.uuid, request.to);
    });
  }

  /** Where the volume is served: here, there, or nowhere yet (then it is asked for). */
  where(uuid: string): { gateway: Gateway } | { at: AttachmentRecord } | null {
    const held = this.#parts.state().attachments[uuid];
    const gateway = this.local(uuid);
    if (gateway !== undefined) return { gateway };
    const mine = held !== undefined && held.brick === this.#parts.self;
    if (held !== undefined && !mine && this.answers(held)) return { at: held };
    if (!mine || held.boot !== this.#parts.boot() || this.#fenced.has(held.epoch)) {
      this.#attach(uuid, held);
    }
    return null;
  }

  /** The gateway of an attachment that this boot of this brick holds, and does not give away. */
  local(uuid: string): Gateway | undefined {
    const held = this.#parts.state().attachments[uuid];
    let gateway = this.#gateways.get(uuid);
    if (held === undefined || !this.#isMine(held, held.epoch) || this.#fenced.has(held.epoch)) {
      return undefined;
    }
    if (this.#giving.has(uuid)) return undefined;
    if (gateway !== undefined && gateway.epoch !== held.epoch) {
      this.#end(uuid, "unavailable");
      gateway = undefined;
    }
    if (gateway === undefined && !this.#closed) {
      const volumes = Object.values(this.#parts.state().volumes);
      const volume = volumes.find((one) => one.uuid === uuid);
      if (volume?.status !== "ready" || !this.#parts.isReady(volume)) return undefined;
      gateway = this.#parts.makeGateway(volume, held.epoch);
      this.#gateways.set(uuid, gateway);
    }
    return gateway;
  }

  /** The gateway that there is, even while it is given away. */
  existing(uuid: string): Gateway | undefined {
    return this.#gateways.get(uuid);
  }

  ofBranch(branch: number): Gateway | undefined {
    for (const gateway of this.#gateways.values()) {
      if (gateway.volume().branch === branch) return gateway;
    }
    return undefined;
  }

  answers(held: AttachmentRecord): boolean {
    return isHeld(this.#parts.state(), held);
  }

  isServed(uuid: string): boolean {
    const held = this.#parts.state().attachments[uuid];
    return held !== undefined && this.answers(held);
  }

  /** For ALUA: every port that may come back, and how the volume is reached there. */
  ports(uuid: string): VolumePort[] {
    const state = this.#parts.state();
    const { self } = this.#parts;
    // Nobody serves it: whoever is asked first will.
    const optimized = this.isServed(uuid) ? state.attachments[uuid]!.brick : self;
    return Object.values(state.bricks)
      .filter(({ status }) => status !== "removed" && status !== "failed")
      .map((brick) => ({
        targetPort: brick.number,
        state: !isReachable(brick)
          ? "unavailable"
          : brick.number === optimized
            ? "optimized"
            : "nonOptimized",
      }));
  }

  /** Does the next thing by which the volume comes to be served there; true when it is. */
  moveOn(uuid: string, to: BrickNumber): boolean {
    const { self, boot, calls, state } = this.#parts;
    const held = state().attachments[uuid];
    const heir = brickOf(state(), to);
    if (heir === undefined || !isReachable(heir)) return false;
    if (held?.brick === to && held.boot === heir.boot) return true;
    if (held !== undefined && this.answers(held)) {
      calls.tell(held.brick, messageType.volumeMove, encodeMove({ uuid, epoch: held.epoch, to }));
    } else {
      const by = { brick: self, boot: boot() };
      this.#ask(uuid, { brick: to, boot: heir.boot, expectEpoch: held?.epoch ?? 0, by });
    }
    return false;
  }

  onState(state: ClusterState): void {
    const byUuid = new Map(Object.values(state.volumes).map((volume) => [volume.uuid, volume]));
    for (const [uuid, gateway] of this.#gateways) {
      const volume = byUuid.get(uuid);
      if (volume === undefined || volume.status !== "ready") this.#end(uuid, "deleted");
      // Another one under the same epoch would use its sequences again: the next takes a new epoch.
      else if (!this.#parts.hasKey(volume)) this.onFenced(gateway.epoch);
      else if (!this.#isMine(state.attachments[uuid], gateway.epoch))
        this.#end(uuid, "unavailable");
      else gateway.onState(volume);
    }
    this.#leave(state);
  }

  onFenced(epoch: number): void {
    this.#fenced.add(epoch);
    for (const [uuid, gateway] of this.#gateways) {
      if (gateway.epoch === epoch) this.#end(uuid, "unavailable");
    }
  }

  close(): void {
    this.#closed = true;
    for (const uuid of [...this.#gateways.keys()]) this.#end(uuid, "unavailable");
  }

  #isMine(held: AttachmentRecord | undefined, epoch: number): boolean {
    const { self, boot } = this.#parts;
    return held?.brick === self && held.boot === boot() && held.epoch === epoch;
  }

  #attach(uuid: string, held: AttachmentRecord | undefined): void {
    if (!this.#parts.leaseValid()) return;
    const volume = Object.values(this.#parts.state().volumes).find((one) => one.uuid === uuid);
    // One that can serve it shall have it.
    if (volume === undefined || !this.#parts.isReady(volume)) return;
    const me = { brick: this.#parts.self, boot: this.#parts.boot() };
    this.#ask(uuid, { ...me, expectEpoch: held?.epoch ?? 0, by: me });
  }

  #ask(uuid: string, command: Omit<AttachCommand, "type" | "uuid">): void {
    if (this.#attaching.has(uuid) || this.#closed) return;
    this.#attaching.add(uuid);
    this.#parts.submit({ type: "attach", uuid, ...command }).then(() => {
      this.#parts.host.clock.after(attachAgainMs, () => this.#attaching.delete(uuid));
      this.#parts.wake();
    });
  }

  /** A draining brick hands what it serves to another. */
  #leave(state: ClusterState): void {
    if (brickOf(state, this.#parts.self)?.status !== "draining") return;
    const heir = Object.values(state.bricks).find((one) => one.status === "up" && one.reachable);
    if (heir === undefined) return;
    for (const uuid of this.#gateways.keys()) this.#giveWay(uuid, heir.number);
  }

  /** Begins nothing new, lets what is under way come to its end, and gives the attachment away. */
  async #giveWay(uuid: string, to: BrickNumber): Promise<void> {
    if (this.#giving.has(uuid) || this.#closed) return;
    this.#giving.add(uuid);
    const { clock } = this.#parts.host;
    const pause = (ms: number) => new Promise<void>((resolve) => void clock.after(ms, resolve));
    const untilMs = clock.nowMs() + giveWayMsMax;
    while (this.#gateways.get(uuid)?.isIdle() === false && clock.nowMs() < untilMs) {
      await pause(giveWayLookMs);
    }
    const held = this.#parts.state().attachments[uuid];
    const heir = brickOf(this.#parts.state(), to);
    if (held !== undefined && this.#isMine(held, held.epoch) && isReachable(heir)) {
      const { brick, boot, epoch: expectEpoch } = held;
      const by = { brick, boot };
      const there = { brick: to, boot: heir!.boot };
      await this.#parts.submit({ type: "attach", uuid, ...there, expectEpoch, by });
      // Its own state will say so in a moment; if it was refused, it serves on.
      await pause(attachAgainMs);
    }
    this.#giving.delete(uuid);
    this.#parts.wake();
  }

  #end(uuid: string, reason: EndReason): void {
    const gateway = this.#gateways.get(uuid);
    this.#gateways.delete(uuid);
    gateway?.end(reason);
  }
}
