import net from "node:net";
import { assert } from "../assert.ts";
import type { Message, Network } from "../host.ts";
import { type BrickNumber, MiB } from "../units.ts";
import { type CloseReason, Connection } from "./connection-io.ts";
import {
  frameHeaderBytes,
  messageBodyBytes,
  messageBodyBytesMax,
  messageTypeMax,
} from "./frame.ts";
import type { HandshakeIdentity } from "./handshake.ts";

/**
 * The network between bricks: TCP, one connection for each pair of bricks, used both ways.
 *
 * The brick with the lower number dials, as soon as it knows the address, and keeps dialing. The
 * other one dials only when it has something to send and has not been called for a while. Should
 * two connections of a pair meet, the lower number's is the one that both send on.
 *
 * Who has called is answered though nobody has told this brick of it: its handshake has proved the
 * cluster, its number and the secret. A brick that was away may know no address of who leads by now.
 */

/** Bytes that may wait for one peer; what comes beyond is dropped. */
export const sendQueueBytesMax = 64 * MiB;
/** Accepted connections that have not proved themselves; more are closed at once. */
export const strangersMax = 64;
/** Connections of one peer; only while old ones are found dead there is more than one. */
const connectionsPerPeerMax = 4;
const redialDelayMsMin = 20;
const redialDelayMsMax = 2000;
/** How long the higher number waits to be called. */
const higherDialDelayMs = 100;
const keepaliveEveryMs = 1000;
/** A connection on which nothing came for this long is dead: keepalives would have come. */
const silenceMsMax = 6000;
const refusalLogEveryMs = 1000;
/** Turns of the event loop that messages wait for others at most, while others come. */
const lingerTurnsMax = 3;
/** They wait only while so many leave together on average: alone, nothing is gained. */
const lingerMessagesMin = 1.5;
/** Flushes that the average looks back on, roughly. */
const flushesAveraged = 16;

export interface NetworkOptions extends HandshakeIdentity {
  /** Of this start of the brick; goes out in every message. */
  boot: number;
  /** "HOST:PORT"; port 0 takes a free one. */
  listen: string;
  log: (line: string) => void;
  /** What may wait for one peer, when it is not `sendQueueBytesMax`. */
  sendQueueBytes?: number;
}

export interface NetworkStats {
  sentMessages: number;
  sentBytes: number;
  receivedMessages: number;
  receivedBytes: number;
  /** Not sent: no such peer, no connection, or too much waiting. */
  droppedMessages: number;
  droppedBytes: number;
  /** Handshakes that failed, deadlines and crowds included. */
  refusedConnections: number;
  /** Connections closed because of what they sent. */
  faultyConnections: number;
  dials: number;
  connections: number;
}

export interface RealNetwork extends Network {
  /** Where this brick listens, with the port that was taken. */
  readonly address: string;
  readonly stats: Readonly<NetworkStats>;
  close(): Promise<void>;
}

interface Peer {
  readonly number: BrickNumber;
  /** null for a peer that we were not told of: it is sent to only while it has called. */
  address: string | null;
  connections: Connection[];
  dialing: Connection | null;
  /** Where messages go now; one of `connections`. */
  current: Connection | null;
  queue: Message[];
  queuedBytes: number;
  redialDelayMs: number;
  redialTimer: NodeJS.Timeout | null;
}

/** Listens, and resolves when it does; rejects with Node's error when the address is taken. */
export async function openNetwork(options: NetworkOptions): Promise<RealNetwork> {
  const network = new TcpNetwork(options);
  await network.listen();
  return network;
}

class TcpNetwork implements RealNetwork {
  address: string;
  readonly stats: NetworkStats = {
    sentMessages: 0,
    sentBytes: 0,
    receivedMessages: 0,
    receivedBytes: 0,
    droppedMessages: 0,
    droppedBytes: 0,
    refusedConnections: 0,
    faultyConnections: 0,
    dials: 0,
    connections: 0,
  };
  readonly #options: NetworkOptions;
  readonly #peers = new Map<BrickNumber, Peer>();
  readonly #strangers = new Set<Connection>();
  readonly #server: net.Server;
  readonly #keepaliveTimer: NodeJS.Timeout;
  #receiver: ((from: BrickNumber, message: Message) => void) | null = null;
  /** Messages to ourselves that are not taken yet. */
  #own: Message[] = [];
  /** Peers with a queue and a connection, to be flushed at the end of the tick. */
  #unflushed: Peer[] = [];
  #flushAsked = false;
  /** Messages ever queued for peers, now and when it was last looked whether there were more. */
  #queuedCount = 0;
  #queuedAtLook = 0;
  #lingered = 0;
  /** Messages that left together, on average. */
  #flushMessagesMean = 1;
  #checkedAtMs = performance.now();
  #refusalLoggedAtMs = Number.NEGATIVE_INFINITY;
  #open = true;

