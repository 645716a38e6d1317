import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type EventDraft,
  emptyEventLog,
  eventsMax,
  eventsSince,
  eventText,
  eventTextMax,
  withEvents,
} from "./events.ts";

const down: EventDraft = {
  severity: "warning",
  kind: "brick_down",
  subject: "brick 2",
  text: "brick 2 is down",
};

function led(count: number, text = "led by brick 3 now"): EventDraft {
  return {
    severity: "info",
    kind: "shards_led",
    subject: "address map",
    text,
    gathered: { count, noun: "map shard" },
  };
}

function at(clusterMs: number) {
  return { clusterMs, wallMs: 1_000_000 + clusterMs };
}

test("events are numbered from 1, and asked for by number", () => {
  const log = withEvents(withEvents(emptyEventLog, [down], at(5)), [down, down], at(6));
  assert.deepEqual(
    eventsSince(log, 1).map(({ sequence, clusterMs, wallMs }) => [sequence, clusterMs, wallMs]),
    [
      [2, 6, 1_000_006],
      [3, 6, 1_000_006],
    ],
  );
  assert.equal(withEvents(log, [], at(7)), log);
});

test("the oldest make room", () => {
  let log = emptyEventLog;
  for (let n = 0; n < eventsMax + 3; n += 1) log = withEvents(log, [down], at(n));
  assert.equal(log.records.length, eventsMax);
  assert.equal(log.records[0]!.sequence, 4);
});

test("the same said of one shard after another is one event, numbered anew", () => {
  let log = withEvents(emptyEventLog, [led(1)], at(0));
  assert.equal(eventText(log.records[0]!), "1 map shard led by brick 3 now");
  log = withEvents(log, [down], at(10));
  for (let n = 1; n <= 16; n += 1) log = withEvents(log, [led(1)], at(10 * n));
  assert.deepEqual(
    log.records.map((record) => [record.sequence, eventText(record)]),
    [
      [2, "brick 2 is down"],
      [18, "17 map shards led by brick 3 now"],
    ],
  );
  const other = withEvents(log, [led(1, "led by brick 1 now")], at(170));
  assert.equal(other.records.length, 3);
});

test("what comes ten seconds after the first is an event of its own, however steadily", () => {
  let log = emptyEventLog;
  for (let ms = 0; ms <= 12_000; ms += 1000) log = withEvents(log, [led(1)], at(ms));
  assert.deepEqual(
    log.records.map(({ gathered }) => gathered!.count),
    [10, 3],
  );
});

test("a text has a length at most", () => {
  const log = withEvents(emptyEventLog, [{ ...down, text: "x".repeat(1000) }], at(1));
  assert.equal(log.records[0]!.text.length, eventTextMax);
});
