import { type BrickRecord, isReachable } from "../../brick/cluster-state.ts";
import { sizeText } from "../../brick/size-text.ts";
import { isLasting } from "../../brick/volume/placement.ts";
import { bricksText, counted } from "../../control/counted-text.ts";
import { durationText } from "../../control/duration-text.ts";
import { type HealthFacts, notedAt, type Problem, wallOf } from "./facts.ts";
import { progressText, repairProgress } from "./repair-progress.ts";

/** Clocks of bricks, and of whoever asks them, may differ by this before it is a problem. */
export const clockDifferenceMsMax = 10_000;

/** What is wrong with single bricks. */
export function brickProblems(facts: HealthFacts): Problem[] {
  const { state, stats } = facts;
  return Object.values(state.bricks)
    .filter((brick) => brick.status !== "removed")
    .flatMap((brick) => {
      const presence = presenceProblem(facts, brick);
      const own = stats.has(brick.number) ? ownProblems(facts, brick) : [];
      return presence === null ? own : [presence, ...own];
    });
}

function presenceProblem(facts: HealthFacts, brick: BrickRecord): Problem | null {
  const { number, status } = brick;
  const subject = `brick ${number}`;
  if (status === "failed") return failed(facts, number);
  if (status === "down" || (status === "draining" && !brick.reachable)) return down(facts, brick);
  if (status === "draining") return draining(facts, number);
  if (status === "joining") {
    return {
      code: "brick_joining",
      severity: "info",
      subject,
      what: `brick ${number} has joined, but has not been heard yet`,
      sinceMs: notedAt(facts, "brick_joined", subject),
      doing: "nothing goes there before it is heard",
      advice: `see that it runs, and that it and the others reach each other at ${brick.peerAddress}`,
    };
  }
  if (facts.stats.has(number)) return null;
  return {
    code: "brick_silent",
    severity: "warning",
    subject,
    what: `brick ${number} counts as up, but does not answer the brick that was asked`,
    sinceMs: 0,
    doing: "it is declared down if it is not heard by the leader either; then others take over",
    advice: "ask again in a few seconds; if it stays so, look at the network between the bricks",
  };
}

function down(facts: HealthFacts, brick: BrickRecord): Problem {
  const { state, permanentAfterMs } = facts;
  const { number, downSinceMs, status } = brick;
  const sinceMs = wallOf(facts, downSinceMs);
  const subject = `brick ${number}`;
  if (status === "draining") {
    const { left } = repairProgress(facts, sinceMs);
    return {
      code: "brick_down",
      severity: "warning",
      subject,
      what: `brick ${number} is down, while it is being emptied`,
      sinceMs,
      doing: progressText(facts, sinceMs),
      advice:
        left === 0 ? `\`endisk brick remove ${number}\`` : `wait, or start brick ${number} again`,
    };
  }
  const led = state.shards.filter(({ primary }) => primary === number).length;
  const waits = permanentAfterMs - (state.clusterTimeMs - downSinceMs);
  const takeover = led === 0 ? "others lead its map shards" : `others take over ${led} map shards`;
  const restore = `in ${durationText(waits)} it counts as lost and its copies are made anew`;
  return {
    code: "brick_down",
    severity: "warning",
    subject,
    what: `brick ${number} is down`,
    sinceMs,
    doing: `${takeover}; new writes go elsewhere at full copies; nothing is copied yet: ${restore}`,
    advice: `start it again; if it will not come back: \`endisk brick remove ${number} --lost\``,
  };
}

function failed(facts: HealthFacts, number: number): Problem {
  const subject = `brick ${number}`;
  const sinceMs = notedAt(facts, "brick_failed", subject);
  const { left } = repairProgress(facts, sinceMs);
  return {
    code: "brick_failed",
    severity: "warning",
    subject,
    what: `brick ${number} counts as lost for good`,
    sinceMs,
    doing: progressText(facts, sinceMs),
    advice:
      left === 0
        ? `\`endisk brick remove ${number}\`, and join a new brick if its space is missed`
        : `wait; when it is done, \`endisk brick remove ${number}\``,
  };
}

function draining(facts: HealthFacts, number: number): Problem {
  const subject = `brick ${number}`;
  const sinceMs = notedAt(facts, "brick_draining", subject);
  const { left } = repairProgress(facts, sinceMs);
  const stuck = drainWaitsFor(facts);
  if (stuck !== null) {
    return {
      code: "brick_draining",
      severity: "info",
      subject,
      what: `brick ${number} is to be emptied, but cannot be: ${stuck}`,
      sinceMs,
      doing: "writes still have all their copies: those that fit nowhere else go to it, too",
      advice: "add a brick",
    };
  }
  return {
    code: "brick_draining",
    severity: "info",
    subject,
    what: `brick ${number} is being emptied, as it was told to`,
    sinceMs,
    doing: progressText(facts, sinceMs),
    advice: left === 0 ? `\`endisk brick remove ${number}\`` : "wait",
  };
}

/** Why what a draining brick holds has no place elsewhere; null: there are bricks enough. */
function drainWaitsFor({ state }: HealthFacts): string | null {
  const others = Object.values(state.bricks).filter((one) => isLasting(one));
  const short = Object.values(state.volumes).find(({ copies }) => copies > others.length);
  if (short === undefined) return null;
  const bricks = others.map((one) => one.number);
  return `volume ${short.name} keeps ${short.copies} copies, and there is but ${bricksText(bricks)} for them`;
}

