import type { BrickNumber } from "../../brick/units.ts";
import { raftLimits } from "./raft-limits.ts";
import type { Configuration, MembershipChange, RejectFault } from "./raft-types.ts";

export const emptyConfiguration: Configuration = { voters: [], learners: [] };
const configurationVersion = 1;
const brickNumberMax = 65_535;

export function isVoter(configuration: Configuration, brick: BrickNumber): boolean {
  return configuration.voters.includes(brick);
}

export function members(configuration: Configuration): BrickNumber[] {
  return [...configuration.voters, ...configuration.learners];
}

/** How many voters are a majority. */
export function quorumSize(configuration: Configuration): number {
  return Math.floor(configuration.voters.length / 2) + 1;
}

/** The greatest number that a majority of the voters reaches. */
export function quorumValue(
  configuration: Configuration,
  numberOf: (voter: BrickNumber) => number,
): number {
  const values = configuration.voters.map(numberOf).sort((a, b) => b - a);
  return values[quorumSize(configuration) - 1]!;
}

export type ChangedConfiguration =
  | { ok: true; configuration: Configuration }
  | { ok: false; fault: RejectFault };

/**
 * The configuration after a change. Only one server changes at a time, so that any majority of the
 * old voters and any of the new have a member in common (Raft thesis, section 4.1).
 */
export function changeConfiguration(
  { voters, learners }: Configuration,
  { type, brick }: MembershipChange,
): ChangedConfiguration {
  if (!Number.isInteger(brick) || brick < 1 || brick > brickNumberMax) {
    return invalid(`brick ${brick} is not within 1 to ${brickNumberMax}`);
  }
  const votes = voters.includes(brick);
  const learns = learners.includes(brick);
  const leavesVote = votes && (type === "demote" || type === "remove");
  if (leavesVote && voters.length === 1) return invalid(`brick ${brick} is the only voter`);
  switch (type) {
    case "addLearner":
      if (votes || learns) return invalid(`brick ${brick} is a member already`);
      if (voters.length + learners.length >= raftLimits.membersMax) {
        return invalid(`there are ${raftLimits.membersMax} members already`);
      }
      return valid(voters, [...learners, brick]);
    case "promote":
      if (!learns) return invalid(`brick ${brick} is no learner`);
      if (voters.length >= raftLimits.votersMax) {
        return invalid(`there are ${raftLimits.votersMax} voters already`);
      }
      return valid([...voters, brick], without(learners, brick));
    case "demote":
      if (!votes) return invalid(`brick ${brick} is no voter`);
      return valid(without(voters, brick), [...learners, brick]);
    case "remove":
      if (!votes && !learns) return invalid(`brick ${brick} is no member`);
      return valid(without(voters, brick), without(learners, brick));
  }
}

function without(list: readonly BrickNumber[], brick: BrickNumber): BrickNumber[] {
  return list.filter((one) => one !== brick);
}

function valid(
  voters: readonly BrickNumber[],
  learners: readonly BrickNumber[],
): ChangedConfiguration {
  const ascending = (a: number, b: number) => a - b;
  const configuration = {
    voters: [...voters].sort(ascending),
    learners: [...learners].sort(ascending),
  };
  return { ok: true, configuration };
}

function invalid(reason: string): ChangedConfiguration {
  return { ok: false, fault: { code: "invalid_change", reason } };
}

/**
 * Configuration, version 1, big-endian:
 * version[1]=1 zero[1] voterCount[2] learnerCount[2] then a brick number[2] each, voters first.
 */
export function encodeConfiguration({ voters, learners }: Configuration): Buffer {
  const out = Buffer.alloc(6 + 2 * (voters.length + learners.length));
  out.writeUInt8(configurationVersion, 0);
  out.writeUInt16BE(voters.length, 2);
  let at = out.writeUInt16BE(learners.length, 4);
  for (const brick of [...voters, ...learners]) at = out.writeUInt16BE(brick, at);
  return out;
}

/** null when the bytes are no configuration. */
export function decodeConfiguration(bytes: Buffer): Configuration | null {
  if (bytes.length < 6 || bytes[0] !== configurationVersion || bytes[1] !== 0) return null;
  const voterCount = bytes.readUInt16BE(2);
  const learnerCount = bytes.readUInt16BE(4);
  const count = voterCount + learnerCount;
  if (count > raftLimits.membersMax || bytes.length !== 6 + 2 * count) return null;
  const all = Array.from({ length: count }, (_, at) => bytes.readUInt16BE(6 + 2 * at));
  const voters = all.slice(0, voterCount);
  const learners = all.slice(voterCount);
  const isAscending = (list: number[]) => list.every((one, at) => at === 0 || list[at - 1]! < one);
  if (all.includes(0) || new Set(all).size !== count) return null;
  return isAscending(voters) && isAscending(learners) ? { voters, learners } : null;
}
