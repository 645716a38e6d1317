import { type ClusterState, isReachable } from "../../brick/cluster-state.ts";
import type { CompactionOptions } from "../../brick/compaction/compaction-options.ts";
import type { LevelRange } from "../../brick/feature-level.ts";
import { DiskError } from "../../brick/host.ts";
import { type MemoryParts, memoryPartsDefault } from "../../brick/memory-budget.ts";
import { Prng } from "../../brick/prng.ts";
import type { CopyRates } from "../../brick/repair/copy-budget.ts";
import type { HealOptions } from "../../brick/repair/heal-options.ts";
import type { BrickNumber } from "../../brick/units.ts";
import { GiB, MiB } from "../../brick/units.ts";
import type { Volume } from "../../brick/volume/volume.ts";
import type { Command } from "../../control/commands.ts";
import type { Bootstrap } from "../../control/control-io.ts";
import type { MembershipTiming } from "../../control/membership.ts";
import { BrickNode, type MemoryUse } from "../brick-node.ts";
import type { DiskDials } from "./sim-disk.ts";
import { SimWorld } from "./sim-host.ts";

const clusterId = "0123456789abcdef".repeat(2);
export const volumeName = "disk0";
const joinSecondsMax = 60;

export interface SimClusterOptions {
  readonly seed: number;
  readonly bricks: number;
  readonly shardCount: number;
  /** Shards of one volume; absent: all. */
  readonly shardSpan?: number;
  readonly volumeBytes: number;
  readonly copies: number;
  /** Small bricks on which epochs of garbage collection follow one another this fast. */
  readonly gcEveryMs?: number;
  readonly timing?: Partial<MembershipTiming>;
  readonly healOptions?: Partial<HealOptions>;
  readonly copyRates?: Partial<CopyRates>;
  /** The build that a brick is started with, by what that knows. */
  readonly levelsOf?: (brick: BrickNumber) => LevelRange;
  readonly compactionOptions?: Partial<CompactionOptions>;
  /** The volume is encrypted. */
  readonly encrypt?: boolean;
  /** Failure domain of each brick; bricks beyond the last are each in their own. */
  readonly domains?: readonly string[];
  /** The disk of each brick, when it is not a healthy one's. */
  readonly disk?: Partial<DiskDials>;
  readonly memory?: Partial<MemoryParts>;
}

/** What a brick of such a cluster has: enough for all of its volume, and not much more. */
const smallBytes = { capacityBytes: 256 * MiB, segmentBytes: 1 * MiB };
const largeBytes = { capacityBytes: 4 * GiB, segmentBytes: 4 * MiB };

/** The bricks of one cluster, each the product's own code on a simulated machine. */
export class SimCluster {
  readonly world: SimWorld;
  readonly options: SimClusterOptions;
  /** Running bricks that have opened. */
  readonly nodes = new Map<BrickNumber, BrickNode>();
  /** Running, opened or not. */
  readonly starting = new Set<BrickNumber>();
  /** Chunk bytes that repair copied on bricks whose boot has ended. */
  #copiedBefore = 0;
  /** Whether committed cluster state ever said that fewer bricks are up than the copies wanted. */
  everShort = false;
  /** Of the state in which all bricks of the beginning are up. */
  #versionMade = Number.POSITIVE_INFINITY;
  readonly #numbers: BrickNumber[] = [];
  /** The others that each brick was told of when it joined. */
  readonly #told = new Map<BrickNumber, readonly BrickNumber[]>();
  /** Bricks that were lost or removed for good, and when. */
  /** Of the newest state that any brick has known. */
  #versionSeen = 0;
  readonly gone = new Map<BrickNumber, number>();
  /** Told of a brick that does not start; unless set, that ends the run. */
  onStartFailure: ((brick: BrickNumber, error: unknown) => void) | null = null;

