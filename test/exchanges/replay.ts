import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { bytesOf, findIn, matchesAt, patternOf } from "./octets.ts";
import type { Scene } from "./scene.ts";
import { ScriptedInitiator, type ScriptedResult } from "./scripted-initiator.ts";
import type { DataCheck, Outcome, PairCheck, Relation, Step, Story } from "./story.ts";

/** Plays a story against a scene; throws an Error with the line at which it went otherwise. */
export async function replay(story: Story, scene: Scene): Promise<void> {
  const play: Play = { scene, initiators: new Map(), now: null, variables: new Map() };
  // What only the scene knows.
  for (let number = 1; number <= story.portals; number += 1) {
    play.variables.set(`portal${number}`, Buffer.from(scene.portal(number)));
  }
  try {
    for (const step of story.steps) {
      try {
        await playStep(play, step);
      } catch (error) {
        throw new Error(`line ${step.line}: ${step.text}\n${(error as Error).message}`);
      }
    }
  } finally {
    for (const initiator of play.initiators.values()) initiator.wire.destroy();
  }
}

interface Play {
  readonly scene: Scene;
  readonly initiators: Map<string, ScriptedInitiator>;
  now: ScriptedInitiator | null;
  readonly variables: Map<string, Buffer>;
}

async function playStep(play: Play, step: Step): Promise<void> {
  switch (step.kind) {
    case "connect":
      return connect(play, step);
    case "as":
      play.now = play.initiators.get(step.name) ?? null;
      assert.ok(play.now !== null, `nobody is called ${step.name}`);
      return;
    case "login":
      return login(play, step);
    case "text": {
      const pairs = await current(play).text(step.offers);
      return checkPairs(play, pairs, step.answers);
    }
    case "scsi":
      return scsi(play, step);
    case "nop": {
      const sent = bytesOf(step.data, play.variables);
      assert.deepEqual(hex(await current(play).ping(sent)), hex(sent), "data of the NOP-In");
      return;
    }
    case "task":
      assert.equal(await current(play).manage(step.action), step.response, "response");
      return;
    case "logout":
      assert.equal(await current(play).logout(), step.response, "response");
      return current(play).wire.closed();
    case "async":
      assert.equal((await current(play).message())[36], step.event, "AsyncEvent");
      return;
    case "closed":
      return current(play).wire.closed();
    case "sever":
      return current(play).wire.destroy();
    case "fault":
      return play.scene.fault(step.volume, step.code);
    case "brick":
      return play.scene.brick(step.number, step.action);
  }
}

function current(play: Play): ScriptedInitiator {
  assert.ok(play.now !== null, "nobody is connected");
  return play.now;
}

function connect(play: Play, step: Extract<Step, { kind: "connect" }>): void {
  const [host, port] = play.scene.portal(step.portal).split(":");
  play.initiators.get(step.name)?.wire.destroy();
  const { isid, lun, immediate } = step;
  const options = { isid, lun, sendsImmediate: immediate };
  play.now = new ScriptedInitiator({ host: host!, port: Number(port), ...options });
  play.initiators.set(step.name, play.now);
}

async function login(play: Play, step: Extract<Step, { kind: "login" }>): Promise<void> {
  const answer = await current(play).login({
    currentStage: step.currentStage,
    nextStage: step.nextStage,
    keys: step.offers,
  });
  assert.equal(status16(answer.status), status16(step.status), "login status");
  if (step.status === 0) assert.equal(answer.transits, step.transits, "T of the response");
  checkPairs(play, [...answer.keys], step.answers);
}

/** A value may name variables: `TargetAddress=$portal2,2`. */
function checkPairs(
  play: Play,
  pairs: readonly (readonly [string, string])[],
  checks: readonly PairCheck[],
): void {
  const shown = pairs.map(([key, value]) => `${key}=${value}`);
  for (const { key, value } of checks) {
    if (value === null) {
      assert.ok(!pairs.some(([found]) => found === key), `${key} answered: ${shown.join(" ")}`);
      continue;
    }
    const wanted = value.replace(/\$(\w+)/g, (_, name) => String(play.variables.get(name)));
    assert.ok(shown.includes(`${key}=${wanted}`), `no ${key}=${wanted} in: ${shown.join(" ")}`);
  }
}

/** How long an initiator of a story goes on trying, and how long it waits before it does. */
const retryMsMax = 30_000;
const retryPauseMs = 20;

