import assert from "node:assert/strict";
import { test } from "node:test";
import type { BrickRecord, ClusterState, ShardRecord } from "../../brick/cluster-state.ts";
import { emptyEventLog, withEvents } from "../../control/events.ts";
import { TestCluster, uuid } from "../../control/testing.ts";
import type { BrickStats } from "../brick-stats.ts";
import { clockDifferenceMsMax } from "./brick-problems.ts";
import type { HealthFacts, Problem } from "./facts.ts";
import { healthText } from "./health-text.ts";
import { gcStuckAfterMs } from "./map-problems.ts";
import { isHealthy, problemsOf } from "./problems.ts";

const wallMs = 1_790_000_000_000;
/** The cluster's time now; `wallMs` is the same moment. */
const clusterMs = 1_000_000;
const hourMs = 3_600_000;

const stats: BrickStats = {
  capacityBytes: 100,
  usedBytes: 10,
  freeBytes: 80,
  reserveBytes: 10,
  overheadBytes: 0,
  reclaimableBytes: 4,
  chunkCount: 1,
  chunkBytes: 6,
  dedupHits: 0,
  dedupBytes: 0,
  memoryBytes: 0,
  residentBytes: 0,
  shardsLed: 2,
  shardsMember: 3,
  shardsCandidate: 0,
  stateVersion: 1,
  repairPending: 0,
  keysLacking: [],
  fileSystemFull: false,
  restoringShards: 0,
  levels: { oldest: 1, newest: 2 },
  repairShort: 0,
  repairStuck: 0,
  repairLeftBytes: 0,
  repairBytesPerSecond: 0,
  corruptChunks: 0,
  damagedRanges: 0,
  logLoss: false,
  build: "1.0",
  wallMs,
  mapped: [[1, 2 ** 20]],
};

/** Three bricks that vote, four shards whole on two of them each, one volume: all is well. */
function wellState(): ClusterState {
  const cluster = new TestCluster(3, 4);
  cluster.ok({
    type: "createVolume",
    name: "disk0",
    uuid: uuid(50),
    sizeBytes: 2 ** 30,
    copies: 2,
    degradedWrites: true,
  });
  const { state } = cluster;
  const bricks = Object.values(state.bricks).map((brick) => [
    brick.number,
    { ...brick, voter: true },
  ]);
  const shards = state.shards.map((shard, at) => ({
    ...shard,
    shortSinceMs: 0,
    primary: 1 + (at % 2),
    members: [1, 2],
  }));
  return { ...state, clusterTimeMs: clusterMs, bricks: Object.fromEntries(bricks), shards };
}

function wellFacts(): HealthFacts {
  return {
    state: wellState(),
    events: emptyEventLog,
    stats: new Map(
      [1, 2, 3].map((number) => [number, { ...stats, shardsLed: number < 3 ? 2 : 0 }]),
    ),
    wallMs,
    build: "1.0",
    permanentAfterMs: 24 * hourMs,
    transferAfterMs: 60_000,
  };
}

function withBrick(facts: HealthFacts, number: number, change: Partial<BrickRecord>): HealthFacts {
  const brick = { ...facts.state.bricks[number]!, ...change };
  const bricks = { ...facts.state.bricks, [number]: brick };
  return { ...facts, state: { ...facts.state, bricks } };
}

function withShards(facts: HealthFacts, change: Partial<ShardRecord>): HealthFacts {
  const [first, ...rest] = facts.state.shards;
  return { ...facts, state: { ...facts.state, shards: [{ ...first!, ...change }, ...rest] } };
}

function withStats(facts: HealthFacts, number: number, change: Partial<BrickStats>): HealthFacts {
  const known = new Map(facts.stats);
  known.set(number, { ...known.get(number)!, ...change });
  return { ...facts, stats: known };
}

function without(facts: HealthFacts, number: number): HealthFacts {
  const known = new Map(facts.stats);
  known.delete(number);
  return { ...facts, stats: known };
}

function withState(facts: HealthFacts, change: Partial<ClusterState>): HealthFacts {
  return { ...facts, state: { ...facts.state, ...change } };
}

function noted(facts: HealthFacts, kind: string, subject: string, agoMs: number): HealthFacts {
  const draft = { severity: "info", kind, subject, text: kind } as const;
  const stamp = { clusterMs: clusterMs - agoMs, wallMs: wallMs - agoMs };
  return { ...facts, events: withEvents(facts.events, [draft], stamp) };
}

