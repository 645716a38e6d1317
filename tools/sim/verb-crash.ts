import type { BrickNumber } from "../../brick/units.ts";
import { settleMsMax, type Told, VerbScene } from "./verb-scene.ts";
import { type Effect, type Verb, verbOf } from "./verbs.ts";

/**
 * An operator's verb, cut by a power loss before each step of its way: a step is a change that a brick
 * makes on its medium, or a message that it sends, from the moment the verb is asked for until all has
 * come to rest. Whoever lost power starts again some time later; then the verb has come to its end or
 * never began, what its operator was told is so, asked again it comes to its end, and nothing that was
 * acknowledged is lost.
 */

/** Within a lease; after it, when others have taken over; before, and after, the map is sent anew. */
const outagesMs = [150, 2_800, 7_000] as const;
const startedMsMax = 60_000;

export const roles = ["leader", "gateway", "asked", "subject", "all"] as const;
export type Role = (typeof roles)[number];

/** Who loses power, and how many steps there are for it. */
export interface Victim {
  readonly role: Role;
  readonly steps: number;
}

export interface Crash {
  readonly role: Role;
  /** From 1 on: it is not taken any more. */
  readonly step: number;
}

/** Counts the steps of every brick, and cuts the power before one of them. */
class Steps {
  readonly #scene: VerbScene;
  readonly #crash: Crash | null;
  readonly #taken = new Map<BrickNumber, number>();
  #sum = 0;
  #over = false;
  /** The step that was not taken; null: none was cut. */
  cut: string | null = null;

  constructor(scene: VerbScene, crash: Crash | null) {
    this.#scene = scene;
    this.#crash = crash;
    const { world } = scene.cluster;
    world.onChange = (brick, change) => void this.#meet(brick, change);
    world.network.filter = (from, to, { type }) =>
      from === to || this.#meet(from, `message ${type} to brick ${to}`);
  }

  /** Of that brick, or of all. */
  of(role: Role): number {
    return role === "all" ? this.#sum : (this.#taken.get(this.#scene[role]) ?? 0);
  }

  end(): void {
    this.#over = true;
  }

  /** Whether the brick lives on. */
  #meet(brick: BrickNumber, what: string): boolean {
    if (this.#over) return true;
    this.#taken.set(brick, (this.#taken.get(brick) ?? 0) + 1);
    this.#sum += 1;
    const crash = this.#crash;
    if (crash === null) return true;
    const isIts = crash.role === "all" || brick === this.#scene[crash.role];
    if (!isIts || this.of(crash.role) !== crash.step) return true;
    this.#over = true;
    this.cut = `brick ${brick}: ${what}`;
    this.#cutPower(crash);
    return false;
  }

  #cutPower({ role, step }: Crash): void {
    const { cluster } = this.#scene;
    const bricks = role === "all" ? [...cluster.bricks] : [this.#scene[role]];
    for (const brick of bricks) cluster.crash(brick);
    cluster.world.after(outagesMs[step % outagesMs.length]!, () => {
      for (const brick of bricks) cluster.start(brick);
    });
  }
}

async function begin(verb: Verb, seed: number): Promise<VerbScene> {
  const scene = await VerbScene.begin(seed, verb.cluster);
  await verb.prepare?.(scene);
  await scene.calm();
  scene.load.begin(scene.gateway);
  return scene;
}

/** Everything runs, what goes on by itself has ended, and all is in order; else what is not. */
async function rest(scene: VerbScene, verb: Verb): Promise<string | null> {
  const running = () => scene.cluster.bricks.every((brick) => scene.cluster.nodes.has(brick));
  await scene.until(running, startedMsMax);
  const { clock } = scene.cluster.world;
  const untilMs = clock.nowMs + settleMsMax;
  while (verb.isUnderWay?.(scene) && clock.nowMs < untilMs) await scene.cluster.world.runFor(100);
  return scene.settled();
}

