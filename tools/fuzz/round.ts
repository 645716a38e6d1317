import { Prng } from "../../brick/prng.ts";
import { checkIdle, openConnection } from "../../iscsi/connection.ts";
import { loginTimeoutMs, pingAfterIdleMs } from "../../iscsi/limits.ts";
import { targetNameOf } from "../../iscsi/target-name.ts";
import { Coverage } from "./coverage.ts";
import { beginExchange, sendLogout } from "./exchanges.ts";
import { Initiator } from "./initiator.ts";
import { Innocent } from "./innocent.ts";
import { Link } from "./link.ts";
import {
  checkBounds,
  guardedAccount,
  isAtRest,
  makeTarget,
  type TargetUnderTest,
  type VolumeRole,
} from "./target-under-test.ts";
import { legalOffers, strangeOffers } from "./text-source.ts";
import { demand } from "./violation.ts";

/**
 * One round: a target of its own, an innocent session, and many others that come, misbehave and
 * go, until so many mutated PDUs were sent. All that is decided comes of the seed.
 */

/** The event loop's part, which is the real one. */
export interface FuzzLoop {
  /** Resolves when everything that is ready has run. */
  turn(): Promise<void>;
  /** Runs one piece of the target's work, and takes its time. */
  timed(act: () => void): void;
}

const linksMax = 24;
const settleTurnsMax = 3000;
/** An initiator that keeps to the rules never waits for longer than this with nothing answered. */
const answerTurnsMax = 600;

type Behaviour = "hostile" | "lawful" | "innocent";

interface Actor {
  readonly link: Link;
  readonly behaviour: Behaviour;
  readonly role: VolumeRole;
  exchangesLeft: number;
  /** The turn in which it was last given an answer, and how many it had then. */
  answeredTurn: number;
  answers: number;
}

export class Round {
  readonly coverage = new Coverage();
  readonly #prng: Prng;
  readonly #target: TargetUnderTest;
  readonly #loop: FuzzLoop;
  readonly #actors: Actor[] = [];
  readonly #innocent: Innocent;
  #turn = 0;
  #made = 0;
  /** Of the link whose answer or state was wrong. */
  transcript = "";

  constructor(seed: number, loop: FuzzLoop) {
    this.#prng = new Prng(seed);
    this.#loop = loop;
    this.#target = makeTarget(this.#prng.fork(), this.coverage);
    const sizeBytes = this.#target.volumes.get("innocent")!.info.sizeBytes;
    this.#innocent = new Innocent(this.#prng.fork(), targetNameOf("innocent"), sizeBytes);
    this.#addActor(this.#innocent.initiator, "innocent", "innocent", 0);
  }

  async run(mutatedGoal: number): Promise<void> {
    while (this.coverage.mutated < mutatedGoal) {
      if (this.#actors.length < linksMax) this.#addSomeActor();
      await this.#step();
    }
    await this.#end();
    this.coverage.innocentReads = this.#innocent.reads;
    this.coverage.innocentWrites = this.#innocent.writes;
  }

  async #step(): Promise<void> {
    const prng = this.#prng;
    this.#turn += 1;
    for (let count = prng.between(4, 12); count > 0; count -= 1) this.#act(prng.pick(this.#actors));
    this.#innocent.step(this.#turn);
    this.#loop.timed(() => this.#target.clock.advance(1));
    await this.#settle(0.3);
    if (prng.chance(0.001)) this.#passTime();
    if (prng.chance(0.01)) {
      for (const volume of this.#target.volumes.values()) await volume.clearReservations();
    }
  }

  /** Volumes go on, the event loop runs dry, and what is owed is sent and heard. */
  async #settle(chance: number): Promise<void> {
    for (const volume of this.#target.volumes.values()) {
      this.#loop.timed(() => volume.release(chance));
    }
    await this.#loop.turn();
    for (const actor of this.#actors) {
      this.#blame(actor, () => {
        actor.link.flush();
        if (actor.link.readsSlowly && this.#prng.chance(0.05)) actor.link.readAll();
      });
    }
    checkBounds(this.#target);
    for (let at = this.#actors.length - 1; at >= 0; at -= 1) {
      if (this.#actors[at]!.link.over) this.#leave(at);
    }
  }

  #leave(at: number): void {
    const [actor] = this.#actors.splice(at, 1);
    const { link, behaviour } = actor!;
    if (behaviour === "hostile") return;
    // What keeps to the rules is let go for one reason alone: it has logged out.
    const loggedOut = link.check.phase === "loggedOut";
    this.#blame(actor!, () => demand(loggedOut, `a ${behaviour} initiator lost its connection`));
  }