const downFor = (facts: HealthFacts, agoMs: number) =>
  withBrick(facts, 3, { status: "down", reachable: false, downSinceMs: clusterMs - agoMs });

interface Case {
  readonly code: string;
  readonly severity?: Problem["severity"];
  /** What breaks, and what makes it well again. */
  readonly broken: (well: HealthFacts) => HealthFacts;
  readonly healed?: (broken: HealthFacts) => HealthFacts;
  readonly agoMs?: number;
  readonly what: RegExp;
  readonly doing: RegExp;
  readonly advice: RegExp;
}

const cases: readonly Case[] = [
  {
    code: "brick_down",
    broken: (well) => downFor(without(well, 3), 90_000),
    agoMs: 90_000,
    what: /^brick 3 is down$/,
    doing: /nothing is copied yet: in 23 h 58 min it counts as lost/,
    advice: /start it again; .* come back: `endisk brick remove 3 --lost`$/,
  },
  {
    code: "brick_down",
    broken: (well) => withBrick(downFor(without(well, 3), 30_000), 3, { status: "draining" }),
    agoMs: 30_000,
    what: /^brick 3 is down, while it is being emptied$/,
    doing: /^every copy is in place/,
    advice: /^`endisk brick remove 3`$/,
  },
  {
    code: "brick_failed",
    broken: (well) =>
      withStats(
        noted(
          withBrick(without(well, 3), 3, { status: "failed", reachable: false, voter: false }),
          "brick_failed",
          "brick 3",
          60_000,
        ),
        1,
        { restoringShards: 1, repairLeftBytes: 2 ** 20, repairBytesPerSecond: 2 ** 16 },
      ),
    healed: (broken) => withBrick(broken, 3, { status: "removed" }),
    agoMs: 60_000,
    what: /^brick 3 counts as lost for good$/,
    doing: /: 3 of 4 map shards done, 1MiB to copy; at this pace 16 s more$/,
    advice: /^wait; when it is done, `endisk brick remove 3`/,
  },
  {
    code: "brick_draining",
    severity: "info",
    broken: (well) =>
      noted(withBrick(well, 3, { status: "draining" }), "brick_draining", "brick 3", 5),
    agoMs: 5,
    what: /^brick 3 is being emptied/,
    doing: /^every copy is in place/,
    advice: /^`endisk brick remove 3`$/,
  },
  {
    code: "brick_joining",
    severity: "info",
    broken: (well) =>
      withBrick(without(well, 3), 3, { status: "joining", reachable: false, voter: false }),
    what: /joined, but has not been heard yet/,
    doing: /nothing goes there/,
    advice: /10\.0\.0\.3:1/,
  },
  {
    code: "brick_silent",
    broken: (well) => without(well, 3),
    what: /^brick 3 counts as up, but does not answer/,
    doing: /declared down/,
    advice: /network/,
  },
  {
    code: "brick_full",
    broken: (well) => noted(withBrick(well, 2, { full: true }), "brick_full", "brick 2", 7000),
    agoMs: 7000,
    what: /^brick 2 is full: 10B used/,
    doing: /4B of it can be given back/,
    advice: /add a brick/,
  },
  {
    code: "brick_full",
    broken: (well) =>
      noted(withStats(well, 2, { fileSystemFull: true }), "brick_full", "brick 2", 7000),
    agoMs: 7000,
    what: /^the file system of brick 2 is full/,
    doing: /it serves what it has/,
    advice: /by itself/,
  },
  {
    code: "chunks_damaged",
    broken: (well) =>
      noted(withStats(well, 2, { corruptChunks: 2 }), "damage_found", "brick 2", 11),
    agoMs: 11,
    what: /^brick 2 has found 2 damaged chunks/,
    doing: /no damaged byte is served/,
    advice: /disk/,
  },
  {
    code: "log_damaged",
    broken: (well) => withStats(well, 2, { damagedRanges: 1 }),
    what: /^the log of brick 2 is damaged in 1 place$/,
    doing: /other replicas/,
    advice: /disk/,
  },
  {
    code: "log_damaged",
    broken: (well) => withStats(well, 1, { logLoss: true }),
    what: /^the log of brick 1 is damaged at its end$/,
    doing: /other replicas/,
    advice: /power cut/,
  },
  {
    code: "key_missing",
    broken: (well) =>
      noted(withStats(well, 2, { keysLacking: ["disk0", "disk1"] }), "key_missing", "brick 2", 7),
    agoMs: 7,
    what: /^brick 2 lacks the key of volume disk0, volume disk1$/,
    doing: /other bricks serve/,
    advice: /^leave the other bricks running/,
  },
  {
    code: "builds_differ",
    broken: (well) => withStats(well, 2, { build: "0.9" }),
    what: /^brick 2 runs build 0\.9, another brick 1\.0$/,
    doing: /work together/,
    advice: /upgrade/,
  },
  {
    code: "clocks_differ",
    broken: (well) => withStats(well, 2, { wallMs: wallMs - clockDifferenceMsMax - 1 }),
    healed: (broken) => withStats(broken, 2, { wallMs: wallMs - clockDifferenceMsMax }),
    what: /^the clock of brick 2 differs by 10 s/,
    doing: /no data depends on it/,
    advice: /NTP/,
  },
  {
    code: "quorum_thin",
    broken: (well) => downFor(without(well, 3), 2000),
    healed: (broken) => withBrick(broken, 3, { voter: false }),
    agoMs: 2000,
    what: /^1 voter of 3 away \(brick 3\)/,
    doing: /keeps its vote/,
    advice: /^start brick 3 again$/,
  },
  {
    code: "single_voter",
    severity: "info",
    broken: (well) => withBrick(withBrick(well, 2, { voter: false }), 3, { voter: false }),
    what: /^brick 1 alone carries the control plane/,
    doing: /three bricks vote/,
    advice: /^add a brick$/,
  },
  {
    code: "shards_unavailable",
    severity: "critical",
    broken: (well) => withShards(downFor(well, 0), { members: [3], shortSinceMs: clusterMs - 40 }),
    agoMs: 40,
    what: /^1 of 4 map shards is unavailable/,
    doing: /BUSY/,
    advice: /^start brick 3 again$/,
  },
  {
    code: "shards_unled",
    broken: (well) => withShards(well, { primaryBoot: 0 }),
    what: /^1 of 4 map shards is without a primary$/,
    doing: /takes over/,
    advice: /if it passes/,
  },
  {
    code: "shards_short",
    broken: (well) =>
      withShards(well, { members: [1], candidates: [3], shortSinceMs: clusterMs - 20_000 }),
    agoMs: 20_000,
    what: /^1 of 4 map shards is short of replicas: fewer than 2/,
    doing: /older map records are copied in 40 s/,
    advice: /start the bricks that are away/,
  },
  {
    code: "shards_short",
    broken: (well) =>
      withShards(well, { members: [1], candidates: [3], transfer: true, shortSinceMs: 1 }),
    what: /short of replicas/,
    doing: /^the older map records of 1 are being copied/,
    advice: /further loss/,
  },
  {
    code: "replicas_damaged",
    broken: (well) => noted(withShards(well, { damaged: [2] }), "replica_damaged", "brick 2", 99),
    agoMs: 99,
    what: /^1 map shard with a replica that may lack something, on brick 2$/,
    doing: /undamaged replicas lead/,
    advice: /leave the other bricks running/,
  },
  {
    code: "too_few_bricks",
    broken: (well) =>
      withState(well, {
        volumes: { disk0: { ...well.state.volumes.disk0!, copies: 4 } },
      }),
    what: /^1 volume with up to 4 copies, but only 3 bricks/,
    doing: /as there are bricks/,
    advice: /^add 1 brick$/,
  },
  {
    code: "extents_short",
    broken: (well) => withStats(well, 1, { repairShort: 3, repairStuck: 3 }),
    what: /^3 extents of volumes short of copies/,
    doing: /tries again/,
    advice: /add a brick or space/,
  },
  {
    code: "garbage_stuck",
    broken: (well) =>
      withState(without(well, 3), {
        gcEpoch: 5,
        gc: { marked: 4, begunMs: clusterMs - gcStuckAfterMs, steady: {} },
      }),
    healed: (broken) => withState(broken, { gc: { marked: 5, begunMs: 1, steady: {} } }),
    agoMs: gcStuckAfterMs,
    what: /beyond epoch 4: brick 3 cannot be reached$/,
    doing: /kept/,
    advice: /needs all of them/,
  },
  {
    code: "space_low",
    broken: (well) =>
      [1, 2, 3].reduce((f, n) => withStats(f, n, { usedBytes: 85, freeBytes: 15 }), well),
    healed: (broken) => withStats(broken, 3, { usedBytes: 0, freeBytes: 100 }),
    what: /^the cluster is 85 % full: 45B are free$/,
    doing: /12B are waiting/,
    advice: /add a brick/,
  },
  {
    code: "space_exhausted",
    severity: "critical",
    broken: (well) =>
      [1, 2, 3].reduce((f, n) => withStats(f, n, { usedBytes: 90, freeBytes: 0 }), well),
    healed: (broken) => withStats(broken, 3, { freeBytes: 1 }),
    what: /^the cluster is full: writes are refused$/,
    doing: /garbage/,
    advice: /add a brick/,
  },
  {
    code: "volume_nearly_full",
    severity: "info",
    broken: (well) => withStats(well, 1, { mapped: [[1, 0.91 * 2 ** 30]] }),
    healed: (broken) => withStats(broken, 1, { mapped: [[1, 0.89 * 2 ** 30]] }),
    what: /^volume disk0 is 91 % written$/,
    doing: /up to its size/,
    advice: /endisk volume resize disk0/,
  },
];