  constructor(options: SimClusterOptions) {
    this.options = options;
    this.world = new SimWorld(options.seed);
    this.world.onCrash = ({ brick }) => {
      this.#copiedBefore += copiedBytesOf(this.nodes.get(brick));
      this.nodes.delete(brick);
      this.starting.delete(brick);
    };
    this.world.isBug = ({ cause, reason }) => cause !== "power" && !(reason instanceof DiskError);
  }

  /** Chunk bytes that repair has copied, over all boots. */
  get copiedBytes(): number {
    let bytes = this.#copiedBefore;
    for (const node of this.nodes.values()) bytes += copiedBytesOf(node);
    return bytes;
  }

  /** At every change of what some brick goes by: only what a brick has been shown can it act by. */
  #lookAtMembership({ version, bricks }: ClusterState): void {
    // A brick that starts goes through the log again, from when the cluster had one brick.
    if (version < this.#versionMade) return;
    const reachable = Object.values(bricks).filter((brick) => isReachable(brick)).length;
    if (reachable < this.options.copies) this.everShort = true;
  }

  /** All that were not lost or removed for good. */
  get bricks(): readonly BrickNumber[] {
    return this.#numbers.filter((brick) => !this.gone.has(brick));
  }

  /** Makes the cluster, one brick after the other, and a volume. */
  async create(): Promise<void> {
    await this.#add(1);
    for (let brick = 2; brick <= this.options.bricks; brick += 1) await this.join();
    await this.addVolume(volumeName, "abcdef0123456789".repeat(2), this.options.encrypt);
    await this.settled();
    this.#versionMade = this.anyNode()!.control.state().version;
  }

  async addVolume(name: string, uuid: string, encrypt = false): Promise<void> {
    const keyDomain = encrypt ? await this.#newKey(uuid) : undefined;
    await this.submit({
      ...(keyDomain !== undefined && { keyDomain }),
      type: "createVolume",
      name,
      uuid,
      sizeBytes: this.options.volumeBytes,
      copies: this.options.copies,
      degradedWrites: true,
    });
  }

