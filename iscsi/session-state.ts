import type { Clock } from "../brick/host.ts";
import type { NumberMap } from "../brick/number-map.ts";
import type { LentMemory } from "../brick/rpc/lent-memory.ts";
import type { Stage, StageTimes } from "../brick/stage-times.ts";
import type { VolumeDirectory, VolumeTask } from "../brick/volume/volume.ts";
import type { Audit } from "./audit.ts";
import type { Authority } from "./authority.ts";
import type { Login } from "./login.ts";
import type { SessionParameters } from "./login-keys.ts";
import type { LoginIdentity } from "./login-request.ts";
import type { LoginThrottle } from "./login-throttle.ts";
import type { Outbox } from "./outbox.ts";
import type { PduStream } from "./pdu-stream.ts";
import type { CommandRow, ScsiCommand } from "./scsi/command.ts";
import type { LogicalUnit, Nexus } from "./scsi/logical-unit.ts";
import type { Sense } from "./scsi/sense.ts";
import type { TextExchange } from "./text-exchange.ts";

/** The states that the files of the target share: node, connection, session, task. */

/** What the owner of the portal counts. Calls are cheap and synchronous. */
export interface TargetMetrics {
  /** How long commands take from the socket to the volume, and back into the socket. */
  readonly stages?: StageTimes;
  /** A command was answered. */
  command(
    opcode: number,
    status: number,
    latencyMs: number,
    inBytes: number,
    outBytes: number,
  ): void;
  /** Sessions logged in now. */
  sessions(count: number): void;
  /** A login was refused; class and detail of RFC 7143 §11.13.5 in one number. */
  loginRefused(status: number): void;
  /** A PDU was rejected, or a connection closed for what it sent. */
  protocolError(reason: string): void;
}

/** A logical unit, and what tells it of changes to the state that all portals share. */
export interface NodeUnit {
  readonly unit: LogicalUnit;
  readonly watch: { stop(): void };
}

/** Everything behind one portal. */
export interface TargetNode {
  readonly directory: VolumeDirectory;
  readonly portalGroupTag: number;
  readonly announce: string;
  readonly clock: Clock;
  readonly log: (line: string) => void;
  readonly metrics: TargetMetrics | null;
  readonly authority: Authority;
  /** By volume uuid, while a session uses it. */
  readonly units: Map<string, NodeUnit>;
  /** By TSIH; a session stays until its last task has settled. */
  readonly sessions: Map<number, Session>;
  /** By I_T nexus. */
  readonly nexuses: Map<string, Session>;
  /** CHAP challenges that are out, hex: RFC 7143 §9.2.1 forbids to answer one's own. */
  readonly challenges: Set<string>;
  readonly throttle: LoginThrottle;
  readonly audit: Audit;
  /** Bytes that nobody can foretell, for challenges. */
  readonly secretBytes: (lengthBytes: number) => Buffer;
  /** No new logins. */
  draining: boolean;
  /** Sessions were asked to log out; when those that stay are let go. null: they may stay. */
  drainDueMs: number | null;
  lastTsih: number;
}

/**
 *     login ──proof given──▶ examining ──in its turn──▶ login
 *     login ──accepted──▶ joining ──older session settled──▶ full ──▶ ended
 *
 * Any of them may become `ended`.
 */
export interface Connection {
  readonly node: TargetNode;
  /** "ADDRESS:PORT", and the address alone. */
  readonly remote: string;
  readonly address: string;
  readonly stream: PduStream;
  readonly outbox: Outbox;
  phase: "login" | "examining" | "joining" | "full" | "ended";
  login: Login | null;
  session: Session | null;
  statSn: number;
  /** The socket is to be closed: when the outbox has gone out, or at once. */
  closing: "afterFlush" | "now" | null;
  /** What the socket has been given and has not taken; kept up to date by its driver. */
  unsentBytes: number;
  /** What the outbox has owed longest is the answer of this, since then; 0: it is not timed. */
  answerStage: Stage;
  answerSinceMs: number;
  readonly openedMs: number;
  /** When the last whole PDU had come: a peer that sends byte by byte is as good as silent. */
  lastReceivedMs: number;
  /** When the ping that is under way was sent. */
  pingSentMs: number | null;
  /** Tells the driver that the outbox or `closing` has changed; it acts once a tick. */
  readonly wake: () => void;
}

