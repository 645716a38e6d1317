import { assert } from "../../brick/assert.ts";
import { crc32 } from "../../brick/crc32.ts";
import type { Message, Network } from "../../brick/host.ts";
import type { Prng } from "../../brick/prng.ts";
import { messageBodyBytes, messageBodyBytesMax } from "../../brick/rpc/frame.ts";
import { giveBack } from "../../brick/rpc/lent-memory.ts";
import { type BrickNumber, MiB } from "../../brick/units.ts";
import { type EventOwner, eventKind, type SimClock, type SimEvent } from "./sim-clock.ts";

/** Bytes under way from one brick to another; more is dropped, as the real network does. */
const linkBytesMax = 64 * MiB;

/** How one direction between two bricks behaves; every dial may be turned at any time. */
export interface LinkDials {
  latencyMs: readonly [number, number];
  lossChance: number;
  duplicateChance: number;
  /** Chance that a message travels alone and may overtake others. */
  reorderChance: number;
  /** Messages of one direction take turns at this rate. */
  bytesPerSecond: number;
  /** How much longer such a message may take. */
  reorderMs: number;
  /** A partition: what is sent is lost. */
  cut: boolean;
  /** What is sent waits until this is false again. */
  clogged: boolean;
  /** The sender has a connection whose other end is gone, and does not know: what it sends is lost. */
  halfOpen: boolean;
}

export function healthyLink(): LinkDials {
  return {
    latencyMs: [0.05, 0.3],
    lossChance: 0,
    duplicateChance: 0,
    reorderChance: 0,
    reorderMs: 20,
    bytesPerSecond: Number.POSITIVE_INFINITY,
    cut: false,
    clogged: false,
    halfOpen: false,
  };
}

interface Packet {
  message: Message;
  bytes: number;
  /** The body as it was when it was sent: the buffers it came in must not have changed on arrival. */
  body: Buffer;
}

interface Link {
  from: BrickNumber;
  to: BrickNumber;
  dials: LinkDials;
  /** Sent in this tick by this boot, to leave together. */
  corked: Packet[];
  /** Waiting for the clog to go. */
  held: Packet[][];
  wire: EventOwner;
  bytesUnderWay: number;
  lastArrivalMs: number;
}

/** A boot of a brick, as the network sees it. */
interface Port {
  owner: EventOwner;
  boot: number;
  receiver: ((from: BrickNumber, message: Message) => void) | null;
  peers: ReadonlyMap<BrickNumber, string>;
  /** By brick: the boot that has called this one, and is answered though it is no peer. */
  callers: Map<BrickNumber, EventOwner>;
}

/** All wires of the world. Messages of one tick between two bricks arrive in one event. */
export class SimNetwork {
  /** What a pair starts with; changing it changes no pair that is in use. */
  readonly defaults: LinkDials = healthyLink();
  readonly stats = { sent: 0, delivered: 0, dropped: 0, duplicated: 0 };
  /** A brick handles one message at a time, each for so long: its processor, when it shall be bounded. */
  handlingMs = 0;
  /** By brick: when it will have handled all that is on its way to it. */
  readonly #busyUntilMs = new Map<BrickNumber, number>();
  readonly #clock: SimClock;
  readonly #prng: Prng;
  readonly #links = new Map<number, Link>();
  readonly #ports = new Map<BrickNumber, Port>();
  /** Looks at every message when it is sent; false loses it. For tests that aim. */
  filter: ((from: BrickNumber, to: BrickNumber, message: Message) => boolean) | null = null;

  constructor(clock: SimClock, prng: Prng) {
    this.#clock = clock;
    this.#prng = prng;
  }

  /** The dials of one direction. */
  link(from: BrickNumber, to: BrickNumber): LinkDials {
    return this.#link(from, to).dials;
  }

  /** Turns dials in every direction between the bricks given. */
  setAll(bricks: readonly BrickNumber[], dials: Partial<LinkDials>): void {
    for (const from of bricks) {
      for (const to of bricks) if (from !== to) this.set(from, to, dials);
    }
  }

