import assert from "node:assert/strict";
import { test } from "node:test";
import { chapResponse, decodeBinary, encodeBinary } from "./chap.ts";
import {
  account,
  ChapInitiator,
  guardedNode,
  initiatorName,
  secret,
  target,
  targetSecret,
} from "./chap-initiator.test-double.ts";
import { settled, TestInitiator, type TestNode, testNode } from "./initiator.test-double.ts";
import { loginPenaltyFreeFailures, loginPenaltyMs } from "./limits.ts";
import { MemoryVolume, memoryDirectory } from "./memory-volume.test-double.ts";
import { scsiCommand } from "./pdu.ts";
import type { TextPair } from "./text-keys.ts";

for (const [offered, accepted, chosen] of [
  ["5", [8, 7, 6, 5], 5],
  ["5,6", [8, 7, 6, 5], 6],
  ["5,7,6", [8, 7, 6, 5], 7],
  ["7,8,5", [8, 7], 8],
] as const) {
  test(`CHAP with ${offered} offered and ${accepted} accepted: algorithm ${chosen}`, () => {
    const initiator = new ChapInitiator(guardedNode(account({ algorithms: accepted })));
    const { algorithm, id, challenge } = initiator.challenged(offered);
    assert.equal(algorithm, chosen);
    const response = encodeBinary(chapResponse(algorithm, id, secret, challenge));
    const proven = initiator.ask(
      [
        ["CHAP_N", "alice"],
        ["CHAP_R", response],
      ],
      true,
    );
    assert.equal(proven.status, 0);
    assert.equal(proven.values.transit, true);
    assert.equal(initiator.enter().status, 0);
    assert.equal(initiator.connection.phase, "full");
  });
}

test("CHAP in base64, and mutual: the target proves itself", () => {
  const mutual = { user: "the-target", secret: targetSecret };
  const node = guardedNode(account({ mutual }));
  const initiator = new ChapInitiator(node);
  const response = initiator.response();
  const challenge = Buffer.alloc(24, 0xa5);
  const { status, text } = initiator.ask(
    [
      ["CHAP_N", "alice"],
      ["CHAP_R", `0b${response.toString("base64")}`],
      ["CHAP_I", "255"],
      ["CHAP_C", `0B${challenge.toString("base64")}`],
    ],
    true,
  );
  assert.equal(status, 0);
  assert.equal(text.get("CHAP_N"), "the-target");
  const expected = chapResponse(8, 255, targetSecret, challenge);
  assert.deepEqual(decodeBinary(text.get("CHAP_R")!), expected);
  assert.equal(initiator.enter().status, 0);
  assert.equal(node.challenges.size, 0, "its challenge is void");
});

test("a discovery session proves itself like a normal one", () => {
  const node = guardedNode(account());
  assert.equal(new ChapInitiator(node, initiatorName, "").prove().status, 0);
  const wrong = new ChapInitiator(node, initiatorName, "").prove({ secret: targetSecret });
  assert.equal(wrong.status, 0x0201);
});