async function scsi(play: Play, step: Extract<Step, { kind: "scsi" }>): Promise<void> {
  const { variables } = play;
  const until = performance.now() + retryMsMax;
  for (;;) {
    const result = await current(play).command({
      cdb: bytesOf(step.cdb, variables),
      readBytes: step.readBytes,
      out: step.out === null ? null : bytesOf(step.out, variables),
      ...(step.lun !== null && { lun: step.lun }),
    });
    const isOther = resultText(result) !== outcomeText(step.outcome);
    const mayRetry = step.inTheEnd ? isRetryable(result) : result.sense === accessStateChanged;
    if (isOther && mayRetry && performance.now() < until) {
      await sleep(retryPauseMs);
      continue;
    }
    const wanted = outcomeText(step.outcome);
    assert.equal(resultText(result), wanted, `outcome; data ${hex(result.data)}`);
    for (const check of step.checks) checkData(play, result, check);
    return;
  }
}

/** A cluster tells it whenever the volume is served elsewhere; any initiator just asks again. */
const accessStateChanged = "6/2a/06";

/** BUSY, TASK SET FULL, not ready, unit attention, aborted command. */
function isRetryable(result: ScriptedResult): boolean {
  return result.status === 0x08 || result.status === 0x28 || /^[26b]\//.test(result.sense);
}

function outcomeText(outcome: Outcome): string {
  if (outcome.kind === "sense") return `sense ${outcome.sense}`;
  return `status 0x${outcome.status.toString(16)}`;
}

function resultText(result: ScriptedResult): string {
  return result.status === 2 ? `sense ${result.sense}` : `status 0x${result.status.toString(16)}`;
}

function checkData(play: Play, result: ScriptedResult, check: DataCheck): void {
  const data = result.status === 2 ? result.senseData : result.data;
  switch (check.kind) {
    case "bytes": {
      const pattern = patternOf(check.octets, play.variables);
      const found = data.subarray(check.at, check.at + pattern.bytes.length);
      const matches = matchesAt(data, check.at, pattern);
      assert.ok(matches, `[${check.at}] ${hex(found)} is not ${check.octets.source}`);
      return;
    }
    case "number": {
      const bytes = check.bits / 8;
      assert.ok(check.at + bytes <= data.length, `only ${data.length} bytes`);
      const found = BigInt(`0x${data.subarray(check.at, check.at + bytes).toString("hex")}`);
      const what = `[${check.at}]u${check.bits} is ${found}, not ${check.relation} ${check.value}`;
      assert.ok(holds(found, check.relation, check.value), what);
      return;
    }
    case "mask":
      assert.equal(data[check.at]! & check.mask, check.value, `byte ${check.at} of ${hex(data)}`);
      return;
    case "length": {
      const length = BigInt(data.length);
      const what = `${length} bytes, not ${check.relation} ${check.value}`;
      assert.ok(holds(length, check.relation, BigInt(check.value)), what);
      return;
    }
    case "contains":
    case "lacks": {
      const isThere = findIn(data, patternOf(check.octets, play.variables)) >= 0;
      const what = `${check.kind} ${check.octets.source}: ${hex(data)}`;
      assert.equal(isThere, check.kind === "contains", what);
      return;
    }
    case "save":
      assert.ok(check.at + check.length <= data.length, `only ${data.length} bytes`);
      play.variables.set(check.name, data.subarray(check.at, check.at + check.length));
      return;
    case "designator":
      play.variables.set(check.name, designator(data, check.type, check.association));
      return;
    case "residual":
      assert.equal(result.underflowBytes, check.type === "under" ? check.bytes : 0, "underflow");
      assert.equal(result.overflowBytes, check.type === "over" ? check.bytes : 0, "overflow");
      return;
  }
}

function holds(found: bigint, relation: Relation, value: bigint): boolean {
  switch (relation) {
    case "=":
      return found === value;
    case "!=":
      return found !== value;
    case ">=":
      return found >= value;
    case "<=":
      return found <= value;
  }
}

/** SPC-4 §7.8.6: the first designation descriptor's DESIGNATOR of a type and an association. */
export function designator(page: Buffer, type: number, association: number): Buffer {
  for (let at = 4; at + 4 <= page.length; at += 4 + page[at + 3]!) {
    if ((page[at + 1]! & 0x0f) === type && ((page[at + 1]! >> 4) & 3) === association) {
      return Buffer.from(page.subarray(at + 4, at + 4 + page[at + 3]!));
    }
  }
  throw new Error(`no designator of type ${type}, association ${association}: ${hex(page)}`);
}

const shownBytesMax = 512;

function hex(bytes: Buffer): string {
  const shown = bytes
    .subarray(0, shownBytesMax)
    .toString("hex")
    .replace(/(..)(?=.)/g, "$1 ");
  return bytes.length > shownBytesMax ? `${shown} ... (${bytes.length} bytes)` : shown;
}

function status16(status: number): string {
  return status.toString(16).padStart(4, "0");
}
