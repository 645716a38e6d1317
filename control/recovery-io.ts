import { brickOf, type ClusterState, isReachable } from "../brick/cluster-state.ts";
import type { Host } from "../brick/host.ts";
import type { CallReply, Calls } from "../brick/rpc/calls.ts";
import { messageType } from "../brick/rpc/message-types.ts";
import type { BrickNumber } from "../brick/units.ts";
import type { CommandResult } from "./command-result.ts";
import type { Command } from "./commands.ts";
import type { MapControl } from "./map-control.ts";
import { chainBricks } from "./shard-commands.ts";
import { replicasAfterRecovery } from "./view-planner.ts";

/** Shards recovered at the same time; the others wait for the next round of planning. */
export const recoveriesMax = 8;
const reportTimeoutMs = 3000;
const assembleMsMax = 120_000;
/** The request, or its answer, may be lost: it is sent again, and whoever is at it goes on with it. */
const assembleAskMs = 3000;
const retryAfterMs = 300;
const reportHeaderBytes = 16;

interface RecoveryParts {
  host: Host;
  calls: Calls;
  map: MapControl;
  state(): ClusterState;
  decide(command: Command): Promise<CommandResult>;
  /** Planning may go on. */
  wake(): void;
}

/**
 * The requests of a recovery, version 1, big-endian, 16 bytes, then the plan (shardAssemble only):
 *   version[1]=1 zero[3] shard[4] view[8]
 * The replies: one byte, 1 = done, 0 = cannot; then the report (shardReport only).
 */
export function encodeRecoveryRequest(shard: number, view: number): Buffer {
  const header = Buffer.alloc(reportHeaderBytes);
  header.writeUInt8(1, 0);
  header.writeUInt32BE(shard, 4);
  header.writeBigUInt64BE(BigInt(view), 8);
  return header;
}

export function decodeRecoveryRequest(
  body: Buffer,
): { shard: number; view: number; plan: Buffer } | null {
  if (body.length < reportHeaderBytes || body.readUInt8(0) !== 1) return null;
  const view = Number(body.readBigUInt64BE(8));
  if (!Number.isSafeInteger(view)) return null;
  return { shard: body.readUInt32BE(4), view, plan: body.subarray(reportHeaderBytes) };
}

/** Answers for this brick's replicas. */
export function serveRecovery(calls: Calls, map: MapControl): void {
  calls.serve(messageType.shardReport, (_from, body, reply) => {
    const request = decodeRecoveryRequest(body);
    if (request === null) return;
    map.report(request.shard, request.view).then(
      (report) => reply(report === null ? [Buffer.of(0)] : [Buffer.of(1), report]),
      () => reply([Buffer.of(0)]),
    );
  });
  calls.serve(messageType.shardAssemble, (_from, body, reply) => {
    const request = decodeRecoveryRequest(body);
    if (request === null) return;
    map.assemble(request.shard, request.view, request.plan).then(
      (done) => reply([Buffer.of(done ? 1 : 0)]),
      () => reply([Buffer.of(0)]),
    );
  });
}

/** The leader's side: gathers reports, has the union made, and begins the view on it. */
export class Recoveries {
  readonly #parts: RecoveryParts;
  /** Shards under recovery, or resting after one that did not succeed. */
  readonly #busy = new Set<number>();
  /** The last reason said per shard, so that it is logged once. */
  readonly #said = new Map<number, string>();

  constructor(parts: RecoveryParts) {
    this.#parts = parts;
  }

  begin(shard: number, view: number, bricks: readonly BrickNumber[]): void {
    if (this.#busy.has(shard) || this.#busy.size >= recoveriesMax) return;
    this.#busy.add(shard);
    const { host, wake } = this.#parts;
    this.#recover(shard, view, bricks).then((fault) => {
      if (fault !== null && this.#said.get(shard) !== fault) {
        host.log(`shard ${shard} is unavailable: ${fault}`);
        this.#said.set(shard, fault);
      }
      if (fault === null) this.#said.delete(shard);
      host.clock.after(fault === null ? 0 : retryAfterMs, () => {
        this.#busy.delete(shard);
        wake();
      });
    });
  }

  /** Why it did not succeed; null: the shard is led again. */
  async #recover(
    number: number,
    view: number,
    bricks: readonly BrickNumber[],
  ): Promise<string | null> {
    const { map, decide } = this.#parts;
    const request = encodeRecoveryRequest(number, view + 1);
    const reports = new Map<BrickNumber, Buffer>();
    await Promise.all(
      bricks.map(async (brick) => {
        const report = await this.#report(brick, request);
        if (report !== null) reports.set(brick, report);
      }),
    );
    // The world has moved meanwhile: a view may have been found without us.
    const state = this.#parts.state();
    const shard = state.shards[number];
    if (shard === undefined || shard.view !== view) return null;
    const everyoneReported = chainBricks(shard).every(
      (brick) => reports.has(brick) || isGivenUp(state, brick),
    );
    const chain = [...shard.chain, shard];
    const { damaged = [] } = shard;
    const about = { shard: number, view: view + 1, chain, damaged };
    const plan = map.planUnion({ ...about, reports, everyoneReported });
    if (!plan.ok) return plan.reason;
    const primary = plan.brick;
    const made = await this.#assemble(primary, [request, plan.plan]);
    if (!made) return `brick ${primary} could not gather the union`;
    const result = await decide({
      type: "changeView",
      shard: number,
      expect: view,
      primary,
      members: [primary],
      ...replicasAfterRecovery(this.#parts.state(), number, primary),
      completed: [],
      released: false,
      recovery: true,
    });
    return result.ok ? null : result.fault.message;
  }

  async #report(brick: BrickNumber, request: Buffer): Promise<Buffer | null> {
    const reply = await this.#call(brick, messageType.shardReport, [request], reportTimeoutMs);
    return reply.ok && reply.body[0] === 1 ? reply.body.subarray(1) : null;
  }

  async #assemble(primary: BrickNumber, parts: readonly Buffer[]): Promise<boolean> {
    const { clock } = this.#parts.host;
    const endMs = clock.nowMs() + assembleMsMax;
    for (;;) {
      const reply = await this.#call(primary, messageType.shardAssemble, parts, assembleAskMs);
      if (reply.ok) return reply.body[0] === 1;
      if (clock.nowMs() >= endMs || !isReachable(brickOf(this.#parts.state(), primary)))
        return false;
    }
  }

  #call(
    to: BrickNumber,
    type: number,
    body: readonly Buffer[],
    timeoutMs: number,
  ): Promise<CallReply> {
    const { promise, resolve } = Promise.withResolvers<CallReply>();
    this.#parts.calls.call(to, type, body, timeoutMs, resolve);
    return promise;
  }
}

function isGivenUp(state: ClusterState, number: BrickNumber): boolean {
  const status = brickOf(state, number)?.status;
  return status === undefined || status === "failed" || status === "removed";
}