test("a cluster in order has no problems", () => {
  assert.deepEqual(problemsOf(wellFacts()), []);
  assert.equal(healthText([], wallMs), "health  OK");
});

for (const { code, severity = "warning", broken, healed, agoMs, what, doing, advice } of cases) {
  test(`${code} is told, with what to do, and goes: ${what.source}`, () => {
    const facts = broken(wellFacts());
    const found = problemsOf(facts).filter((one) => one.code === code);
    assert.equal(found.length, 1, JSON.stringify(problemsOf(facts)));
    const problem = found[0]!;
    assert.equal(problem.severity, severity);
    assert.match(problem.what, what);
    assert.match(problem.doing, doing);
    assert.match(problem.advice, advice);
    if (agoMs !== undefined) assert.equal(problem.sinceMs, wallMs - agoMs);
    const well = healed === undefined ? wellFacts() : healed(facts);
    assert.deepEqual(
      problemsOf(well).filter((one) => one.code === code),
      [],
    );
  });
}

test("a drain that cannot be completed says why, and that it waits", () => {
  const { state } = wellFacts();
  const volumes = { disk0: { ...state.volumes.disk0!, copies: 3 } };
  const facts = withBrick({ ...wellFacts(), state: { ...state, volumes } }, 3, {
    status: "draining",
  });
  const draining = problemsOf(facts).find(({ code }) => code === "brick_draining")!;
  assert.match(
    draining.what,
    /volume disk0 keeps 3 copies, and there is but bricks 1, 2 for them$/,
  );
  assert.equal(draining.advice, "add a brick");
});

