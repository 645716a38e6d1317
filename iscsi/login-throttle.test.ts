import assert from "node:assert/strict";
import { test } from "node:test";
import { Audit } from "./audit.ts";
import {
  auditBurst,
  auditLinesPerSecond,
  loginPenaltiesMax,
  loginPenaltyForgottenMs,
  loginPenaltyFreeFailures,
  loginPenaltyMs,
  loginPenaltyMsMax,
  loginWaitMsMax,
} from "./limits.ts";
import { LoginThrottle } from "./login-throttle.ts";

const address = "192.0.2.1";
const name = "iqn.2026-11.test:guesser";

function failing(times: number): LoginThrottle {
  const throttle = new LoginThrottle();
  for (let at = 0; at < times; at += 1) throttle.failed(address, name, 0);
  return throttle;
}

test("the first failures cost nothing, further ones double the wait up to the most", () => {
  assert.equal(failing(loginPenaltyFreeFailures).delayMs(address, name, 0), 0);
  assert.equal(failing(loginPenaltyFreeFailures + 1).delayMs(address, name, 0), loginPenaltyMs);
  assert.equal(failing(loginPenaltyFreeFailures + 2).delayMs(address, name, 0), loginPenaltyMs * 2);
  assert.equal(failing(100).delayMs(address, name, 0), loginPenaltyMsMax);
});

test("proofs of one pair queue up, and what would wait too long is not examined", () => {
  const throttle = failing(100);
  const delays: (number | null)[] = [];
  for (let at = 0; at < 4; at += 1) delays.push(throttle.delayMs(address, name, 0));
  assert.deepEqual(delays.slice(0, 2), [loginPenaltyMsMax, 2 * loginPenaltyMsMax]);
  assert.equal(delays[3], null);
  assert(delays.every((delay) => delay === null || delay <= loginWaitMsMax));
});

test("neither another name nor another address waits", () => {
  const throttle = failing(100);
  assert.equal(throttle.delayMs(address, `${name}2`, 0), 0);
  assert.equal(throttle.delayMs("192.0.2.2", name, 0), 0);
});

test("success and time forgive", () => {
  const throttle = failing(100);
  assert.equal(throttle.delayMs(address, name, loginPenaltyForgottenMs + 1), 0);
  const other = failing(100);
  other.succeeded(address, name);
  assert.equal(other.delayMs(address, name, 0), 0);
});

test("no more pairs are remembered than the limit says", () => {
  const throttle = new LoginThrottle();
  for (let at = 0; at < loginPenaltiesMax + 100; at += 1) {
    throttle.failed(`198.51.100.${at}`, name, 0);
  }
  assert.equal(throttle.size, loginPenaltiesMax);
});

test("the audit log has each line, then some, which count the rest", () => {
  const lines: string[] = [];
  const audit = new Audit((line) => lines.push(line));
  for (let at = 0; at < auditBurst + 10; at += 1) audit.line(`line ${at}`, 0);
  assert.equal(lines.length, auditBurst);
  audit.line("later", 1000 / auditLinesPerSecond);
  assert.equal(lines.at(-1), "later (10 more lines were left out)");
  audit.line("at once", 1000 / auditLinesPerSecond);
  assert.equal(lines.length, auditBurst + 1);
});