  /** Turns dials of every link that there is, also of bricks that are still joining, and of those to come. */
  setEvery(dials: Partial<LinkDials>): void {
    for (const { from, to } of [...this.#links.values()])
      if (from !== to) this.set(from, to, dials);
    Object.assign(this.defaults, dials);
  }

  set(from: BrickNumber, to: BrickNumber, dials: Partial<LinkDials>): void {
    const link = this.#link(from, to);
    Object.assign(link.dials, dials);
    if (link.dials.clogged || link.held.length === 0) return;
    const held = link.held;
    link.held = [];
    for (const packets of held) this.#travel(link, packets);
  }

  /** For tests: what waits between two bricks stays in the network, to arrive when that is called. */
  takeHeld(from: BrickNumber, to: BrickNumber): () => void {
    const link = this.#link(from, to);
    const held = link.held.splice(0);
    return () => {
      for (const packets of held) this.#travel(link, packets);
    };
  }

  /** Cuts both directions between every brick of `some` and every brick of `others`. */
  partition(some: readonly BrickNumber[], others: readonly BrickNumber[]): void {
    for (const a of some) {
      for (const b of others) {
        this.set(a, b, { cut: true });
        this.set(b, a, { cut: true });
      }
    }
  }

  /** Whether anything is cut, clogged or half open. */
  isParted(): boolean {
    for (const { dials } of this.#links.values()) {
      if (dials.cut || dials.clogged || dials.halfOpen) return true;
    }
    return false;
  }

  /** Takes back every cut and clog; who has a dead connection has it still. */
  heal(): void {
    for (const { from, to } of this.#links.values())
      this.set(from, to, { cut: false, clogged: false });
  }

  /** The network as one boot of a brick sees it. */
  plug(owner: EventOwner, boot: number): Network & { setBoot(boot: number): void } {
    const port: Port = { owner, boot, receiver: null, peers: new Map(), callers: new Map() };
    this.#ports.set(owner.brick, port);
    for (const link of this.#links.values()) if (link.from === owner.brick) link.corked = [];
    return {
      send: (to, message) => this.#send(port, to, message),
      onMessage: (receiver) => {
        assert(port.receiver === null, "the receiver is set once");
        port.receiver = receiver;
      },
      setPeers: (peers) => {
        for (const [peer, address] of port.peers) {
          if (peers.get(peer) !== address) port.callers.delete(peer);
        }
        port.peers = new Map(peers);
      },
      setBoot: (number) => {
        port.boot = number;
      },
    };
  }

  #send(port: Port, to: BrickNumber, message: Message): void {
    const { owner } = port;
    if (!owner.alive) return;
    const bytes = messageBodyBytes(message);
    assert(bytes <= messageBodyBytesMax, "the message is too long");
    assert(message.type > 0, "type 0 is the network's own");
    this.stats.sent += 1;
    const link = this.#link(owner.brick, to);
    const caller = port.callers.get(to);
    const hasCalled = caller?.alive && caller === this.ownerOf(to);
    const unknown = to !== owner.brick && !port.peers.has(to) && !hasCalled;
    if (
      unknown ||
      link.dials.cut ||
      link.dials.halfOpen ||
      link.bytesUnderWay + bytes > linkBytesMax ||
      this.#prng.chance(link.dials.lossChance) ||
      this.filter?.(owner.brick, to, message) === false
    ) {
      this.stats.dropped += 1;
      message.release?.();
      return;
    }
    link.bytesUnderWay += bytes;
    const sent = { ...message, boot: port.boot };
    link.corked.push({ message: sent, bytes, body: Buffer.concat(message.body as Buffer[]) });
    if (link.corked.length === 1) {
      this.#clock.schedule(0, owner, eventKind.soon, 1, () => {
        const packets = link.corked;
        link.corked = [];
        this.#leave(link, packets);
      });
    }
  }

  #leave(link: Link, packets: Packet[]): void {
    if (link.dials.clogged) link.held.push(packets);
    else this.#travel(link, packets);
  }

  #travel(link: Link, packets: Packet[]): void {
    const prng = this.#prng;
    const { dials } = link;
    const together: Packet[] = [];
    for (const packet of packets) {
      if (prng.chance(dials.duplicateChance)) {
        this.stats.duplicated += 1;
        link.bytesUnderWay += packet.bytes;
        const body = Buffer.from(packet.body);
        const { release: _, ...message } = packet.message;
        const twin = { ...packet, message: { ...message, body: [body] }, body };
        this.#arriveAfter(link, this.#latencyMs(dials) + prng.unit() * dials.reorderMs, [twin]);
      }
      if (prng.chance(dials.reorderChance)) {
        this.#arriveAfter(link, this.#latencyMs(dials) + prng.unit() * dials.reorderMs, [packet]);
      } else {
        together.push(packet);
      }
    }
    if (together.length === 0) return;
    // A brick's own messages come back on the next tick.
    const latencyMs = link.from === link.to ? 0 : this.#latencyMs(dials);
    const bytes = together.reduce((sum, packet) => sum + packet.bytes, 0);
    const onTheWireMs = link.from === link.to ? 0 : (bytes / dials.bytesPerSecond) * 1000;
    const turnMs = Math.max(latencyMs, link.lastArrivalMs - this.#clock.nowMs);
    const event = this.#arriveAfter(link, turnMs + onTheWireMs, together);
    link.lastArrivalMs = event.atMs;
  }