const counter: TextPair[] = [
  ["CHAP_I", "1"],
  ["CHAP_C", encodeBinary(Buffer.alloc(16, 7))],
];
const refusals: [string, (node: TestNode) => { status: number }, number][] = [
  ["a wrong secret", (node) => new ChapInitiator(node).prove({ secret: targetSecret }), 0x0201],
  ["a wrong user", (node) => new ChapInitiator(node).prove({ user: "alice2" }), 0x0201],
  ["another case of the user", (node) => new ChapInitiator(node).prove({ user: "Alice" }), 0x0201],
  [
    "a user with 0x before it",
    (node) => new ChapInitiator(node).prove({ user: "0xalice" }),
    0x0201,
  ],
  [
    "weaker than the account accepts",
    (node) => new ChapInitiator(node).prove({ algorithms: "5,6" }),
    0x0201,
  ],
  ["an unknown initiator", (node) => new ChapInitiator(node, "iqn.2026-11.test:b").prove(), 0x0201],
  [
    "a proof of the target where there is none",
    (node) => new ChapInitiator(node).prove({ extra: counter }),
    0x0201,
  ],
  ["CHAP_I alone", (node) => new ChapInitiator(node).prove({ extra: [["CHAP_I", "1"]] }), 0x0207],
  ["CHAP_C alone", (node) => new ChapInitiator(node).prove({ extra: [counter[1]!] }), 0x0207],
  [
    "CHAP_I beyond a byte",
    (node) => new ChapInitiator(node).prove({ extra: [["CHAP_I", "256"], counter[1]!] }),
    0x0200,
  ],
  [
    "a short CHAP_C",
    (node) => new ChapInitiator(node).prove({ extra: [counter[0]!, ["CHAP_C", "0x00"]] }),
    0x0200,
  ],
  [
    "a long CHAP_C",
    (node) =>
      new ChapInitiator(node).prove({ extra: [counter[0]!, ["CHAP_C", `0x${"00".repeat(1025)}`]] }),
    0x0200,
  ],
  [
    "no algorithm that is known",
    (node) => {
      const initiator = new ChapInitiator(node);
      initiator.ask([...initiator.who, ["AuthMethod", "CHAP"]]);
      return initiator.ask([["CHAP_A", "1,2"]]);
    },
    0x0201,
  ],
  [
    "no CHAP_A",
    (node) => {
      const initiator = new ChapInitiator(node);
      initiator.ask([...initiator.who, ["AuthMethod", "CHAP"]]);
      return initiator.ask([["CHAP_N", "alice"]]);
    },
    0x0207,
  ],
  [
    "no CHAP_R",
    (node) => {
      const initiator = new ChapInitiator(node);
      initiator.challenged();
      return initiator.ask([["CHAP_N", "alice"]]);
    },
    0x0207,
  ],
  [
    "no CHAP_N",
    (node) => {
      const initiator = new ChapInitiator(node);
      return initiator.ask([["CHAP_R", encodeBinary(initiator.response())]]);
    },
    0x0207,
  ],
  [
    "a response that is no binary",
    (node) => {
      const initiator = new ChapInitiator(node);
      initiator.challenged();
      return initiator.ask([
        ["CHAP_N", "alice"],
        ["CHAP_R", "alice"],
      ]);
    },
    0x0200,
  ],
  [
    "AuthMethod None",
    (node) => {
      const initiator = new ChapInitiator(node);
      return initiator.ask([...initiator.who, ["AuthMethod", "None"]]);
    },
    0x0201,
  ],
  [
    "transit without AuthMethod",
    (node) => {
      const initiator = new ChapInitiator(node);
      return initiator.ask(initiator.who, true);
    },
    0x0201,
  ],
  [
    "a target that is not for it, after its proof",
    (node) => {
      node.authority.forbidden.add(target);
      return new ChapInitiator(node).prove();
    },
    0x0202,
  ],
  [
    "a target that does not exist, after its proof",
    (node) => {
      return new ChapInitiator(node, initiatorName, `${target}2`).prove();
    },
    0x0203,
  ],
];

for (const [what, act, status] of refusals) {
  test(`CHAP refuses ${what}`, () => {
    const node = guardedNode(account());
    assert.equal(act(node).status.toString(16), status.toString(16));
    assert.equal(node.sessions.size, 0);
    assert.equal(node.challenges.size, 0);
  });
}

test("the security stage cannot be skipped by who must prove something", () => {
  const node = guardedNode(account());
  const initiator = new TestInitiator(node);
  const { values } = initiator.login({ target });
  assert.equal((values.statusClass << 8) | values.statusDetail, 0x0201);
  // Nor be left before the proof.
  const eager = new ChapInitiator(node);
  const first = eager.ask([...eager.who, ["AuthMethod", "CHAP"]], true);
  assert.equal(first.status, 0);
  assert.equal(first.values.transit, false);
});

test("an initiator that need not prove anything gets no CHAP, and None in its place", () => {
  const node = testNode(memoryDirectory([new MemoryVolume("disk", 1 << 20)]));
  const initiator = new ChapInitiator(node);
  const { text } = initiator.ask([...initiator.who, ["AuthMethod", "CHAP,None"]], true);
  assert.equal(text.get("AuthMethod"), "None");
  const stubborn = new ChapInitiator(node);
  assert.equal(stubborn.ask([...stubborn.who, ["AuthMethod", "CHAP"]]).status, 0x0201);
});

test("a challenge of ours that comes back is refused, from this login or another", () => {
  const node = guardedNode(account({ mutual: { user: "the-target", secret: targetSecret } }));
  const victim = new ChapInitiator(node);
  const { challenge } = victim.challenged();
  const attacker = new ChapInitiator(node);
  const response = encodeBinary(attacker.response());
  const proof: TextPair[] = [
    ["CHAP_N", "alice"],
    ["CHAP_R", response],
    ["CHAP_I", "1"],
    ["CHAP_C", encodeBinary(challenge)],
  ];
  assert.equal(attacker.ask(proof, true).status, 0x0201);
  const own = new ChapInitiator(node);
  const asked = own.challenged();
  const answer = chapResponse(asked.algorithm, asked.id, secret, asked.challenge);
  const back: TextPair[] = [
    ["CHAP_N", "alice"],
    ["CHAP_R", encodeBinary(answer)],
    ["CHAP_I", String(asked.id)],
    ["CHAP_C", encodeBinary(asked.challenge)],
  ];
  assert.equal(own.ask(back, true).status, 0x0201);
  victim.lose();
  assert.equal(node.challenges.size, 0);
});