export interface Session {
  readonly node: TargetNode;
  readonly connection: Connection;
  readonly identity: LoginIdentity;
  readonly tsih: number;
  /** Its initiator has proven itself. */
  readonly proven: boolean;
  readonly parameters: SessionParameters;
  /** Its logical units by LUN; none in a discovery session. */
  readonly luns: Map<number, SessionLun>;
  /** The keys and the values of `luns`, ascending; replaced when they change. */
  lunList: readonly number[];
  peers: readonly SessionLun[];
  expCmdSn: number;
  maxCmdSn: number;
  readonly tasks: NumberMap<ScsiTask>;
  immediateTasks: number;
  /** Task management that waits for tasks to settle. */
  managing: number;
  /**
   * While a request that empties task sets is under way: what came after it, in order, and may not
   * begin before its answer (else it would be ended with the others, and never answered).
   */
  fence: (() => void)[] | null;
  /** Requests whose turn has not come: a CmdSN before theirs is missing. */
  readonly held: NumberMap<() => void>;
  /** In order, not started: for memory's sake, or behind an ORDERED command. */
  readonly waiting: ScsiTask[];
  admitted: number;
  admittedBytes: number;
  orderedAdmitted: boolean;
  lastTransferTag: number;
  text: TextExchange | null;
  /** A Logout Request is being answered: nothing else is heard any more. */
  loggingOut: boolean;
  ended: boolean;
  /** Called when the session has ended and its last task has settled. */
  readonly onSettled: (() => void)[];
}

/** A logical unit as one session sees it. */
export interface SessionLun {
  readonly unit: LogicalUnit;
  readonly nexus: Nexus;
}

export interface R2t {
  tag: number;
  /** Up to here it asks for data. */
  endOffset: number;
}

/**
 *     held ──CmdSN──▶ waiting ──admitted──▶ receiving ──data──▶ running ──▶ ended
 *       └─▶ fenced ──▶─┘
 */
export interface ScsiTask extends Omit<ScsiCommand, "unit" | "nexus" | "task"> {
  readonly session: Session;
  /** null, both: there is no such logical unit. */
  readonly unit: LogicalUnit | null;
  readonly nexus: Nexus | null;
  readonly row: CommandRow | null | undefined;
  readonly tag: number;
  /** The LUN as it was written, and as it was understood. */
  readonly lunHigh: number;
  readonly lunLow: number;
  readonly lun: number | undefined;
  readonly immediate: boolean;
  readonly attribute: number;
  readonly reads: boolean;
  readonly writes: boolean;
  readonly cmdSn: number;
  /** The initiator's Expected Data Transfer Length. */
  readonly expectedBytes: number;
  /** What the command asks for; the transport collects no more than is expected. */
  readonly wantedBytes: number;
  readonly costBytes: number;
  readonly receivedMs: number;
  dataOut: Buffer[];
  /** What long data of it lie in. */
  received: LentMemory | null;
  dataOutBytes: number;
  /** The last buffer of `dataOut`, when it is one that small pieces are copied into. */
  gathered: { readonly buffer: Buffer; length: number } | null;
  /** Of Data-Out received, wanted or not: where the next must begin. */
  receivedBytes: number;
  /** Unsolicited Data-Out is still to come. */
  unsolicited: boolean;
  dataSn: number;
  r2ts: R2t[];
  r2tSn: number;
  r2tOffset: number;
  state: "held" | "fenced" | "waiting" | "receiving" | "running" | "ended";
  aborted: boolean;
  /** Ended by another initiator: no answer is owed, unless it had come to its end. */
  cleared: boolean;
  /** Ended by another initiator before it could run: answered TASK ABORTED once its data has come. */
  answersAborted: boolean;
  /** Ends the command with this once its data has come. */
  failure: Sense | null;
  /** Some of its data came with a wrong digest. */
  damaged: boolean;
  /** Made when the command begins to run. */
  task: VolumeTask | null;
  onSettled: (() => void)[] | null;
}

export const taskAttribute = { untagged: 0, simple: 1, ordered: 2, headOfQueue: 3 } as const;