test("the worst comes first, and notes alone are no illness", () => {
  const draining = withBrick(wellFacts(), 3, { status: "draining" });
  assert.ok(isHealthy(problemsOf(draining)));
  assert.match(healthText(problemsOf(draining), wallMs), /^health {2}OK\n\n {2}note: brick 3/);
  const worse = withShards(withStats(draining, 1, { corruptChunks: 1 }), { damaged: [1, 2] });
  const severities = problemsOf(worse).map(({ severity }) => severity);
  assert.deepEqual(severities, ["critical", "warning", "warning", "info"]);
  assert.equal(isHealthy(problemsOf(worse)), false);
});

test("since when is wall time by the event of that moment, though the cluster was off for long", () => {
  // The brick went down a day ago by wall time; the cluster was off for most of it.
  const facts = downFor(wellFacts(), 5000);
  const draft = { severity: "warning", kind: "x", subject: "brick 3", text: "x" } as const;
  const stamp = { clusterMs: clusterMs - 5000, wallMs: wallMs - 24 * hourMs };
  const events = withEvents(emptyEventLog, [draft], stamp);
  const down = problemsOf({ ...facts, events }).find(({ code }) => code === "brick_down")!;
  assert.equal(down.sinceMs, wallMs - 24 * hourMs);
  assert.match(
    healthText([down], wallMs),
    /^health {2}1 problem\n\n {2}warning: brick 3 is down, since 2026-\S+ \S+Z \(for 1 d\)\n {4}END: .*\n {4}you: start/,
  );
});

test("no estimate is made from nothing", () => {
  const facts = withBrick(without(wellFacts(), 3), 3, { status: "failed", reachable: false });
  const nothingDone = [1, 2].reduce((f, n) => withStats(f, n, { restoringShards: 2 }), facts);
  const problem = problemsOf(nothingDone).find(({ code }) => code === "brick_failed")!;
  assert.match(problem.doing, /: 0 of 4 map shards done$/);
});
