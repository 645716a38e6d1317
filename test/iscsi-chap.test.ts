import assert from "node:assert/strict";
import { test } from "node:test";
import type { Proof } from "../iscsi/authority.ts";
import {
  type ChapLogin,
  type ChapNumber,
  chapHashes,
  loginWithChap,
} from "./exchanges/chap-login.ts";
import { discovery, enter, host, normal, openPlace, status } from "./exchanges/place.ts";

/**
 * CHAP over real connections, with an initiator of our own: what newer versions of libiscsi's suite
 * examine (its algorithms, offers that make no sense), and what RFC 7143 §9.2.1 forbids.
 */

const secret = "a secret of 22 letters";

/** The numbers as an account lists them, strongest first. */
const strongestFirst: readonly ChapNumber[] = [8, 7, 6, 5];

function chap(options: Partial<{ algorithms: readonly number[]; mutual: boolean }> = {}): Proof {
  return {
    method: "chap",
    account: {
      user: "host",
      secret: Buffer.from(secret),
      algorithms: options.algorithms ?? strongestFirst,
      mutual: options.mutual
        ? { user: "target", secret: Buffer.from("what the target knows") }
        : null,
    },
  };
}

const proper: ChapLogin = { names: normal, user: "host", secret, algorithms: "5" };

for (const algorithm of strongestFirst) {
  test(`CHAP with ${chapHashes[algorithm]}: the right secret opens, a wrong one does not`, async (context) => {
    const { authority, initiator } = await openPlace(context);
    authority.proofs.set(host, chap());
    const login = { ...proper, algorithms: String(algorithm) };
    const right = initiator();
    const proven = await loginWithChap(right, login);
    assert.deepEqual([proven.status, proven.algorithm], [status.success, algorithm]);
    assert.equal(await enter(right, [["MaxRecvDataSegmentLength", "65536"]]), status.success);
    const ready = { cdb: Buffer.alloc(6) };
    assert.equal((await right.command(ready)).sense, "6/29/00");
    assert.equal((await right.command(ready)).status, 0);

    const wrong = await loginWithChap(initiator(1, "800000000002"), {
      ...login,
      secret: `${secret}.`,
    });
    assert.equal(wrong.status, status.authenticationFailed);
    const stranger = await loginWithChap(initiator(1, "800000000003"), { ...login, user: "hose" });
    assert.equal(stranger.status, status.authenticationFailed);
  });
}

test("CHAP: of several algorithms the strongest that the account allows", async (context) => {
  const { authority, initiator } = await openPlace(context);
  authority.proofs.set(host, chap());
  for (const [offered, chosen] of [
    ["8,7,6,5", 8],
    ["7,5", 7],
    ["5,6,7,8", 8],
    ["9,6,200", 6],
  ] as const) {
    const outcome = await loginWithChap(initiator(), { ...proper, algorithms: offered });
    assert.deepEqual([outcome.status, outcome.algorithm], [status.success, chosen], offered);
  }
});

test("CHAP: algorithms that nobody knows, and those that the account has ruled out", async (context) => {
  const { authority, initiator } = await openPlace(context);
  authority.proofs.set(host, chap({ algorithms: [8, 7] }));
  for (const algorithms of ["", "56", "9", "05", "5", "5,6", "5;7"]) {
    const outcome = await loginWithChap(initiator(), { ...proper, algorithms });
    // 0200: the initiator's error; 0201: it could not prove itself. In no case is it let in.
    assert.ok([0x0200, 0x0201].includes(outcome.status), `${algorithms}: ${outcome.status}`);
  }
});

test("CHAP cannot be walked around", async (context) => {
  const { authority, initiator } = await openPlace(context);
  authority.proofs.set(host, chap());
  // Straight to the operational stage.
  assert.equal(await enter(initiator(), normal), status.authenticationFailed);
  // No method but None.
  const security = { currentStage: 0, nextStage: 1 };
  const none = await initiator().login({ ...security, keys: [...normal, ["AuthMethod", "None"]] });
  assert.equal(none.status, status.authenticationFailed);
  // Asks to go on before it has proven anything.
  const early = initiator();
  const first = await early.login({ ...security, keys: [...normal, ["AuthMethod", "None,CHAP"]] });
  assert.deepEqual([first.status, first.transits], [status.success, false]);
  assert.equal(first.keys.get("AuthMethod"), "CHAP");
  const second = await early.login({ currentStage: 1, nextStage: 3, keys: [] });
  assert.notEqual(second.status, status.success);
  // Discovery asks for the same.
  assert.equal(await enter(initiator(), discovery), status.authenticationFailed);
  const browsing = initiator();
  const proven = await loginWithChap(browsing, { ...proper, names: discovery, algorithms: "7" });
  assert.equal(proven.status, status.success);
  assert.equal(await enter(browsing, []), status.success);
});

test("CHAP tells a stranger nothing that it would not tell a friend", async (context) => {
  const { authority, initiator } = await openPlace(context);
  authority.proofs.set(host, chap());
  authority.proofOfOthers = { method: "chap", account: null };
  const names = [["InitiatorName", "iqn.2026-11.test:nobody"], ...normal.slice(1)] as const;
  const stranger = await loginWithChap(initiator(), { ...proper, names, algorithms: "8,7,6,5" });
  const friend = await loginWithChap(initiator(), {
    ...proper,
    secret: "wrong",
    algorithms: "8,7,6,5",
  });
  assert.equal(stranger.status, status.authenticationFailed);
  assert.equal(friend.status, stranger.status);
  assert.equal(friend.algorithm, stranger.algorithm);
  assert.equal(friend.challenge.length, stranger.challenge.length);
  assert.notEqual(friend.challenge, stranger.challenge);
});

test("mutual CHAP: the target proves itself, and never with the initiator's challenge in its mouth", async (context) => {
  const { authority, initiator } = await openPlace(context);
  authority.proofs.set(host, chap({ mutual: true }));
  const mutual = { user: "target", secret: "what the target knows" };
  for (const algorithm of strongestFirst) {
    const login = { ...proper, algorithms: String(algorithm), mutual };
    const outcome = await loginWithChap(initiator(), login);
    assert.deepEqual([outcome.status, outcome.targetProven], [status.success, true]);
  }
  // RFC 7143 §9.2.1: its own challenge coming back ends the login.
  const reflected = await loginWithChap(initiator(), { ...proper, reflects: true });
  assert.notEqual(reflected.status, status.success);
});

test("CHAP_R in hex of either case and in base64", async (context) => {
  const { authority, initiator } = await openPlace(context);
  authority.proofs.set(host, chap());
  for (const encoding of ["hex", "HEX", "base64"] as const) {
    const outcome = await loginWithChap(initiator(), { ...proper, algorithms: "7", encoding });
    assert.equal(outcome.status, status.success, encoding);
  }
});
