import assert from "node:assert/strict";
import { test } from "node:test";
import { asyncEvent, sendAsyncMessage } from "./answers.ts";
import { checkIdle } from "./connection.ts";
import { checkDrain } from "./drain.ts";
import {
  pattern,
  settled,
  TestInitiator,
  type TestNode,
  target,
  testNode,
  testUnitReady,
  write10,
} from "./initiator.test-double.ts";
import { drainLogoutSeconds, loginTimeoutMs, pingAfterIdleMs, pingAnswerMs } from "./limits.ts";
import { MemoryVolume, memoryDirectory } from "./memory-volume.test-double.ts";
import { logoutRequest, nopOut, noTag } from "./pdu.ts";
import type { TextPair } from "./text-keys.ts";

/**
 * The target's connection and session state diagrams (RFC 7143 §8.1.3, §8.3.3), one line a
 * transition that error recovery level 0 has. Of the initiator's states (S2, S3 waiting) and of
 * those that need recovery (S8 with more than one connection, Q5) there are none here.
 */
type ConnectionState =
  /** S3, TCP is up and nothing has come; S4, login. */
  | "S3"
  | "S4"
  /** Logged in; logout under way; logout was asked for. */
  | "S5"
  | "S6"
  | "S7"
  /** S8: gone, with tasks that have not settled. S1: nothing is left. */
  | "S8"
  | "S1";
type SessionState = "Q1 free" | "Q2 active" | "Q3 logged in" | "Q4 failed";

interface Scene {
  readonly node: TestNode;
  readonly initiator: TestInitiator;
  /** Lands the write that is under way. */
  land: () => void;
}

const isid = Buffer.from("800000000001", "hex");
const who: TextPair[] = [
  ["InitiatorName", "iqn.2026-11.test:initiator"],
  ["TargetName", target],
];

/** How each state is reached. */
const reach: Record<"S3" | "S4" | "S5" | "S6" | "S7", (scene: Scene) => void> = {
  S3: () => {},
  S4: ({ initiator }) => initiator.sendLogin(who, { currentStage: 0, isid }),
  S5: (scene) => {
    reach.S4(scene);
    scene.initiator.sendLogin([], { currentStage: 0, isid, transit: true, nextStage: 3 });
  },
  S6: (scene) => {
    reach.S5(scene);
    startWrite(scene);
    logOut(scene);
  },
  S7: (scene) => {
    reach.S5(scene);
    scene.node.authority.redirectTo = { address: "192.0.2.7:3260" };
    scene.node.authority.changed();
  },
};

function startWrite({ initiator }: Scene): void {
  // The unit attention of a new nexus comes first.
  initiator.command(testUnitReady);
  initiator.command(write10(0, 1), { write: true, expectedLength: 512 }, pattern(512));
}

function logOut({ initiator }: Scene): void {
  initiator.send(logoutRequest, { immediate: true, initiatorTaskTag: 6, cmdSn: initiator.cmdSn });
}

function loseConnection({ initiator }: Scene): void {
  initiator.lose();
}

function waitFor(ms: number): (scene: Scene) => void {
  return ({ node, initiator }) => {
    node.clock.advance(ms);
    checkIdle(initiator.connection, node.clock.ms);
    checkDrain(node, node.clock.ms);
  };
}

function both(first: (scene: Scene) => void, second: (scene: Scene) => void) {
  return (scene: Scene) => {
    first(scene);
    second(scene);
  };
}

type Line = [
  from: keyof typeof reach,
  event: string,
  act: (scene: Scene) => void,
  connection: ConnectionState,
  session: SessionState,
];

