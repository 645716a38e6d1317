import assert from "node:assert/strict";
import { emptyModel, type Model, transferAfterMs, writeAll } from "./planner-model.test-support.ts";

export const span = 4;

/** That many volumes, made and written while the cluster had two bricks; then it has `bricks`. */
export function grownModel(bricks: number, volumes: number): Model {
  const cluster = emptyModel(2, volumes * span, span);
  for (let at = 0; at < volumes; at += 1) cluster.attach(`v${at}`, (at % 2) + 1);
  cluster.settle();
  writeAll(cluster);
  for (let number = 3; number <= bricks; number += 1) cluster.join(number);
  stand(cluster);
  cluster.settle();
  return cluster;
}

export function stand(cluster: Model): void {
  for (const one of Object.keys(cluster.state.attachments)) cluster.standing.add(one);
}

export function membersOf(cluster: Model): (readonly number[])[] {
  return cluster.state.shards.map(({ members }) => members);
}

/** Replicas of used shards, per brick. */
export function heldBy(cluster: Model): number[] {
  const used = new Set(
    Object.keys(cluster.state.volumes).flatMap((name) => cluster.shardsOf(name)),
  );
  return Object.values(cluster.state.bricks).map(
    ({ number }) => [...used].filter(({ members }) => members.includes(number)).length,
  );
}

/** Shards whose members are others than they were. */
export function moved(cluster: Model, before: readonly (readonly number[])[]): number[] {
  return membersOf(cluster).flatMap((members, at) =>
    members.join() === before[at]!.join() ? [] : [at],
  );
}

/** Lets the plans come to their end, which moves the replicas of one volume at most; how many shards'. */
function settle(cluster: Model): number {
  const before = membersOf(cluster);
  cluster.settle();
  const shards = moved(cluster, before);
  const families = new Set(shards.map((at) => Math.floor(at / span)));
  assert.ok(families.size < 2, "one volume at a time");
  return shards.length;
}

/** Passes time in which nothing happens, until nothing moves any more; how often something did. */
export function rest(cluster: Model, limit: number): number {
  for (let moves = 0; moves <= limit; moves += 1) {
    if (settle(cluster) > 0) continue;
    cluster.nowMs += transferAfterMs;
    if (settle(cluster) === 0) return moves;
  }
  assert.fail(`more than ${limit} moves`);
}

/** What bricks offer, and which of them fail together; they say it themselves at each start. */
export function offer(cluster: Model, sizes: readonly number[], domains: readonly string[]): void {
  const bricks = Object.values(cluster.state.bricks).map((brick, at) => {
    const capacityBytes = 2 ** 30 * sizes[at]!;
    return [brick.number, { ...brick, capacityBytes, domain: domains[at]! }];
  });
  cluster.state = { ...cluster.state, bricks: Object.fromEntries(bricks) };
}
