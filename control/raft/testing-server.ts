import assert from "node:assert/strict";
import { Prng } from "../../brick/prng.ts";
import { encodeConfiguration } from "./configuration.ts";
import { createRaft, type Raft, step } from "./raft.ts";
import { defaultRaftTiming as timing } from "./raft-limits.ts";
import type {
  Entry,
  HardState,
  Hole,
  RaftEffect,
  RaftEvent,
  RaftMessage,
  Snapshot,
} from "./raft-types.ts";

/** Brick 1 with a log of the given terms, in a cluster of these voters. */
export class Server {
  readonly raft: Raft;
  nowMs = 0;
  sent: { to: number; message: RaftMessage }[] = [];
  effects: RaftEffect[] = [];
  #ticket = 0;

  constructor(options: {
    voters?: readonly number[];
    learners?: readonly number[];
    terms?: readonly number[];
    state?: Partial<HardState>;
    snapshot?: Snapshot;
    holes?: readonly number[];
  }) {
    const { voters = [1, 2, 3], learners = [], terms = [], state, snapshot, holes = [] } = options;
    const first = (snapshot?.index ?? 0) + 1;
    const configuration = { voters, learners };
    const bootstrap = snapshot === undefined ? [1, ...terms] : terms;
    const entries = bootstrap.map((term, at): Entry | Hole => {
      const index = first + at;
      if (holes.includes(index)) return { index, term };
      if (index === 1) {
        return { index, term, kind: "configuration", payload: encodeConfiguration(configuration) };
      }
      return command(index, term);
    });
    const term = Math.max(1, ...terms);
    const hardState = { term, votedFor: 0, healing: null, ...state };
    const loaded = { hardState, snapshot: snapshot ?? null, entries };
    this.raft = createRaft({ self: 1, loaded, timing, prng: new Prng(1), nowMs: 0 });
  }

  give(event: RaftEvent): RaftEffect[] {
    const effects = step(this.raft, this.nowMs, event);
    for (const effect of effects) {
      if (effect.type === "send") this.sent.push({ to: effect.to, message: effect.message });
      if (effect.type === "persist") this.#ticket = effect.ticket;
    }
    this.effects.push(...effects);
    return effects;
  }

  receive(from: number, message: RaftMessage): RaftEffect[] {
    return this.give({ type: "message", from, message });
  }

  /** Everything given to the store becomes durable. */
  flush(): void {
    while (this.raft.outbox.durableTicket < this.#ticket) {
      this.give({ type: "persisted", ticket: this.#ticket });
    }
  }

  take(): { to: number; message: RaftMessage }[] {
    const sent = this.sent;
    this.sent = [];
    return sent;
  }

  replies(): RaftMessage[] {
    return this.take().map(({ message }) => message);
  }

  wait(ms: number): void {
    this.nowMs += ms;
    if (this.nowMs >= this.raft.wakeAtMs) this.give({ type: "wake" });
  }

  /** Becomes leader of the next term by the vote of brick 2. */
  lead(): void {
    this.wait(timing.electionTimeoutMsMax + 1);
    const term = this.raft.term + 1;
    if (this.raft.role.name === "preCandidate") {
      this.receive(2, { type: "preVoteReply", term, granted: true });
    }
    this.flush();
    this.receive(2, { type: "voteReply", term, granted: true });
    assert.equal(this.raft.role.name, "leader");
    this.take();
  }

  acknowledge(from: number, index: number): void {
    const { term } = this.raft;
    const nothing = { hintIndex: 0, hintTerm: 0, healing: false };
    this.receive(from, { type: "appendReply", term, ok: true, index, ...nothing });
  }
}

export function command(index: number, term: number): Entry {
  return { index, term, kind: "command", payload: Buffer.from(`${index}.${term}`) };
}

export function append(term: number, previous: [number, number], terms: number[], commitIndex = 0) {
  const [previousIndex, previousTerm] = previous;
  const entries = terms.map((one, at) => command(previousIndex + 1 + at, one));
  return { type: "append", term, previousIndex, previousTerm, commitIndex, entries } as const;
}

export function vote(term: number, last: [number, number], transfer = false) {
  const [lastIndex, lastTerm] = last;
  return { type: "vote", term, lastIndex, lastTerm, transfer } as const;
}

export function terms(raft: Raft): (number | null)[] {
  const out: (number | null)[] = [];
  for (let index = raft.log.baseIndex + 1; index <= raft.log.lastIndex; index += 1) {
    out.push(raft.log.termAt(index));
  }
  return out;
}
