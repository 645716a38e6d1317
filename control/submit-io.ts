import type { Host } from "../brick/host.ts";
import type { CallReply, Calls } from "../brick/rpc/calls.ts";
import { messageType } from "../brick/rpc/message-types.ts";
import type { BrickNumber } from "../brick/units.ts";
import type { CommandFault, CommandResult } from "./command-result.ts";
import {
  type Command,
  type CommandId,
  decodeEnvelope,
  type Envelope,
  encodeEnvelope,
  leaderOnly,
} from "./commands.ts";
import type { Proposals } from "./proposals-io.ts";
import type { RaftPort } from "./raft-port.ts";
import { submitWindowMax } from "./replicated-machine.ts";

/** A command is given up, its fate unknown, when no leader has answered for this long. */
export const submitTimeoutMs = 10_000;
export const submitsOutstandingMax = 128;
const askTimeoutMs = 2000;
const retryAfterMs = 50;

type Answer =
  | { type: "result"; result: CommandResult }
  /** Ask that brick (0: unknown), or here again after a while. */
  | { type: "elsewhere"; leader: BrickNumber };

/** Brings commands to the leader, wherever it is, each applied at most once. */
export class Submitter {
  readonly #host: Host;
  readonly #calls: Calls;
  readonly #self: { readonly brick: BrickNumber; readonly boot: number };
  readonly #raft: () => RaftPort;
  readonly #proposals: Proposals;
  readonly #timeMs: () => number;
  readonly #refusal: (id: CommandId, command: Command) => CommandFault | null;
  /** Sequences still waited for, in order. */
  readonly #outstanding = new Set<number>();
  #sequenceNext = 1;
  #closed = false;

  constructor(parts: {
    host: Host;
    calls: Calls;
    self: { brick: BrickNumber; boot: number };
    raft: () => RaftPort;
    proposals: Proposals;
    /** The leader's estimate of the cluster's time; 0 when it has none. */
    timeMs: () => number;
    /** Why the command must not be proposed for that brick now; null when it may. */
    refusal: (id: CommandId, command: Command) => CommandFault | null;
  }) {
    this.#host = parts.host;
    this.#calls = parts.calls;
    this.#self = parts.self;
    this.#raft = parts.raft;
    this.#proposals = parts.proposals;
    this.#timeMs = parts.timeMs;
    this.#refusal = parts.refusal;
  }

  /** Takes submissions of other bricks; to be called once Raft is there. */
  serve(): void {
    this.#calls.serve(messageType.propose, (from, body, reply) => {
      this.#serve(from, body).then((answer) => {
        if (answer !== null) reply([Buffer.from(JSON.stringify(answer))]);
      });
    });
  }

  /** Tries until the command is applied or refused, at most for `submitTimeoutMs`. */
  async submit(command: Command): Promise<CommandResult> {
    const id = this.#beginId();
    if (id === null) {
      return fault("limit", `${submitsOutstandingMax} commands are under way; try again later`);
    }
    const deadlineMs = this.#host.clock.nowMs() + submitTimeoutMs;
    let leader = this.#raft().leader();
    try {
      while (!this.#closed && this.#host.clock.nowMs() < deadlineMs) {
        const answer = await this.#ask(leader, { id, timeMs: 0, command });
        if (answer.type === "result") return answer.result;
        leader = answer.leader === leader ? this.#raft().leader() : answer.leader;
        await this.#pause();
        if (leader === 0) leader = this.#raft().leader();
      }
    } finally {
      this.#outstanding.delete(id.sequence);
    }
    const message = `${command.type}: no leader answered within ${submitTimeoutMs} ms; it may or may not take effect`;
    return fault("unavailable", message);
  }

  /** For the leader's own decisions: only if it leads, once, and never from elsewhere. */
  async decide(command: Command): Promise<CommandResult> {
    const id = this.#beginId();
    if (id === null) return fault("limit", "too many commands are under way");
    try {
      const result = await this.#propose(id, this.#timeMs(), command);
      return result ?? fault("unavailable", `${command.type}: this brick leads no more`);
    } finally {
      this.#outstanding.delete(id.sequence);
    }
  }

  close(): void {
    this.#closed = true;
  }

  async #ask(leader: BrickNumber, envelope: Envelope): Promise<Answer> {
    if (leader === this.#self.brick || this.#raft().isLeader()) {
      const answer = await this.#lead(this.#self.brick, envelope);
      return answer ?? { type: "elsewhere", leader: 0 };
    }
    if (leader === 0) return { type: "elsewhere", leader: 0 };
    const { promise, resolve } = Promise.withResolvers<CallReply>();
    const body = [encodeEnvelope(envelope)];
    this.#calls.call(leader, messageType.propose, body, askTimeoutMs, resolve);
    const reply = await promise;
    return (reply.ok ? decodeAnswer(reply.body) : null) ?? { type: "elsewhere", leader: 0 };
  }

  async #serve(from: BrickNumber, body: Buffer): Promise<Answer | null> {
    const decoded = decodeEnvelope(body);
    if (!decoded.ok) {
      return { type: "result", result: fault("bad_value", decoded.fault.message) };
    }
    return this.#lead(from, decoded.envelope);
  }

  /** Carries out a submission if this brick leads; null: its fate is not known yet. */
  async #lead(from: BrickNumber, { id, command }: Envelope): Promise<Answer | null> {
    const raft = this.#raft();
    if (!raft.isLeader()) return { type: "elsewhere", leader: raft.leader() };
    if (id === null || id.brick !== from) {
      return { type: "result", result: fault("bad_value", "a submission needs its own id") };
    }
    if (leaderOnly.has(command.type)) {
      const message = `${command.type} is decided by the leader alone`;
      return { type: "result", result: fault("leader_only", message) };
    }
    const timeMs = this.#timeMs();
    // A new leader does not know yet what was committed before it.
    if (timeMs === 0) return { type: "elsewhere", leader: 0 };
    const refusal = this.#refusal(id, command);
    if (refusal !== null) return { type: "result", result: { ok: false, fault: refusal } };
    const result = await this.#propose(id, timeMs, command);
    return result === null ? null : { type: "result", result };
  }

  /** As the leader that this brick is; the event log says when and under whom. */
  #propose(id: CommandId, timeMs: number, command: Command): Promise<CommandResult | null> {
    const wallMs = Math.max(0, Math.floor(this.#host.clock.wallMs()));
    const leader = this.#self.brick;
    return this.#proposals.propose({ id, timeMs, wallMs, leader, command });
  }

  #beginId(): CommandId | null {
    const [oldest] = this.#outstanding;
    const settled = oldest ?? this.#sequenceNext;
    const spread = this.#sequenceNext - settled;
    if (this.#outstanding.size >= submitsOutstandingMax || spread >= submitWindowMax) return null;
    const sequence = this.#sequenceNext;
    this.#sequenceNext += 1;
    this.#outstanding.add(sequence);
    return { ...this.#self, sequence, settled };
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => void this.#host.clock.after(retryAfterMs, resolve));
  }
}

function decodeAnswer(body: Buffer): Answer | null {
  try {
    const answer = JSON.parse(body.toString("utf8"));
    if (answer?.type === "elsewhere" && Number.isInteger(answer.leader)) return answer;
    if (answer?.type === "result" && typeof answer.result?.ok === "boolean") return answer;
  } catch {
    // Not an answer of ours: as good as none.
  }
  return null;
}

function fault(code: CommandFault["code"], message: string): CommandResult {
  return { ok: false, fault: { code, message } };
}
