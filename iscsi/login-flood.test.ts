import assert from "node:assert/strict";
import { test } from "node:test";
import { Audit } from "./audit.ts";
import { encodeBinary } from "./chap.ts";
import {
  account,
  ChapInitiator,
  guardedNode,
  initiatorName,
  secret,
  target,
  targetSecret,
} from "./chap-initiator.test-double.ts";
import { loginWaitMsMax } from "./limits.ts";
import type { TextPair } from "./text-keys.ts";

test("10,000 wrong logins from 60 addresses keep no right one waiting for a second", async () => {
  const mutual = { user: "the-target", secret: targetSecret };
  const node = guardedNode(account({ mutual }));
  const lines: string[] = [];
  Object.assign(node, { audit: new Audit((line) => lines.push(line)) });
  const others = "iqn.2026-11.test:other";
  node.authority.proofs.set(others, { method: "chap", account: account() });
  const waits: number[] = [];
  /** Sends a whole proof and notes how long its answer takes, if it is the right one. */
  const start = (name: string, address: string, given: Buffer, isRight: boolean) => {
    const initiator = new ChapInitiator(node, name, target, address);
    const response = encodeBinary(initiator.response(given));
    const isid = Buffer.from("800000000001", "hex");
    const sentMs = node.clock.ms;
    const proof: TextPair[] = [
      ["CHAP_N", "alice"],
      ["CHAP_R", response],
    ];
    initiator.sendLogin(proof, { currentStage: 0, isid, transit: true, nextStage: 1 });
    return () => {
      if (initiator.connection.outbox.bytes === 0) return false;
      const { status } = initiator.answered();
      if (isRight && status === 0) waits.push(node.clock.ms - sentMs);
      else assert([0x0201, 0x0301].includes(status), `status ${status}`);
      assert(!isRight || status !== 0x0201);
      initiator.lose();
      return true;
    };
  };
  let open: (() => boolean)[] = [];
  let rights = 0;
  for (let at = 0; at < 10_000; at += 1) {
    const address = `127.0.0.${1 + (at % 60)}`;
    // Half guess a known name, half names that do not exist.
    const name = at % 2 === 0 ? initiatorName : `iqn.2026-11.test:n${at % 500}`;
    open.push(start(name, address, targetSecret, false));
    if (at % 100 === 99) {
      open.push(start(initiatorName, "127.0.0.200", secret, true));
      open.push(start(others, address, secret, true));
      rights += 2;
    }
    open = open.filter((isAnswered) => !isAnswered());
    node.clock.advance(1);
  }
  assert.equal(waits.length, rights);
  assert.equal(Math.max(...waits), 0);
  node.clock.advance(loginWaitMsMax);
  assert(open.every((isAnswered) => isAnswered()));
  assert(lines.length < 32 + 12 * 4, `${lines.length} lines`);
  assert(node.throttle.size < 1000);
});