/** How many steps a verb has that nothing cuts; it has to be whole. */
export async function countSteps(name: string, seed: number): Promise<Victim[]> {
  const verb = verbOf(name);
  const scene = await begin(verb, seed);
  const steps = new Steps(scene, null);
  const told = await scene.ask((backend) => verb.ask(scene, backend));
  const found = (await rest(scene, verb)) ?? promised(verb, scene, told);
  const counted = roles.map((role) => ({ role, steps: steps.of(role) }));
  steps.end();
  if (found !== null || told?.ok !== true) {
    throw new Error(`${name}, without a crash: ${found}; told ${JSON.stringify(told)}`);
  }
  // One brick may have several parts: it is cut once.
  const bricks = new Set<BrickNumber>();
  return counted.filter(({ role, steps }) => {
    const brick = role === "all" ? -1 : scene[role];
    const isNew = !bricks.has(brick);
    bricks.add(brick);
    return isNew && steps > 0;
  });
}

/** What is wrong after a verb that is cut there; null: nothing. */
export async function crashAt(name: string, seed: number, crash: Crash): Promise<string | null> {
  const verb = verbOf(name);
  const scene = await begin(verb, seed);
  const steps = new Steps(scene, crash);
  try {
    const found = await cutAndCheck(scene, verb, steps);
    return found === null ? null : `${found}; the step was ${steps.cut}`;
  } catch (error) {
    const what = error instanceof Error ? (error.stack ?? error.message) : error;
    return `${what}; the step was ${steps.cut}`;
  }
}

async function cutAndCheck(scene: VerbScene, verb: Verb, steps: Steps): Promise<string | null> {
  let told: Told | undefined;
  scene
    .asking((backend) => verb.ask(scene, backend))
    .then((answer) => {
      told = answer;
    });
  await scene.until(() => told !== undefined && steps.cut !== null, 2 * settleMsMax);
  const first =
    (await rest(scene, verb)) ?? promised(verb, scene, told!) ?? (await checkData(scene, verb));
  if (first !== null) return first;
  const before = verb.effect(scene);
  const again = await scene.ask((backend) => verb.ask(scene, backend));
  const refused = before === "whole" ? verb.refusedWhenDone : undefined;
  if (again === null || (!again.ok && again.fault.code !== refused)) {
    return `it was ${effectText(before)}, and asked again it says ${JSON.stringify(again)}`;
  }
  const second = await rest(scene, verb);
  if (second !== null) return `asked again: ${second}`;
  const after = verb.effect(scene);
  if (after !== "whole") return `asked again it is ${effectText(after)}`;
  await scene.load.end();
  return (await checkData(scene, verb)) ?? (await scene.problems());
}

/** Whether the cluster is as the operator was told. */
function promised(verb: Verb, scene: VerbScene, told: Told): string | null {
  const effect = verb.effect(scene);
  if (typeof effect === "object") return `it is half done: ${effect.half}`;
  const text = `it is ${effect}, and its operator was told ${JSON.stringify(told)}`;
  if (told?.ok === true) return effect === "whole" ? null : text;
  const isSure = told !== null && told.fault.code !== "unavailable";
  return isSure && effect !== "absent" ? text : null;
}

function effectText(effect: Effect): string {
  return typeof effect === "object" ? `half done: ${effect.half}` : effect;
}

/** Through the operator's brick, which forwards to the gateway. */
function checkData(scene: VerbScene, verb: Verb): Promise<string | null> {
  const isTaken = verb.takes !== undefined && verb.effect(scene) === "whole";
  return scene.load.check(scene.asked, (volume) =>
    isTaken && volume === verb.takes?.volume ? verb.takes.fate : "kept",
  );
}

/** Every so many steps of every victim: which there are. */
export function crashesOf(victims: readonly Victim[], stride: number, first = 1): Crash[] {
  return victims.flatMap(({ role, steps }) => {
    const crashes: Crash[] = [];
    for (let step = first; step <= steps; step += stride) crashes.push({ role, step });
    return crashes;
  });
}
