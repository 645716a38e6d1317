import {
  brickOf,
  type ClusterState,
  isReachable,
  type ShardRecord,
} from "../brick/cluster-state.ts";
import type { Command } from "./commands.ts";
import { bricksText, isAre } from "./counted-text.ts";
import type { EventDraft, Severity } from "./events.ts";
import { isDamaged, liveMembers } from "./shard-commands.ts";

/** What became of the address map: one event for all shards of which the same is to be said. */
export function shardEvents(
  before: ClusterState,
  after: ClusterState,
  command: Command,
): EventDraft[] {
  if (before.shards.length !== after.shards.length) return [];
  const moved = before.bricks !== after.bricks;
  if (!moved && before.shards === after.shards) return [];
  const counts = new Counts();
  for (const [at, now] of after.shards.entries()) {
    const old = before.shards[at]!;
    if (old === now && !moved) continue;
    const wasLive = liveMembers(before, old).length > 0;
    const isLive = liveMembers(after, now).length > 0;
    if (wasLive && !isLive) counts.add(unavailable(after, now));
    else if (isLive && !wasLive && command.type !== "changeView") counts.add(available);
    if (old === now) continue;
    if (old.shortSinceMs === 0 && now.shortSinceMs > 0) counts.add(short);
    if (old.shortSinceMs > 0 && now.shortSinceMs === 0) counts.add(whole);
    if (old.primary !== now.primary) counts.add(led(before, old, now));
    counts.addDamage(old, now);
  }
  if (command.type === "changeView" && command.recovery) counts.add(recovered);
  return counts.events();
}

type Said = Omit<EventDraft, "gathered">;

class Counts {
  readonly #byText = new Map<string, { said: Said; count: number }>();

  add(said: Said): void {
    const key = `${said.kind} ${said.subject} ${said.text}`;
    const known = this.#byText.get(key);
    if (known === undefined) this.#byText.set(key, { said, count: 1 });
    else known.count += 1;
  }

  addDamage(old: ShardRecord, now: ShardRecord): void {
    for (const number of now.damaged ?? []) {
      if (!isDamaged(old, number)) {
        const text = `found damaged on brick ${number}; other replicas serve meanwhile`;
        this.add(onMap("replica_damaged", text, "warning", `brick ${number}`));
      }
    }
    for (const number of old.damaged ?? []) {
      if (isDamaged(now, number)) continue;
      const text = `of brick ${number} no longer damaged: a newer view has replaced them`;
      this.add(onMap("replica_healed", text, "info", `brick ${number}`));
    }
  }

  events(): EventDraft[] {
    return [...this.#byText.values()].map(({ said, count }) => ({
      ...said,
      gathered: { count, noun: "map shard" },
    }));
  }
}

const available = onMap("shards_available", "available again");
const whole = onMap("shards_whole", "with enough complete replicas again");
const short = onMap("shards_short", "with fewer complete replicas up than wanted", "warning");
const recovered = onMap("shards_recovered", "recovered from what the bricks hold together");

function unavailable(after: ClusterState, shard: ShardRecord): Said {
  const away = shard.members.filter((number) => !isReachable(brickOf(after, number)));
  const why = away.length === 0 ? "" : `, because ${bricksText(away)} ${isAre(away.length)} away`;
  return onMap("shards_unavailable", `unavailable${why}`, "critical");
}

function led(before: ClusterState, old: ShardRecord, now: ShardRecord): Said {
  const brick = brickOf(before, old.primary);
  let why = "";
  if (!isReachable(brick)) {
    const status = brick?.status === "draining" ? "down" : (brick?.status ?? "gone");
    why = `, because brick ${old.primary} is ${status}`;
  } else if (brick!.boot !== old.primaryBoot) {
    why = `, because brick ${old.primary} started anew`;
  } else if (brick!.status === "draining") {
    why = `, because brick ${old.primary} is being emptied`;
  }
  return onMap("shards_led", `led by brick ${now.primary} now${why}`);
}

function onMap(
  kind: string,
  text: string,
  severity: Severity = "info",
  subject = "address map",
): Said {
  return { severity, kind, subject, text };
}