/** What the brick says of itself. */
function ownProblems(facts: HealthFacts, { number, full }: BrickRecord): Problem[] {
  const { corruptChunks, damagedRanges, logLoss, build, wallMs, usedBytes, reclaimableBytes } =
    facts.stats.get(number)!;
  const { keysLacking, fileSystemFull } = facts.stats.get(number)!;
  const subject = `brick ${number}`;
  const problems: Problem[] = [];
  if (fileSystemFull) {
    problems.push({
      code: "brick_full",
      severity: "warning",
      subject,
      what: `the file system of brick ${number} is full`,
      sinceMs: notedAt(facts, "brick_full", subject),
      doing:
        "new data goes to other bricks, and so do its shards of the map; it serves what it has",
      advice: "make room in that file system: the brick then takes new data again by itself",
    });
  } else if (full) {
    problems.push({
      code: "brick_full",
      severity: "warning",
      subject,
      what: `brick ${number} is full: ${sizeText(usedBytes)} used`,
      sinceMs: notedAt(facts, "brick_full", subject),
      doing: `new data goes to other bricks; ${sizeText(reclaimableBytes)} of it can be given back by compaction`,
      advice: "add a brick, or delete or trim what is not needed",
    });
  }
  if (corruptChunks > 0) {
    problems.push({
      code: "chunks_damaged",
      severity: "warning",
      subject,
      what: `brick ${number} has found ${counted(corruptChunks, "damaged chunk")} since it started`,
      sinceMs: notedAt(facts, "damage_found", subject),
      doing: "no damaged byte is served: reads go to other holders",
      advice: `check its disk and memory; if it goes on, \`endisk brick drain ${number}\` and replace it`,
    });
  }
  if (damagedRanges > 0 || logLoss) {
    const ranges = damagedRanges > 0 ? ` in ${counted(damagedRanges, "place")}` : " at its end";
    problems.push({
      code: "log_damaged",
      severity: "warning",
      subject,
      what: `the log of brick ${number} is damaged${ranges}`,
      sinceMs: notedAt(facts, "log_damaged", subject),
      doing: "what other replicas hold is used in its place, and its own are brought up to date",
      advice: "check its disk; after a power cut a damaged end alone is no reason for worry",
    });
  }
  if (keysLacking.length > 0) {
    problems.push({
      code: "key_missing",
      severity: "warning",
      subject,
      what: `brick ${number} lacks the key of ${keysLacking.map((name) => `volume ${name}`).join(", ")}`,
      sinceMs: notedAt(facts, "key_missing", subject),
      doing: "other bricks serve what it cannot read; it asks them for the key twice a second",
      advice: "leave the other bricks running; if none of them has the key, the data is lost",
    });
  }
  if (build !== facts.build) {
    problems.push({
      code: "builds_differ",
      severity: "warning",
      subject,
      what: `brick ${number} runs build ${build || "(unknown)"}, another brick ${facts.build}`,
      sinceMs: 0,
      doing: "they work together as far as their formats allow",
      advice: "finish the upgrade: restart the older bricks with the newer build",
    });
  }
  const differsMs = Math.abs(wallMs - facts.wallMs);
  if (wallMs > 0 && differsMs > clockDifferenceMsMax) {
    problems.push({
      code: "clocks_differ",
      severity: "warning",
      subject,
      what: `the clock of brick ${number} differs by ${durationText(differsMs)} from the asked brick's`,
      sinceMs: 0,
      doing: "no data depends on it; times in events are wrong, and commands may be refused",
      advice: "keep the clocks by NTP",
    });
  }
  return problems;
}

/** One voter, by design, until there are three bricks to vote: worth knowing. */
function singleVoter({ state }: HealthFacts, voters: readonly BrickRecord[]): Problem[] {
  const bricks = Object.values(state.bricks).filter((brick) => isReachable(brick));
  if (voters.length !== 1 || bricks.length < 2) return [];
  const { number } = voters[0]!;
  return [
    {
      code: "single_voter",
      severity: "info",
      subject: "cluster",
      what: `brick ${number} alone carries the control plane: without it nothing is served`,
      sinceMs: 0,
      doing: "three bricks vote once there are three",
      advice: "add a brick",
    },
  ];
}

/** What is wrong with the control plane. */
export function voterProblems(facts: HealthFacts): Problem[] {
  const { state } = facts;
  const voters = Object.values(state.bricks).filter((brick) => brick.voter);
  const away = voters.filter((brick) => !isReachable(brick));
  const needed = Math.floor(voters.length / 2) + 1;
  const spare = voters.length - away.length - needed;
  if (away.length === 0) return singleVoter(facts, voters);
  if (spare > 0) return [];
  const named = bricksText(away.map(({ number }) => number));
  const since = Math.min(...away.map((brick) => brick.downSinceMs));
  return [
    {
      code: "quorum_thin",
      severity: "warning",
      subject: "cluster",
      what: `${counted(away.length, "voter")} of ${voters.length} away (${named}): the control plane outlives no further loss`,
      sinceMs: since === 0 ? 0 : wallOf(facts, since),
      doing: "a voter that is down keeps its vote; one that failed or leaves is replaced",
      advice: `start ${named} again`,
    },
  ];
}