test("a response that was seen once is of no use again", () => {
  const node = guardedNode(account());
  const seen = encodeBinary(new ChapInitiator(node).response());
  const replay = new ChapInitiator(node);
  replay.challenged();
  assert.equal(
    replay.ask(
      [
        ["CHAP_N", "alice"],
        ["CHAP_R", seen],
      ],
      true,
    ).status,
    0x0201,
  );
});

test("one secret for both directions is found out", () => {
  const node = guardedNode(account({ mutual: { user: "the-target", secret } }));
  const initiator = new ChapInitiator(node);
  const { algorithm, id, challenge } = initiator.challenged();
  const response = chapResponse(algorithm, id, secret, challenge);
  // The same challenge would be refused as our own: only its response can be the same.
  node.challenges.clear();
  const pairs: TextPair[] = [
    ["CHAP_N", "alice"],
    ["CHAP_R", encodeBinary(response)],
    ["CHAP_I", String(id)],
    ["CHAP_C", encodeBinary(challenge)],
  ];
  assert.equal(initiator.ask(pairs, true).status, 0x0201);
});

test("who has failed often waits for the answer, others do not", async () => {
  const node = guardedNode(account());
  const wrong = { secret: targetSecret };
  for (let at = 0; at <= loginPenaltyFreeFailures; at += 1) {
    assert.equal(new ChapInitiator(node).prove(wrong).status, 0x0201);
  }
  const slowed = new ChapInitiator(node);
  const response = encodeBinary(slowed.response());
  slowed.sendLogin(
    [
      ["CHAP_N", "alice"],
      ["CHAP_R", response],
    ],
    {
      currentStage: 0,
      isid: Buffer.from("800000000001", "hex"),
      transit: true,
      nextStage: 1,
    },
  );
  await settled();
  assert.deepEqual(slowed.take(), []);
  assert.equal(new ChapInitiator(node, initiatorName, target, "192.0.2.77").prove().status, 0);
  node.clock.advance(loginPenaltyMs);
  assert.equal(slowed.answered().status, 0, "the right one gets in when its turn comes");
});

test("a PDU of another kind during login is answered with 020b", () => {
  const initiator = new ChapInitiator(guardedNode(account()));
  initiator.challenged();
  initiator.send(scsiCommand, { initiatorTaskTag: 5 });
  assert.equal(initiator.answered().status, 0x020b);
  assert.equal(initiator.connection.closing, "afterFlush");
});

test("no secret and no response is ever logged", () => {
  const lines: string[] = [];
  const node = guardedNode(account());
  Object.assign(node, { audit: { line: (text: string) => lines.push(text) } });
  new ChapInitiator(node).prove();
  new ChapInitiator(node).prove({ user: "mallory", secret: targetSecret });
  const all = lines.join("\n");
  assert.match(all, /refused: 0201/);
  assert.doesNotMatch(all, /mallory|alice|sixteen|0x[0-9a-f]{8}/);
});

test("a session that got in unproven ends when a proof is asked now; one that proved stays", async () => {
  const node = testNode(memoryDirectory([new MemoryVolume("disk", 1 << 20)]));
  const early = new TestInitiator(node);
  early.login({ target, isid: 2 });
  node.authority.proofOfOthers = { method: "chap", account: account() };
  const late = new ChapInitiator(node);
  const response = late.response();
  const proof: TextPair[] = [
    ["CHAP_N", "alice"],
    ["CHAP_R", encodeBinary(response)],
  ];
  assert.equal(late.ask(proof, true).status, 0);
  late.sendLogin([], {
    transit: true,
    currentStage: 1,
    isid: Buffer.from("800000000001", "hex"),
    nextStage: 3,
  });
  assert.equal(late.answered().status, 0);
  assert.equal(node.sessions.size, 2);
  node.authority.changed();
  await settled();
  assert.equal(early.connection.closing, "now");
  assert.equal(late.connection.closing, null);
  assert.equal(node.sessions.size, 1);
});

test("a login that was asked nothing does not slip in once a proof is asked", async () => {
  const node = testNode(memoryDirectory([new MemoryVolume("disk", 1 << 20)]));
  const initiator = new ChapInitiator(node);
  assert.equal(initiator.ask([...initiator.who, ["AuthMethod", "None"]], true).status, 0);
  node.authority.proofOfOthers = { method: "chap", account: account() };
  node.authority.changed();
  const isid = Buffer.from("800000000001", "hex");
  initiator.sendLogin([], { transit: true, currentStage: 1, isid, nextStage: 3 });
  assert.notEqual(initiator.answered().status, 0);
  assert.equal(node.sessions.size, 0);
});