  #latencyMs(dials: LinkDials): number {
    return dials.latencyMs[0] + this.#prng.unit() * (dials.latencyMs[1] - dials.latencyMs[0]);
  }

  #arriveAfter(link: Link, delayMs: number, packets: Packet[]): SimEvent {
    const first = packets[0]!.message;
    const type = (first.type << 16) | (link.from & 0xffff);
    const inTurnMs = delayMs + this.#handlingMs(link.to, delayMs, packets.length);
    return this.#clock.schedule(inTurnMs, link.wire, eventKind.message, type, () => {
      for (const packet of packets) this.#deliver(link, packet);
    });
  }

  /** What a brick has to do besides messages takes its turn with them. */
  handle(brick: BrickNumber): Promise<void> {
    const delayMs = this.#handlingMs(brick, 0, 1);
    return new Promise((resolve) => {
      this.#clock.schedule(delayMs, null, eventKind.control, 0, resolve);
    });
  }

  /** How much longer messages that arrive then take until they have been handled. */
  #handlingMs(brick: BrickNumber, delayMs: number, count: number): number {
    if (this.handlingMs === 0) return 0;
    const arrivalMs = this.#clock.nowMs + delayMs;
    const beginMs = Math.max(arrivalMs, this.#busyUntilMs.get(brick) ?? 0);
    const endMs = beginMs + count * this.handlingMs;
    this.#busyUntilMs.set(brick, endMs);
    return endMs - arrivalMs;
  }

  #deliver(link: Link, packet: Packet): void {
    link.bytesUnderWay -= packet.bytes;
    const port = this.#ports.get(link.to);
    // A message to oneself dies with the process; others arrive at whoever is there.
    const gone = link.from === link.to && port?.boot !== packet.message.boot;
    if (port?.receiver == null || !port.owner.alive || link.dials.cut || gone) {
      this.stats.dropped += 1;
      packet.message.release?.();
      return;
    }
    const caller = this.ownerOf(link.from);
    if (caller !== null) port.callers.set(link.from, caller);
    const { message, body } = packet;
    assert(isMadeOf(body, message.body), `brick ${link.from} changed buffers that it had sent`);
    const { trace } = this.#clock;
    trace.add((message.type << 1) | (message.reply ? 1 : 0));
    trace.add(message.request);
    trace.add(crc32(body));
    this.stats.delivered += 1;
    try {
      port.receiver(link.from, link.from === link.to ? message : received(message, body));
    } catch (error) {
      port.owner.failed(error);
    }
  }

  ownerOf(brick: BrickNumber): EventOwner | null {
    return this.#ports.get(brick)?.owner ?? null;
  }

  #link(from: BrickNumber, to: BrickNumber): Link {
    const key = from * 0x10000 + to;
    let link = this.#links.get(key);
    if (link === undefined) {
      const dials = from === to ? healthyLink() : { ...this.defaults };
      const wire = new Wire(this, to);
      link = { from, to, dials, corked: [], held: [], wire, bytesUnderWay: 0, lastArrivalMs: 0 };
      this.#links.set(key, link);
    }
    return link;
  }
}

/**
 * What a real network makes of it: bodies are lent, and what they were made of is released. Here short ones
 * are lent, too, so that whoever gives them back too early is found by any message.
 */
function received({ release, ...message }: Message, body: Buffer): Message {
  release?.();
  if (body.length === 0) return { ...message, body: [body] };
  const lent = Buffer.allocUnsafeSlow(body.length);
  body.copy(lent);
  return { ...message, body: [lent], release: () => giveBack(lent) };
}

function isMadeOf(body: Buffer, parts: readonly Uint8Array[]): boolean {
  let at = 0;
  for (const part of parts) {
    if (body.compare(part, 0, part.length, at, at + part.length) !== 0) return false;
    at += part.length;
  }
  return at === body.length;
}

/** Messages on the wire belong to no boot: they arrive at whoever is there, once it is not frozen. */
class Wire implements EventOwner {
  readonly alive = true;
  readonly brick: BrickNumber;
  readonly #network: SimNetwork;

  constructor(network: SimNetwork, brick: BrickNumber) {
    this.#network = network;
    this.brick = brick;
  }

  get frozenUntilMs(): number {
    const owner = this.#network.ownerOf(this.brick);
    return owner?.alive ? owner.frozenUntilMs : 0;
  }

  failed(error: unknown): void {
    throw error;
  }
}