  constructor(options: NetworkOptions) {
    assert(options.self > 0 && options.self <= 0xffff);
    assert(Number.isSafeInteger(options.boot) && options.boot >= 0);
    this.#options = options;
    this.address = options.listen;
    this.#server = net.createServer({ pauseOnConnect: true }, (socket) => this.#accept(socket));
    this.#server.on("error", (error) => options.log(`network: ${error.message}`));
    this.#keepaliveTimer = setInterval(() => this.#check(), keepaliveEveryMs);
  }

  listen(): Promise<void> {
    const { host, port } = parseAddress(this.#options.listen);
    return new Promise((resolve, reject) => {
      this.#server.once("error", (error) => {
        clearInterval(this.#keepaliveTimer);
        reject(error);
      });
      this.#server.listen({ host, port }, () => {
        const bound = this.#server.address() as net.AddressInfo;
        this.address = `${host.includes(":") ? `[${host}]` : host}:${bound.port}`;
        resolve();
      });
    });
  }

  send(to: BrickNumber, message: Message): void {
    const bodyBytes = messageBodyBytes(message);
    assert(bodyBytes <= messageBodyBytesMax, "the message is too long");
    assert(message.type > 0 && message.type <= messageTypeMax, "type 0 is the network's own");
    if (!this.#open) {
      message.release?.();
      return;
    }
    message.boot = this.#options.boot;
    if (to === this.#options.self) {
      // Taken once whoever is at work now has come to an end: what it leads to leaves in this turn.
      if (this.#own.length === 0) queueMicrotask(() => this.#takeOwn());
      this.#own.push(message);
      return;
    }
    const bytes = frameHeaderBytes + bodyBytes;
    const peer = this.#peers.get(to);
    const waiting = peer === undefined ? 0 : peer.queuedBytes + (peer.current?.waitingBytes ?? 0);
    const queueBytesMax = this.#options.sendQueueBytes ?? sendQueueBytesMax;
    const unknown = peer === undefined || (peer.address === null && peer.current === null);
    if (unknown || waiting + bytes > queueBytesMax) {
      this.stats.droppedMessages += 1;
      this.stats.droppedBytes += bytes;
      message.release?.();
      return;
    }
    this.#queuedCount += 1;
    peer.queue.push(message);
    peer.queuedBytes += bytes;
    if (peer.current === null) {
      this.#dialSoon(peer);
    } else if (peer.queue.length === 1) {
      this.#unflushed.push(peer);
      this.#askForFlush();
    }
  }

  onMessage(receiver: (from: BrickNumber, message: Message) => void): void {
    assert(this.#receiver === null, "the receiver is set once");
    this.#receiver = receiver;
  }

  setPeers(addresses: ReadonlyMap<BrickNumber, string>): void {
    for (const peer of this.#peers.values()) {
      const address = addresses.get(peer.number) ?? null;
      if (address !== peer.address) this.#forget(peer);
    }
    for (const [number, address] of addresses) {
      if (number === this.#options.self) continue;
      assert(number > 0 && number <= 0xffff);
      parseAddress(address);
      const peer = this.#peer(number);
      if (peer.address === address) continue;
      peer.address = address;
      if (this.#options.self < number && peer.current === null) this.#dialSoon(peer);
    }
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    clearInterval(this.#keepaliveTimer);
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const peer of this.#peers.values()) this.#forget(peer);
    for (const stranger of this.#strangers)
      stranger.close({ code: "closed", detail: "shutting down" });
    await closed;
  }

  #peer(number: BrickNumber): Peer {
    let peer = this.#peers.get(number);
    if (peer === undefined) {
      peer = {
        number,
        address: null,
        connections: [],
        dialing: null,
        current: null,
        queue: [],
        queuedBytes: 0,
        redialDelayMs: redialDelayMsMin,
        redialTimer: null,
      };
      this.#peers.set(number, peer);
    }
    return peer;
  }

  /** The peer is gone, or is elsewhere now. */
  #forget(peer: Peer): void {
    peer.address = null;
    if (peer.redialTimer !== null) clearTimeout(peer.redialTimer);
    peer.redialTimer = null;
    peer.redialDelayMs = redialDelayMsMin;
    this.#dropQueue(peer);
    const why: CloseReason = { code: "closed", detail: "no longer a peer" };
    peer.dialing?.close(why);
    for (const connection of [...peer.connections]) connection.close(why);
  }

  #dropQueue(peer: Peer): void {
    this.stats.droppedMessages += peer.queue.length;
    this.stats.droppedBytes += peer.queuedBytes;
    const dropped = peer.queue;
    peer.queue = [];
    peer.queuedBytes = 0;
    for (const message of dropped) message.release?.();
  }

  #askForFlush(): void {
    if (this.#flushAsked) return;
    this.#flushAsked = true;
    setImmediate(() => this.#flush());
  }

  #flush(): void {
    this.#flushAsked = false;
    if (this.#mayLinger()) this.#askForFlush();
    else {
      const peers = this.#unflushed;
      this.#unflushed = [];
      this.#lingered = 0;
      const sentBefore = this.stats.sentMessages;
      for (const peer of peers) this.#flushPeer(peer);
      const sent = this.stats.sentMessages - sentBefore;
      this.#flushMessagesMean += (sent - this.#flushMessagesMean) / flushesAveraged;
    }
  }

  #takeOwn(): void {
    const own = this.#own;
    this.#own = [];
    for (const message of own) this.#receiver?.(this.#options.self, message);
  }

  /**
   * Under load, while every turn of the event loop brings more to send, it waits for a few turns more:
   * a write of the socket costs more than all else that is done for a message. The first turn that
   * brings nothing ends the waiting. A lone message leaves with the turn that made it: before its
   * sender's own flush, which is asked for after it, keeps the loop busy.
   */
  #mayLinger(): boolean {
    const grew = this.#queuedCount !== this.#queuedAtLook;
    this.#queuedAtLook = this.#queuedCount;
    if (this.#flushMessagesMean < lingerMessagesMin) return false;
    if (!grew || this.#unflushed.length === 0 || this.#lingered >= lingerTurnsMax) return false;
    this.#lingered += 1;
    return true;
  }

  #flushPeer(peer: Peer): void {
    if (peer.current === null || peer.queue.length === 0) return;
    const messages = peer.queue;
    this.stats.sentMessages += messages.length;
    this.stats.sentBytes += peer.queuedBytes;
    peer.queue = [];
    peer.queuedBytes = 0;
    peer.current.send(messages);
  }

  /** Dials, now or when its turn comes, unless that is under way. */
  #dialSoon(peer: Peer): void {
    if (!this.#open || peer.address === null) return;
    if (peer.dialing !== null || peer.redialTimer !== null) return;
    const wait = this.#options.self < peer.number ? 0 : higherDialDelayMs;
    const delayMs = peer.redialDelayMs === redialDelayMsMin ? wait : peer.redialDelayMs;
    peer.redialTimer = setTimeout(() => {
      peer.redialTimer = null;
      this.#dial(peer);
    }, delayMs);
  }

  #dial(peer: Peer): void {
    if (peer.address === null || peer.current !== null || peer.dialing !== null) return;
    this.stats.dials += 1;
    peer.redialDelayMs = Math.min(peer.redialDelayMs * 2, redialDelayMsMax);
    const end = { peer: peer.number, ...parseAddress(peer.address) };
    peer.dialing = new Connection(this.#options, this.#events, end);
  }

  #accept(socket: net.Socket): void {
    if (!this.#open || this.#strangers.size >= strangersMax) {
      this.stats.refusedConnections += 1;
      socket.destroy();
      return;
    }
    this.#strangers.add(new Connection(this.#options, this.#events, { accepted: socket }));
  }

  readonly #events = {
    authenticated: (connection: Connection) => this.#authenticated(connection),
    message: (connection: Connection, message: Message) => {
      this.stats.receivedMessages += 1;
      this.stats.receivedBytes += frameHeaderBytes + message.body[0]!.length;
      this.#receiver?.(connection.peer, message);
    },
    closed: (connection: Connection, why: CloseReason) => this.#closed(connection, why),
  };

  #authenticated(connection: Connection): void {
    this.#strangers.delete(connection);
    const peer = this.#peer(connection.peer);
    if (peer.dialing === connection) peer.dialing = null;
    peer.redialDelayMs = redialDelayMsMin;
    peer.connections.push(connection);
    this.stats.connections += 1;
    if (peer.connections.length > connectionsPerPeerMax) {
      peer.connections[0]!.close({ code: "closed", detail: "too many connections" });
    }
    this.#choose(peer);
    for (const other of [...peer.connections]) {
      if (other === peer.current) continue;
      // Its dialer ends it, so that both sides agree; a second one of the same dialer is the new one.
      if (other.dialed) other.end();
      else if (other.dialed === connection.dialed && other !== connection) {
        other.close({ code: "closed", detail: "the peer called again" });
      }
    }
  }

  /** The connection to send on: the lower number's, else the youngest. */
  #choose(peer: Peer): void {
    const lowerDials = this.#options.self < peer.number;
    let best: Connection | null = null;
    for (const connection of peer.connections) {
      if (!connection.usable) continue;
      if (best === null || connection.dialed === lowerDials || best.dialed !== lowerDials) {
        best = connection;
      }
    }
    peer.current = best;
    if (best !== null) this.#flushPeer(peer);
  }

  #closed(connection: Connection, why: CloseReason): void {
    const wasStranger = this.#strangers.delete(connection);
    if (why.code === "fault") this.stats.faultyConnections += 1;
    if (why.code === "refused" || (why.code === "deadline" && wasStranger)) {
      this.stats.refusedConnections += 1;
      this.#logRefusal(connection, why);
    }
    const peer = this.#peers.get(connection.peer);
    if (peer === undefined) return;
    if (peer.dialing === connection) {
      peer.dialing = null;
      // Nobody is there: what waited is lost, and the senders' retries count from now.
      if (peer.current === null) this.#dropQueue(peer);
    }
    const at = peer.connections.indexOf(connection);
    if (at >= 0) {
      peer.connections.splice(at, 1);
      this.stats.connections -= 1;
      if (this.#open) {
        this.#options.log(`network: lost brick ${peer.number}: ${describe(why)}`);
      }
    }
    this.#choose(peer);
    if (peer.current !== null) return;
    if (peer.address === null) this.#dropQueue(peer);
    else if (this.#options.self < peer.number || peer.queue.length > 0) this.#dialSoon(peer);
  }

  /** Strangers must not fill the log. */
  #logRefusal(connection: Connection, why: CloseReason): void {
    const nowMs = performance.now();
    if (nowMs - this.#refusalLoggedAtMs < refusalLogEveryMs) return;
    this.#refusalLoggedAtMs = nowMs;
    const whom = connection.dialed ? `by brick ${connection.peer}` : connection.remoteAddress;
    this.#options.log(
      `network: refused ${whom}: ${describe(why)} (${this.stats.refusedConnections} so far)`,
    );
  }

  /** Once a second: keeps quiet connections alive and ends dead ones. */
  #check(): void {
    const nowMs = performance.now();
    // When we ourselves stood still, the peers' keepalives are waiting to be read: judge next time.
    const stoodStill = nowMs - this.#checkedAtMs > 2 * keepaliveEveryMs;
    this.#checkedAtMs = nowMs;
    for (const peer of this.#peers.values()) {
      for (const connection of [...peer.connections]) {
        if (nowMs - connection.lastReceivedMs > silenceMsMax && !stoodStill) {
          connection.close({ code: "closed", detail: "silence" });
        } else if (connection.usable && nowMs - connection.lastSentMs >= keepaliveEveryMs) {
          connection.keepalive();
        }
      }
    }
  }
}

function describe(why: CloseReason): string {
  switch (why.code) {
    case "closed":
      return why.detail;
    case "deadline":
      return "no handshake in time";
    case "refused":
      return `handshake: ${why.reason}`;
    case "fault":
      return `bad bytes: ${why.fault.code}`;
  }
}

/** Splits "HOST:PORT" or "[IPV6]:PORT". */
export function parseAddress(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(":");
  const host = address.slice(0, Math.max(colon, 0)).replace(/^\[(.*)\]$/, "$1");
  const port = Number(address.slice(colon + 1));
  if (colon < 1 || host === "" || !Number.isInteger(port) || port < 0 || port > 65535) {
    throw new RangeError(`the address "${address}" is not of the form HOST:PORT`);
  }
  return { host, port };
}
