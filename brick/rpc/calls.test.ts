import assert from "node:assert/strict";
import { test } from "node:test";
import type { Host, Message } from "../host.ts";
import type { BrickNumber } from "../units.ts";
import { type CallReply, Calls, type Reply } from "./calls.ts";
import { type Wire, Words } from "./words.ts";

const type = 40;

/** One start of a brick, whose messages are handed over by hand. */
class Start {
  readonly calls: Calls;
  readonly sent: { to: BrickNumber; message: Message }[] = [];
  readonly brick: BrickNumber;
  readonly boot: number;
  #receiver: (from: BrickNumber, message: Message) => void = () => {};

  constructor(brick: BrickNumber, boot: number, wallMs = 1_700_000_000_000) {
    this.brick = brick;
    this.boot = boot;
    this.calls = new Calls(
      {
        clock: { nowMs: () => 0, wallMs: () => wallMs, after: () => ({ cancel: () => {} }) },
        network: {
          send: (to: BrickNumber, message: Message) => void this.sent.push({ to, message }),
          onMessage: (receiver: (from: BrickNumber, message: Message) => void) => {
            this.#receiver = receiver;
          },
        },
      } as unknown as Host,
      brick,
    );
  }

  /** Takes what the other one sent last. */
  take(from: Start): void {
    const { message } = from.sent.pop()!;
    this.#receiver(from.brick, { ...message, boot: from.boot });
  }

  ask(text: string): { reply: CallReply | null } {
    const asked: { reply: CallReply | null } = { reply: null };
    this.calls.call(2, type, [Buffer.from(text)], 1000, (reply) => {
      asked.reply = reply;
    });
    return asked;
  }
}

/** A server that answers when it is told to. */
function server(): { start: Start; answers: (() => void)[] } {
  const start = new Start(2, 1);
  const answers: (() => void)[] = [];
  start.calls.serve(type, (_from, body, reply) => {
    answers.push(() => reply([Buffer.from(`done: ${body}`)]));
  });
  return { start, answers };
}

test("a request is answered once, to whoever asked", () => {
  const { start, answers } = server();
  const asker = new Start(4, 1);
  const asked = asker.ask("write");
  start.take(asker);
  answers[0]!();
  asker.take(start);
  assert.ok(asked.reply?.ok && asked.reply.body.toString() === "done: write");
});

test("an answer to an earlier start is sent to nobody once the next one was heard", () => {
  const { start, answers } = server();
  const before = new Start(4, 1);
  before.ask("old");
  start.take(before);
  // By an unlucky clock it has the same numbers.
  const after = new Start(4, 2);
  const asked = after.ask("new");
  start.take(after);
  answers[0]!();
  assert.equal(start.sent.length, 0);
  answers[1]!();
  after.take(start);
  assert.ok(asked.reply?.ok && asked.reply.body.toString() === "done: new");
});

test("and before it was heard, it is no answer to anything that the next start has asked", () => {
  const { start, answers } = server();
  const before = new Start(4, 1);
  for (let count = 0; count < 100; count += 1) {
    before.ask(`old ${count}`);
    start.take(before);
  }
  const after = new Start(4, 2, 1_700_000_000_001);
  const asked = Array.from({ length: 100 }, (_, count) => after.ask(`new ${count}`));
  for (const answer of answers) {
    answer();
    after.take(start);
  }
  assert.ok(asked.every(({ reply }) => reply === null));
});

const texts: Wire<{ text: string }> = {
  encode: ({ text }) => [Buffer.from(text)],
  decode: (body) => (body.length === 0 ? null : { text: body.toString() }),
};

/** A server of words, and what it was told. */
function listener(brick: BrickNumber): { start: Start; heard: unknown[]; reply: () => Reply } {
  const start = new Start(brick, 1);
  const heard: unknown[] = [];
  let answer: Reply | null = null;
  start.calls.serveData(type, (_from, received, reply) => {
    heard.push(received.read(texts), received.body.toString());
    answer = reply;
  });
  return { start, heard, reply: () => answer! };
}

test("what a brick says to itself it hears as it stands, and others as bytes", () => {
  for (const brick of [2, 4]) {
    const { start, heard, reply } = listener(brick);
    const asker = brick === 2 ? start : new Start(2, 1);
    const said = { text: "write" };
    const answered = { text: "done" };
    let answer: { text: string } | null = null;
    asker.calls.call(brick, type, new Words(texts, said), 1000, (received) => {
      answer = received.ok ? received.read(texts) : null;
    });
    start.take(asker);
    assert.deepEqual(heard, [said, "write"]);
    assert.equal(heard[0] === said, brick === 2);
    reply()(new Words(texts, answered));
    asker.take(start);
    assert.deepEqual(answer, answered);
    assert.equal(answer === answered, brick === 2);
  }
});

test("who reads words as something else reads their bytes", () => {
  const { start } = listener(2);
  const lengths: Wire<number> = { encode: () => [], decode: (body) => body.length };
  let length: number | null = null;
  start.calls.serveData(type + 1, (_from, received) => {
    length = received.read(lengths);
  });
  start.calls.call(2, type + 1, new Words(texts, { text: "write" }), 1000, () => {});
  start.take(start);
  assert.equal(length, 5);
});
