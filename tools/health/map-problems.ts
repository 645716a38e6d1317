import {
  brickOf,
  isReachable,
  replicasWanted,
  type ShardRecord,
} from "../../brick/cluster-state.ts";
import { gcOf } from "../../brick/gc/epochs.ts";
import { isLasting } from "../../brick/volume/placement.ts";
import { bricksText, counted, isAre } from "../../control/counted-text.ts";
import { durationText } from "../../control/duration-text.ts";
import { isDamaged, liveMembers, replicasNow } from "../../control/shard-commands.ts";
import { type HealthFacts, notedAt, type Problem, wallOf } from "./facts.ts";

/** An epoch of garbage collection that takes longer than this does not get on. */
export const gcStuckAfterMs = 15 * 60_000;

/** What is wrong with the address map, and with the copies of what it maps. */
export function mapProblems(facts: HealthFacts): Problem[] {
  return [
    ...unavailable(facts),
    ...unled(facts),
    ...short(facts),
    ...damaged(facts),
    ...tooFewBricks(facts),
    ...shortExtents(facts),
    ...stuckGarbage(facts),
  ];
}

function unavailable(facts: HealthFacts): Problem[] {
  const { state } = facts;
  const shards = state.shards.filter((shard) => liveMembers(state, shard).length === 0);
  if (shards.length === 0) return [];
  const away = new Set<number>();
  for (const { members } of shards) {
    for (const one of members) if (!isReachable(brickOf(state, one))) away.add(one);
  }
  const needed = [...away].sort((a, b) => a - b);
  return [
    onMap(
      {
        code: "shards_unavailable",
        severity: "critical",
        what: `${of(shards.length, facts)} unavailable: no complete replica is up`,
        doing:
          "initiators are told BUSY and repeat; nothing is lost, and END goes on as soon as the replicas that are up hold it all",
        advice:
          needed.length === 0
            ? "wait a moment; if it stays so, look at the log of the bricks"
            : `start ${bricksText(needed)} again`,
      },
      oldest(facts, shards),
    ),
  ];
}

/** Somebody could lead, but nobody does at this moment. */
function unled(facts: HealthFacts): Problem[] {
  const { state } = facts;
  const shards = state.shards.filter((shard) => {
    const primary = brickOf(state, shard.primary);
    const leads = isReachable(primary) && primary!.boot === shard.primaryBoot;
    return !leads && liveMembers(state, shard).length > 0;
  });
  if (shards.length === 0) return [];
  return [
    onMap({
      code: "shards_unled",
      severity: "warning",
      what: `${of(shards.length, facts)} without a primary`,
      doing: "another complete replica takes over, in a moment; commands wait for it",
      advice: "nothing, if it passes; else see that most bricks run and reach each other",
    }),
  ];
}

function short(facts: HealthFacts): Problem[] {
  const { state, transferAfterMs } = facts;
  const wanted = replicasNow(state);
  const shards = state.shards.filter((shard) => {
    const live = liveMembers(state, shard).length;
    return live > 0 && (live < wanted || shard.candidates.length > 0);
  });
  if (shards.length === 0) return [];
  const growing = shards.filter(({ candidates }) => candidates.length > 0);
  const under = growing.filter(({ transfer }) => transfer).length;
  const since = earliest(shards);
  const waitMs = transferAfterMs - (state.clusterTimeMs - since);
  let doing = "it waits for a brick that can keep a further replica";
  if (under > 0) doing = `the older map records of ${under} are being copied to a further replica`;
  else if (growing.length > 0) {
    const when = since > 0 && waitMs > 0 ? `in ${durationText(waitMs)}` : "now";
    doing = `a further replica keeps everything new; older map records are copied ${when}, if the absent one is not back`;
  }
  const problem = {
    code: "shards_short",
    severity: "warning",
    what: `${of(shards.length, facts)} short of replicas: fewer than ${wanted} complete ones are up`,
    doing,
    advice: "start the bricks that are away; a further loss may make them unavailable",
  } as const;
  return [onMap(problem, oldest(facts, shards))];
}

