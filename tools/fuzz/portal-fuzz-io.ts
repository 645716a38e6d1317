import { monitorEventLoopDelay } from "node:perf_hooks";
import { Prng } from "../../brick/prng.ts";
import { TestAuthority } from "../../iscsi/authority.test-double.ts";
import { MemoryVolume, memoryDirectory } from "../../iscsi/memory-volume.test-double.ts";
import { type Portal, startPortal } from "../../iscsi/portal.ts";
import { makeLogicalUnit } from "../../iscsi/scsi/logical-unit.ts";
import { targetNameOf } from "../../iscsi/target-name.ts";
import { Coverage } from "./coverage.ts";
import { beginExchange, sendLogout } from "./exchanges.ts";
import { Initiator } from "./initiator.ts";
import { Innocent } from "./innocent.ts";
import { SocketClient } from "./socket-client-io.ts";
import { guardedAccount, guardedNames, guardedProof } from "./target-under-test.ts";
import { legalOffers } from "./text-source.ts";
import { demand } from "./violation.ts";

/** The target behind real sockets, on loopback: connections by the thousand, and one innocent. */

export interface PortalFuzzReport {
  readonly coverage: Coverage;
  /** How late the event loop was at most, clients included; it depends on the machine. */
  readonly lateMsMax: number;
  readonly violation: string | null;
}

/** Small: what is written stays in this process's memory, which is looked at. */
const wildBytes = 4 << 20;
const concurrentMax = 24;
const idleMsMax = 1_000;
const halfOpenIdleMsMax = 200;
/** For what must come, on a machine that has much else to do. */
const patienceMs = 60_000;

export async function fuzzPortal(seed: number, connections: number): Promise<PortalFuzzReport> {
  const run = await PortalRun.start(seed);
  const delay = monitorEventLoopDelay({ resolution: 10 });
  delay.enable();
  let violation: string | null = null;
  try {
    await run.run(connections);
  } catch (error) {
    violation = error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
  delay.disable();
  await run.portal.close();
  return { coverage: run.coverage, lateMsMax: delay.max / 1e6, violation };
}

class PortalRun {
  readonly coverage: Coverage;
  readonly portal: Portal;
  readonly #prng: Prng;
  readonly #wild: MemoryVolume;
  readonly #port: number;
  #failure: unknown = null;

  static async start(seed: number): Promise<PortalRun> {
    const wild = new MemoryVolume("wild", wildBytes, "0".repeat(32));
    const innocent = new MemoryVolume("innocent", 1 << 20, "2".repeat(32));
    const directory = memoryDirectory([innocent, wild]);
    const authority = new TestAuthority(directory);
    for (const name of guardedNames) authority.proofs.set(name, guardedProof);
    const coverage = new Coverage();
    const portal = await startPortal({
      listen: "127.0.0.1:0",
      announce: "127.0.0.1:3260",
      tag: 7,
      directory,
      authority,
      metrics: coverage,
      log: () => {},
    });
    return new PortalRun(seed, portal, wild, coverage);
  }

  private constructor(seed: number, portal: Portal, wild: MemoryVolume, coverage: Coverage) {
    this.coverage = coverage;
    this.#prng = new Prng(seed);
    this.portal = portal;
    this.#wild = wild;
    this.#port = Number(portal.address.split(":").at(-1));
  }

  async run(connections: number): Promise<void> {
    const innocent = new Innocent(this.#prng.fork(), targetNameOf("innocent"), 1 << 20);
    const witness = this.#witness(innocent);
    const open = new Set<Promise<void>>();
    for (let made = 0; made < connections && this.#failure === null; made += 1) {
      const { closed } = this.#hostile();
      open.add(closed);
      closed.then(() => open.delete(closed));
      this.coverage.connections += 1;
      if (open.size >= concurrentMax) await Promise.race(open);
    }
    await Promise.all(open);
    innocent.finishing = true;
    await this.#until(() => innocent.idle, "the innocent's commands are not answered");
    await this.#until(() => this.portal.sessions().length === 1, "sessions are left behind");
    sendLogout(innocent.initiator, 0);
    witness.wake();
    await this.#until(() => this.portal.sessions().length === 0, "the innocent cannot log out");
    await witness.closed;
    this.coverage.innocentReads = innocent.reads;
    this.coverage.innocentWrites = innocent.writes;
    demand(innocent.reads > 0 && innocent.writes > 0, "the innocent was not served");
  }

  async #until(condition: () => boolean, otherwise: string): Promise<void> {
    const startedMs = performance.now();
    while (!condition() && this.#failure === null) {
      demand(performance.now() - startedMs < patienceMs, otherwise);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    if (this.#failure !== null) throw this.#failure;
  }

  #fail = (error: unknown): void => {
    this.#failure ??= error;
  };

  #witness(innocent: Innocent): SocketClient {
    return new SocketClient({
      prng: this.#prng.fork(),
      initiator: innocent.initiator,
      coverage: this.coverage,
      port: this.#port,
      localAddress: "127.0.0.1",
      temper: 0,
      halfOpen: false,
      next: () => {
        innocent.step(0);
        return true;
      },
      violated: this.#fail,
      idleMsMax: patienceMs,
    });
  }

  #hostile(): SocketClient {
    const prng = this.#prng.fork();
    const targetName = targetNameOf("wild");
    const unit = makeLogicalUnit({ volume: this.#wild, targetName, portalGroupTag: 7 });
    const guarded = prng.chance(0.2);
    const initiator = new Initiator({
      prng,
      initiatorName: guarded ? guardedNames[0]! : `iqn.2026-11.test:hostile-${prng.between(0, 7)}`,
      isid: Buffer.from([0x40, 0, 0, 0, 0, prng.between(0, 7)]),
      targetName: prng.chance(0.05) ? "" : targetName,
      offers: legalOffers(prng),
      tsih: 0,
      chap: guarded ? guardedAccount : null,
    });
    const halfOpen = prng.chance(0.1);
    let exchangesLeft = prng.between(0, 20);
    return new SocketClient({
      prng,
      initiator,
      coverage: this.coverage,
      port: this.#port,
      // Many addresses, as in a network; what is bounded for each must not be what stops them.
      localAddress: `127.0.${prng.between(1, 4)}.${prng.between(1, 250)}`,
      temper: prng.pick([0.1, 0.3, 0.6, 1]),
      halfOpen,
      next: () => {
        exchangesLeft -= 1;
        if (exchangesLeft < 0) return false;
        beginExchange(initiator, unit, true);
        return true;
      },
      violated: this.#fail,
      idleMsMax: halfOpen ? prng.between(1, halfOpenIdleMsMax) : idleMsMax,
    });
  }
}
