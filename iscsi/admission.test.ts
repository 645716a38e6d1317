import assert from "node:assert/strict";
import { test } from "node:test";
import { findRoom } from "./admission.ts";
import {
  connectionsPerAddressMax,
  connectionsPerPortalMax,
  loginsInProgressMax,
} from "./limits.ts";
import type { Connection } from "./session-state.ts";

/** As much of a connection as matters here. */
function connection(address: string, phase: Connection["phase"]): Connection {
  return { address, phase, closing: null } as Connection;
}

function many(count: number, make: (at: number) => Connection): Set<Connection> {
  return new Set(Array.from({ length: count }, (_, at) => make(at)));
}

test("there is room for all until the limits are reached", () => {
  const open = many(loginsInProgressMax - 1, (at) => connection(`192.0.2.${at}`, "login"));
  assert.equal(findRoom(open, "198.51.100.1"), "yes");
});

test("beyond, the oldest login of the address that has most makes room", () => {
  const open = many(loginsInProgressMax, (at) => {
    return connection(at % 3 === 0 ? "192.0.2.1" : "192.0.2.2", "login");
  });
  const first = [...open].find(({ address }) => address === "192.0.2.2");
  assert.equal(findRoom(open, "192.0.2.1"), first);
  first!.closing = "now";
  assert.equal(findRoom(open, "198.51.100.1"), "yes", "what closes already does not count");
});

test("an address has its own limit, and pays with a login of its own", () => {
  const open = many(connectionsPerAddressMax, (at) => {
    return connection("192.0.2.1", at === 7 ? "login" : "full");
  });
  assert.equal(findRoom(open, "192.0.2.1"), [...open][7]);
  assert.equal(findRoom(open, "192.0.2.2"), "yes");
  [...open][7]!.phase = "full";
  assert.equal(findRoom(open, "192.0.2.1"), "no");
});

test("a portal full of sessions refuses", () => {
  const open = many(connectionsPerPortalMax, (at) => connection(`192.0.2.${at}`, "full"));
  assert.equal(findRoom(open, "198.51.100.1"), "no");
});