function damaged(facts: HealthFacts): Problem[] {
  const { state } = facts;
  const shards = state.shards.filter(({ damaged: some = [] }) => some.length > 0);
  if (shards.length === 0) return [];
  const bricks = Object.values(state.bricks)
    .map(({ number }) => number)
    .filter((number) => shards.some((shard) => isDamaged(shard, number)));
  const problem = {
    code: "replicas_damaged",
    severity: "warning",
    what: `${counted(shards.length, "map shard")} with a replica that may lack something, on ${bricksText(bricks)}`,
    doing: "undamaged replicas lead, and the others are filled from them",
    advice: "leave the other bricks running until this has passed",
  } as const;
  return [onMap(problem, notedAt(facts, "replica_damaged", `brick ${bricks[0]}`))];
}

function tooFewBricks({ state }: HealthFacts): Problem[] {
  const bricks = Object.values(state.bricks).filter(isLasting).length;
  const wanting = Object.values(state.volumes).filter(({ copies }) => copies > bricks);
  if (wanting.length === 0) return [];
  const copies = replicasWanted(state);
  return [
    {
      code: "too_few_bricks",
      severity: "warning",
      subject: "cluster",
      what: `${counted(wanting.length, "volume")} with up to ${copies} copies, but only ${counted(bricks, "brick")} to keep them`,
      sinceMs: 0,
      doing:
        "writes are kept in as many copies as there are bricks; the rest is made when more join",
      advice: `add ${counted(copies - bricks, "brick")}`,
    },
  ];
}

function shortExtents(facts: HealthFacts): Problem[] {
  let count = 0;
  let stuck = 0;
  for (const one of facts.stats.values()) {
    count += one.repairShort;
    stuck += one.repairStuck;
  }
  if (count === 0) return [];
  const allStuck = stuck === count;
  return [
    {
      code: "extents_short",
      severity: "warning",
      subject: "cluster",
      what: `${counted(count, "extent")} of volumes short of copies, as the last walk found`,
      sinceMs: 0,
      doing: allStuck
        ? "no brick that is up can take or give them now; END tries again every half minute"
        : "END copies them, and walks again until there are none",
      advice: allStuck ? "add a brick or space, or start the bricks that are away" : "wait",
    },
  ];
}

function stuckGarbage(facts: HealthFacts): Problem[] {
  const { state, stats } = facts;
  const { marked, begunMs } = gcOf(state);
  const tookMs = state.clusterTimeMs - begunMs;
  if (marked >= state.gcEpoch || tookMs < gcStuckAfterMs) return [];
  const away = state.shards.filter((shard) => liveMembers(state, shard).length === 0).length;
  const silent = Object.values(state.bricks).filter(
    (brick) => isReachable(brick) && !stats.has(brick.number),
  );
  let why = "a shard does not finish its marking";
  if (away > 0) why = `${counted(away, "map shard")} ${isAre(away)} unavailable`;
  else if (silent.length > 0) {
    why = `${bricksText(silent.map(({ number }) => number))} cannot be reached`;
  }
  return [
    {
      code: "garbage_stuck",
      severity: "warning",
      subject: "cluster",
      what: `garbage collection does not get beyond epoch ${marked}: ${why}`,
      sinceMs: facts.wallMs - tookMs,
      doing: "what is doubtful is kept, so that space does not come back; it goes on by itself",
      advice: "see to the shards and bricks named; it needs all of them",
    },
  ];
}

function onMap(problem: Omit<Problem, "subject" | "sinceMs">, sinceMs = 0): Problem {
  return { ...problem, subject: "address map", sinceMs };
}

function of(count: number, { state }: HealthFacts): string {
  return `${count} of ${counted(state.shards.length, "map shard")} ${isAre(count)}`;
}

/** Since when the oldest of these shards has been short, as cluster time; 0: not at all. */
function earliest(shards: readonly ShardRecord[]): number {
  const times = shards.map(({ shortSinceMs }) => shortSinceMs).filter((at) => at > 0);
  return times.length === 0 ? 0 : Math.min(...times);
}

function oldest(facts: HealthFacts, shards: readonly ShardRecord[]): number {
  const since = earliest(shards);
  return since === 0 ? 0 : wallOf(facts, since);
}