const transitions: Line[] = [
  ["S3", "T4: a Login Request", reach.S4, "S4", "Q1 free"],
  ["S3", "T6: another PDU", ({ initiator }) => initiator.ping(Buffer.alloc(4)), "S1", "Q1 free"],
  ["S3", "T6: nothing in time", waitFor(loginTimeoutMs + 1), "S1", "Q1 free"],
  ["S3", "T6: the connection is lost", loseConnection, "S1", "Q1 free"],
  [
    "S4",
    "T5: the final Login Request",
    ({ initiator }) =>
      initiator.sendLogin([], { currentStage: 0, isid, transit: true, nextStage: 3 }),
    "S5",
    "Q3 logged in",
  ],
  [
    "S4",
    "T7: a login that is refused",
    ({ initiator }) => initiator.sendLogin([], { currentStage: 2, isid }),
    "S1",
    "Q1 free",
  ],
  ["S4", "T7: too slow", waitFor(loginTimeoutMs + 1), "S1", "Q1 free"],
  ["S4", "T7: the connection is lost", loseConnection, "S1", "Q1 free"],
  ["S5", "T9: logout", logOut, "S1", "Q1 free"],
  ["S5", "T10: logout with a write under way", both(startWrite, logOut), "S6", "Q3 logged in"],
  [
    "S5",
    "T11: logout is asked for",
    ({ node }) => {
      node.authority.redirectTo = { address: "192.0.2.7:3260" };
      node.authority.changed();
    },
    "S7",
    "Q3 logged in",
  ],
  ["S5", "T15: the connection is lost", loseConnection, "S1", "Q1 free"],
  ["S5", "T15: lost with a write under way", both(startWrite, loseConnection), "S8", "Q4 failed"],
  [
    "S5",
    "T15: garbage",
    ({ initiator }) => initiator.receiveBytes(Buffer.alloc(48, 0xff)),
    "S1",
    "Q1 free",
  ],
  [
    "S5",
    "T15: a Login Request",
    ({ initiator }) => initiator.sendLogin(who, { currentStage: 0, isid }),
    "S1",
    "Q1 free",
  ],
  [
    "S5",
    "a dead peer",
    (scene) => {
      waitFor(pingAfterIdleMs + 1)(scene);
      waitFor(pingAnswerMs + 1)(scene);
    },
    "S1",
    "Q1 free",
  ],
  [
    "S5",
    "a peer that answers pings",
    (scene) => {
      waitFor(pingAfterIdleMs + 1)(scene);
      const answer = { immediate: true, initiatorTaskTag: noTag, targetTransferTag: 1 };
      scene.initiator.send(nopOut, { ...answer, cmdSn: scene.initiator.cmdSn });
      waitFor(pingAnswerMs + 1)(scene);
    },
    "S5",
    "Q3 logged in",
  ],
  ["S6", "T13: the write lands", ({ land }) => land(), "S1", "Q1 free"],
  ["S6", "T17: the connection is lost", loseConnection, "S8", "Q4 failed"],
  ["S7", "T9: logout", logOut, "S1", "Q1 free"],
  [
    "S7",
    "T12: asked for again",
    ({ initiator }) => {
      sendAsyncMessage(initiator.connection.session!, asyncEvent.logoutRequest, { parameter3: 1 });
    },
    "S7",
    "Q3 logged in",
  ],
  ["S7", "T16: the connection is lost", loseConnection, "S1", "Q1 free"],
  ["S7", "T16: it stays too long", waitFor(drainLogoutSeconds * 1000), "S1", "Q1 free"],
];

async function connectionState({ node, initiator }: Scene): Promise<ConnectionState> {
  const { connection } = initiator;
  if (connection.closing !== null) {
    // The driver closes the socket, at once or once all has gone out.
    connection.outbox.take();
    initiator.lose();
    await settled();
  }
  if (connection.phase === "ended") return node.sessions.size > 0 ? "S8" : "S1";
  if (connection.session === null) return connection.login!.first === null ? "S3" : "S4";
  if (connection.session.loggingOut) return "S6";
  return node.drainDueMs === null ? "S5" : "S7";
}

function sessionState({ node }: Scene): SessionState {
  const [session] = node.sessions.values();
  if (session === undefined) return "Q1 free";
  if (session.ended) return "Q4 failed";
  return session.connection.phase === "full" ? "Q3 logged in" : "Q2 active";
}

function openScene(): Scene {
  const volume = new MemoryVolume("disk", 1 << 20);
  const node = testNode(memoryDirectory([volume]));
  const scene: Scene = { node, initiator: new TestInitiator(node), land: () => {} };
  volume.write = () =>
    new Promise((resolve) => {
      scene.land = () => resolve({ ok: true });
    });
  return scene;
}

for (const [from, event, act, connection, session] of transitions) {
  test(`${from}: ${event} leads to ${connection}, ${session}`, async () => {
    const scene = openScene();
    reach[from](scene);
    await settled();
    assert.equal(await connectionState(scene), from);
    act(scene);
    await settled();
    assert.equal(await connectionState(scene), connection);
    assert.equal(sessionState(scene), session);
    // Whatever happened, nothing is left behind once all has landed.
    scene.land();
    scene.initiator.lose();
    await settled();
    assert.equal(scene.node.sessions.size + scene.node.units.size + scene.node.nexuses.size, 0);
  });
}