  #blame(actor: Actor, act: () => void): void {
    try {
      act();
    } catch (error) {
      this.transcript = `${actor.behaviour} on ${actor.role}\n${actor.link.transcript}`;
      throw error;
    }
  }

  /** One initiator does something. */
  #act(actor: Actor): void {
    const { link, behaviour, role } = actor;
    const { initiator, check } = link;
    const prng = this.#prng;
    if (link.over) return;
    if (behaviour !== "innocent" && initiator.phase === "full" && initiator.queue.length < 4) {
      if (actor.exchangesLeft > 0) {
        if (behaviour === "hostile" || initiator.windowOpen) {
          actor.exchangesLeft -= 1;
          beginExchange(initiator, this.#target.imagined.get(role)!, behaviour === "hostile");
        }
      } else if (behaviour === "lawful") this.#finish(actor);
      else if (prng.chance(0.5)) sendLogout(initiator, 0);
      else link.lose();
    }
    if (behaviour === "hostile" && prng.chance(0.01)) link.lose();
    if (behaviour === "hostile" && check.phase === "loggedOut") link.lose();
    this.#blame(actor, () => link.deliver(this.#loop.timed));
  }

  /** The lawful log out when everything was answered, and demand that it is. */
  #finish(actor: Actor): void {
    const { link } = actor;
    if (link.initiator.queue.length > 0) return;
    const { openCount } = link.check.sent;
    if (openCount === 0) {
      sendLogout(link.initiator, 0);
      return;
    }
    if (actor.answers !== link.check.answers) {
      actor.answers = link.check.answers;
      actor.answeredTurn = this.#turn;
    }
    const waited = this.#turn - actor.answeredTurn;
    this.#blame(actor, () =>
      demand(waited <= answerTurnsMax, `${openCount} lawful requests have no answer`),
    );
  }

  #addSomeActor(): void {
    this.#made += 1;
    if (this.#prng.chance(0.05)) this.#addLawful();
    else this.#addHostile();
  }

  #addLawful(): void {
    const prng = this.#prng;
    const guarded = prng.chance(0.3);
    const initiator = new Initiator({
      prng: prng.fork(),
      initiatorName: `iqn.2026-11.test:lawful${guarded ? "-guarded" : ""}`,
      isid: isidOf(0x80, this.#made),
      targetName: prng.chance(0.2) ? "" : targetNameOf("calm"),
      offers: legalOffers(prng),
      tsih: 0,
      chap: guarded ? guardedAccount : null,
    });
    this.#addActor(initiator, "lawful", "calm", 0);
  }

  #addHostile(): void {
    const prng = this.#prng;
    const strange = prng.chance(0.15) ? strangeOffers(prng) : [];
    const nowhere = prng.chance(0.02) ? "iqn.2026-11.endisk:nowhere" : targetNameOf("wild");
    const guarded = prng.chance(0.2);
    const wrong = { ...guardedAccount, secret: Buffer.from("guessed") };
    const initiator = new Initiator({
      prng: prng.fork(),
      // Few names: second sessions of a nexus reinstate the first ones.
      initiatorName: guarded
        ? "iqn.2026-11.test:guarded"
        : `iqn.2026-11.test:hostile-${prng.between(0, 3)}`,
      isid: isidOf(0x40, prng.between(0, 5)),
      targetName: prng.chance(0.04) ? "" : nowhere,
      offers: [...legalOffers(prng), ...strange],
      tsih: prng.chance(0.03) ? prng.between(1, 50) : 0,
      chap: guarded ? (prng.chance(0.8) ? guardedAccount : wrong) : null,
    });
    this.#addActor(initiator, "hostile", "wild", prng.pick([0.05, 0.2, 0.4, 0.7, 1]));
  }

  #addActor(initiator: Initiator, behaviour: Behaviour, role: VolumeRole, temper: number): void {
    const connection = openConnection(this.#target.node, this.#address(behaviour), () => {});
    const prng = this.#prng.fork();
    const link = new Link({ initiator, connection, coverage: this.coverage, prng, temper });
    link.readsSlowly = behaviour === "hostile" && this.#prng.chance(0.1);
    const exchangesLeft = this.#prng.between(1, 60);
    this.#actors.push({
      link,
      behaviour,
      role,
      exchangesLeft,
      answeredTurn: this.#turn,
      answers: 0,
    });
    this.coverage.connections += 1;
  }

  /** The hostile share few addresses: who guesses slows down itself, and its neighbours' guesses. */
  #address(behaviour: Behaviour): { address: string; port: number } {
    const host = behaviour === "hostile" ? this.#prng.between(1, 8) : 200;
    return { address: `192.0.2.${host}`, port: 1024 + (this.#made % 60_000) };
  }

  /** Minutes in which nothing is said: slow logins are let go, the silent are pinged. */
  #passTime(): void {
    const { clock } = this.#target;
    const most = Math.max(loginTimeoutMs, pingAfterIdleMs);
    clock.advance(this.#prng.between(1, most + 1000));
    for (const actor of this.#actors) {
      // Those that must not be lost have said something in time.
      if (actor.behaviour !== "hostile") actor.link.connection.lastReceivedMs = clock.ms;
      else checkIdle(actor.link.connection, clock.ms);
    }
  }

  /** All leave; the target must forget them. */
  async #end(): Promise<void> {
    for (let turns = 0; this.#actors.length > 0; turns += 1) {
      const [first] = this.#actors;
      this.#blame(first!, () => demand(turns < settleTurnsMax, "a connection does not end"));
      this.#turn += 1;
      for (const actor of [...this.#actors]) {
        if (actor.behaviour === "innocent") this.#endInnocent(actor);
        else if (actor.behaviour === "hostile") this.#endHostile(actor, turns);
        else {
          actor.exchangesLeft = 0;
          this.#act(actor);
        }
      }
      this.#target.clock.advance(10);
      await this.#settle(0.7);
    }
    for (let turns = 0; !isAtRest(this.#target); turns += 1) {
      demand(turns < settleTurnsMax, `left behind: ${JSON.stringify(this.#leftBehind())}`);
      this.#target.clock.advance(1000);
      await this.#settle(1);
    }
  }

  /** One way or another: after a while the socket is simply gone. */
  #endHostile({ link }: Actor, turns: number): void {
    const how = this.#prng.between(0, 3);
    link.readsSlowly = false;
    if (how === 0 || turns > 20) link.lose();
    else if (how === 1) sendLogout(link.initiator, 0);
    link.deliver(this.#loop.timed);
  }

  #endInnocent(actor: Actor): void {
    const { link } = actor;
    const { openCount } = link.check.sent;
    const idle = this.#innocent.idle && openCount === 0;
    if (idle && link.initiator.queue.length === 0) sendLogout(link.initiator, 0);
    this.#blame(actor, () => link.deliver(this.#loop.timed));
  }

  #leftBehind(): Record<string, number> {
    const { node, volumes } = this.#target;
    return {
      sessions: node.sessions.size,
      nexuses: node.nexuses.size,
      units: node.units.size,
      operations: [...volumes.values()].reduce((sum, volume) => sum + volume.waitingCount, 0),
    };
  }
}

function isidOf(first: number, number: number): Buffer {
  const isid = Buffer.from([first, 0, 0, 0, 0, 0]);
  isid.writeUInt16BE(number & 0xffff, 4);
  return isid;
}