  async #newKey(uuid: string): Promise<number> {
    const { keys } = this.anyNode()!;
    const made = await this.world.complete(keys.make(uuid, this.options.copies), 120_000);
    if (!made.ok) throw new Error(made.reason);
    return made.domain;
  }

  /** Each start of a brick draws its own, so that no draw shifts another's; the seed decides all. */
  #keysOf(brick: BrickNumber, boot: number) {
    const prng = new Prng(this.options.seed + brick * 65_536 + boot);
    const random = (bytes: number) => prng.fill(Buffer.alloc(bytes));
    return { masterKey: Buffer.alloc(32, brick), clusterSecret: Buffer.alloc(32, 7), random };
  }

  /** Another brick joins, as `endisk brick --join` does it. */
  async join(as: { spare?: boolean } = {}): Promise<BrickNumber> {
    const { brick, token, join } = this.joining(as);
    await this.submit(token);
    const value = await this.submit(join);
    if (value !== brick) throw new Error(`joined as brick ${value}, not ${brick}`);
    await this.#add(brick);
    return brick;
  }

  /** The commands by which another brick becomes known; then it may be admitted. */
  joining({ spare }: { spare?: boolean } = {}): {
    brick: BrickNumber;
    token: Command;
    join: Command;
  } {
    const brick = this.#numbers.length + 1;
    const id = `token-${brick}`;
    const hash = String(brick).padStart(64, "0");
    const join: Command = {
      type: "joinBrick",
      tokenId: id,
      tokenHash: hash,
      ...this.factsOf(brick),
      ...(spare === true && { spare }),
    };
    return { brick, token: { type: "addJoinToken", id, hash, lifeMs: 3_600_000 }, join };
  }

  /** What a brick says of itself when it joins. */
  factsOf(brick: BrickNumber) {
    const { capacityBytes } = this.#bytes;
    const domain = this.#domainOf(brick);
    return { uuid: uuidOf(brick), ...addressesOf(brick), domain, capacityBytes };
  }

  admit(brick: BrickNumber): void {
    this.#told.set(brick, this.bricks);
    this.#numbers.push(brick);
    this.start(brick);
  }

  /** The machine is off, with its disk, and nobody starts it any more. */
  dismiss(brick: BrickNumber): void {
    this.gone.set(brick, this.world.clock.nowMs);
    this.crash(brick);
  }

  async #add(brick: BrickNumber): Promise<void> {
    this.admit(brick);
    await this.world.runUntil(() => this.nodes.has(brick), joinSecondsMax * 1000);
    await this.world.runUntil(() => {
      const state = this.anyNode()?.control.state();
      return isReachable(state?.bricks[String(brick)]);
    }, joinSecondsMax * 1000);
  }

  #domainOf(brick: BrickNumber): string {
    return this.options.domains?.[brick - 1] ?? "";
  }

  get #bytes() {
    return this.options.gcEveryMs === undefined ? largeBytes : smallBytes;
  }

  #bootstrap(): Bootstrap {
    const { shardCount, shardSpan } = this.options;
    return { shardCount, ...(shardSpan !== undefined && { shardSpan }) };
  }

  #timing() {
    const { gcEveryMs, timing } = this.options;
    if (gcEveryMs === undefined) return timing === undefined ? {} : { timing };
    return {
      timing: { gcEveryMs, gcUrgentEveryMs: gcEveryMs, ...timing },
      gcOptions: { releasedShare: 0, idleMs: 0, markPageRecords: 16, sweepStepChunks: 32 },
    };
  }

  /** Begins a boot of the brick; `nodes` has it once it is open. */
  start(brick: BrickNumber): void {
    if (this.starting.has(brick) || this.gone.has(brick)) return;
    this.starting.add(brick);
    Object.assign(this.world.machine(brick).disk.dials, this.options.disk ?? {});
    const host = this.world.host(brick);
    const addresses = addressesOf(brick);
    const told = this.#told.get(brick) ?? [];
    const { bootCount } = this.world.machine(brick);
    const seeds = new Map(told.map((one) => [one, addressesOf(one).peerAddress]));
    const opened = BrickNode.open(host, {
      self: brick,
      ...this.#bytes,
      ...this.#timing(),
      ...(this.options.healOptions !== undefined && { healOptions: this.options.healOptions }),
      ...(this.options.copyRates !== undefined && { copyRates: this.options.copyRates }),
      ...(this.options.levelsOf !== undefined && { levels: this.options.levelsOf(brick) }),
      ...(this.options.compactionOptions !== undefined && {
        compactionOptions: this.options.compactionOptions,
      }),
      ...(this.options.memory !== undefined && { memory: memoryOf(this.options.memory) }),
      domain: this.#domainOf(brick),
      identity: { clusterId, brick, uuid: uuidOf(brick) },
      addresses: {
        peer: addresses.peerAddress,
        portal: addresses.portalAddress,
        api: addresses.apiAddress,
      },
      seeds,
      keys: this.#keysOf(brick, bootCount),
      onStoreOpen: (boot) => host.network.setBoot(boot),
      onState: (state) => this.#lookAtMembership(state),
      ...(brick === 1 && { bootstrap: this.#bootstrap() }),
    });
    const boot = this.world.machine(brick).bootCount;
    opened.then(
      (node) => {
        if (this.starting.has(brick) && this.world.machine(brick).bootCount === boot) {
          this.nodes.set(brick, node);
        }
      },
      (error) => {
        const machine = this.world.machine(brick);
        if (machine.bootCount !== boot || !this.starting.has(brick)) return;
        if (this.onStartFailure !== null) {
          this.starting.delete(brick);
          this.onStartFailure(brick, error);
        }
        // Its disk has failed: the process ends, and whoever watches over it starts it again.
        else if (error instanceof DiskError) machine.kill();
        else this.world.clock.failure ??= { error };
      },
    );
  }

  crash(brick: BrickNumber): void {
    this.world.machine(brick).crash();
  }

  /** The one that knows the newest state. */
  anyNode(): BrickNode | undefined {
    let newest: BrickNode | undefined;
    for (const node of this.nodes.values()) {
      if (newest === undefined || node.control.state().version > newest.control.state().version) {
        newest = node;
      }
    }
    if (newest !== undefined) {
      this.#versionSeen = Math.max(this.#versionSeen, newest.control.state().version);
    }
    return newest;
  }

  volumeAt(brick: BrickNumber, name = volumeName): Volume | undefined {
    return this.nodes.get(brick)?.volumes.open(name);
  }

  /** What is stored for bytes that were written there in one piece; of one that has its key. */
  storedOf(firstSector: number, written: Buffer): Buffer {
    const { keyDomain } = this.anyNode()!.control.state().volumes[volumeName]!;
    if (keyDomain === undefined) return written;
    const ciphers = [...this.nodes.values()].map((node) => node.keys.keyring.xtsOf(keyDomain));
    const cipher = ciphers.find((one) => one !== null);
    if (cipher === undefined) throw new Error("no brick that runs has the volume's key");
    return cipher!.encrypt(firstSector, [written]);
  }

  /** The brick whose gateway serves the volume, as the newest state says. */
  volumeHolder(name: string): BrickNumber | undefined {
    const state = this.anyNode()?.control.state();
    const uuid = state?.volumes[name]?.uuid;
    return uuid === undefined ? undefined : state!.attachments[uuid]?.brick;
  }

  async submit(command: Command): Promise<number> {
    for (let attempt = 0; attempt < 50; attempt += 1) {
      const node = this.anyNode();
      if (node === undefined) throw new Error("no brick runs");
      const result = await this.world.complete(node.control.submit(command), 120_000);
      if (result.ok) return result.value;
      if (result.fault.code !== "unavailable") throw new Error(result.fault.message);
    }
    throw new Error(`${command.type}: no leader answers`);
  }

  /** Whether every brick is up and every shard has all its replicas, complete. */
  isWhole(): boolean {
    return this.notWhole() === null;
  }

  /** What keeps the cluster from being whole; null: nothing. */
  notWhole(): string | null {
    const state = this.anyNode()?.control.state();
    if (state === undefined) return "no brick runs";
    // Bricks that have just started know what their last snapshot says.
    if (state.version < this.#versionSeen) return "the newest state is not known yet";
    const stopped = this.bricks.filter((brick) => !this.nodes.has(brick));
    if (stopped.length > 0) return `bricks ${stopped} do not run`;
    const bricks = Object.values(state.bricks).filter(({ number }) => !this.gone.has(number));
    const away = bricks.filter((brick) => !isReachable(brick));
    if (away.length > 0) return JSON.stringify(away);
    const wanted = Math.min(Math.max(2, this.options.copies), bricks.length);
    const broken = state.shards.filter(
      ({ members, candidates, chain }) =>
        members.length !== wanted || candidates.length > 0 || chain.length > 0,
    );
    return broken.length > 0 ? `shards not whole: ${JSON.stringify(broken)}` : null;
  }

  /** Runs until everything is whole again: the liveness half of every run. */
  async settled(limitMs = 300_000): Promise<void> {
    await this.world.runUntil(() => this.isWhole(), limitMs);
  }
}

function memoryOf(parts: Partial<MemoryParts>): MemoryUse {
  return {
    budgetBytes: 0,
    parts: { ...memoryPartsDefault, ...parts },
    residentBytes: () => 0,
  };
}

function copiedBytesOf(node: BrickNode | undefined): number {
  if (node === undefined) return 0;
  return node.repair.counters.repairBytes + node.repair.counters.rebalanceBytes;
}

function uuidOf(brick: BrickNumber): string {
  return brick.toString(16).padStart(32, "0");
}

function addressesOf(brick: BrickNumber) {
  return {
    peerAddress: `10.0.0.${brick}:3270`,
    portalAddress: `10.0.0.${brick}:3260`,
    apiAddress: `10.0.0.${brick}:3280`,
  };
}
