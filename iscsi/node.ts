import type { Clock } from "../brick/host.ts";
import { NumberMap } from "../brick/number-map.ts";
import type { VolumeDirectory } from "../brick/volume/volume.ts";
import { Audit } from "./audit.ts";
import type { Authority } from "./authority.ts";
import { commandWindow, sessionsPerInitiatorMax, sessionsPerTargetMax } from "./limits.ts";
import type { LoginPolicy } from "./login.ts";
import type { SessionParameters } from "./login-keys.ts";
import type { LoginIdentity } from "./login-request.ts";
import { loginStatus } from "./login-status.ts";
import { LoginThrottle } from "./login-throttle.ts";
import { abortTasks } from "./scsi-task.ts";
import { serialAdd } from "./serial32.ts";
import { attachLuns, detach, volumesOf } from "./session-luns.ts";
import type { Connection, Session, TargetMetrics, TargetNode } from "./session-state.ts";

/** The sessions behind one portal: who may log in, who makes room for whom, how one ends. */

const tsihMax = 0xffff;

export interface NodeOptions {
  directory: VolumeDirectory;
  authority: Authority;
  portalGroupTag: number;
  announce: string;
  clock: Clock;
  log: (line: string) => void;
  metrics: TargetMetrics | null;
  secretBytes: (lengthBytes: number) => Buffer;
}

export function makeNode(options: NodeOptions): TargetNode {
  return {
    ...options,
    units: new Map(),
    sessions: new Map(),
    nexuses: new Map(),
    challenges: new Set(),
    throttle: new LoginThrottle(),
    audit: new Audit(options.log),
    draining: false,
    drainDueMs: null,
    lastTsih: 0,
  };
}

/** Whether a proof is asked of the initiator now that it has not given. */
export function mustProve(
  node: TargetNode,
  { proven, identity }: Pick<Joining, "proven" | "identity">,
): boolean {
  const { initiatorName, targetName } = identity;
  return !proven && node.authority.proof(initiatorName, targetName).method === "chap";
}

/** RFC 7143 §4.4.3: initiator name, ISID, target name; the portal group is this node's. */
function nexusKey(identity: LoginIdentity): string {
  return `${identity.targetName}\0${identity.initiatorName}\0${identity.isid}`;
}

export function loginPolicy(node: TargetNode): LoginPolicy {
  const { authority, challenges } = node;
  return {
    portalGroupTag: node.portalGroupTag,
    challenges: {
      draw: node.secretBytes,
      isOut: (challenge) => challenges.has(challenge.toString("hex")),
      out: (challenge) => void challenges.add(challenge.toString("hex")),
      back: (challenge) => void challenges.delete(challenge.toString("hex")),
    },
    redirect: () => authority.redirect()?.address ?? null,
    proof: ({ initiatorName, discovery, targetName }) => {
      return authority.proof(initiatorName, discovery ? null : targetName);
    },
    admit: (identity, tsih) => admit(node, identity, tsih),
  };
}

function admit(node: TargetNode, identity: LoginIdentity, tsih: number): number {
  if (node.draining) return loginStatus.serviceUnavailable;
  if (tsih !== 0) {
    const refusal = joinRefusal(node.sessions.get(tsih), identity);
    if (refusal !== null) return refusal;
  }
  const { initiatorName, targetName } = identity;
  const sessions = [...node.sessions.values()];
  const reinstates = node.nexuses.has(nexusKey(identity));
  const own = sessions.filter((one) => one.identity.initiatorName === initiatorName).length;
  if (own >= sessionsPerInitiatorMax && !reinstates) return loginStatus.outOfResources;
  if (identity.discovery) return loginStatus.success;
  if (node.authority.target(initiatorName, targetName) === "forbidden") {
    return loginStatus.notAuthorized;
  }
  if (volumesOf(node, initiatorName, targetName).size === 0) return loginStatus.notFound;
  const others = sessions.filter((one) => one.identity.targetName === targetName).length;
  if (others >= sessionsPerTargetMax && !reinstates) return loginStatus.outOfResources;
  return loginStatus.success;
}

/**
 * RFC 7143 §6.3.1: what a login with a TSIH may do to the session of that TSIH. A further
 * connection: nothing, MaxConnections is 1. The same CID again (§6.3.4, connection reinstatement):
 * it takes the place of the old connection. With error recovery level 0 nothing outlives a
 * connection, so that the session begins anew, its tasks settled, under its TSIH.
 */
function joinRefusal(session: Session | undefined, identity: LoginIdentity): number | null {
  const same =
    session !== undefined &&
    !session.ended &&
    !session.identity.discovery &&
    nexusKey(session.identity) === nexusKey(identity);
  if (!same) return loginStatus.sessionUnknown;
  return session.identity.connectionId === identity.connectionId
    ? null
    : loginStatus.tooManyConnections;
}

/** An accepted login. */
export interface Joining {
  readonly identity: LoginIdentity;
  readonly proven: boolean;
  readonly parameters: SessionParameters;
  readonly initCmdSn: number;
  /** 0: a new session. */
  readonly tsih: number;
}

/**
 * Makes the session of an accepted login, once an older one of the same nexus has ended and
 * settled (RFC 7143 §6.3.5, session reinstatement). `joined` gets null when the target is gone.
 */
export function joinNode(
  connection: Connection,
  joining: Joining,
  joined: (session: Session | null) => void,
): void {
  const { node } = connection;
  const { identity } = joining;
  const older = node.nexuses.get(nexusKey(identity));
  if (older !== undefined && !identity.discovery) {
    // Before ending it: a session without running tasks settles at once.
    older.onSettled.push(() => joinNode(connection, joining, joined));
    endSession(older, "reinstated");
    return;
  }
  if (connection.phase === "ended") return;
  const { initiatorName, targetName, discovery } = identity;
  const volumes = discovery ? new Map() : volumesOf(node, initiatorName, targetName);
  // The TSIH that is asked for was the older session's, and is free now.
  const { tsih: wanted } = joining;
  const tsih = wanted !== 0 && !node.sessions.has(wanted) ? wanted : freeTsih(node);
  // Access may have changed since the proof was asked, or was not.
  const admitted = discovery || (volumes.size > 0 && !mustProve(node, joining));
  if (!admitted || tsih === null) {
    joined(null);
    return;
  }
  const session = newSession(connection, joining, tsih);
  attachLuns(session, volumes);
  node.sessions.set(tsih, session);
  if (!discovery) node.nexuses.set(nexusKey(identity), session);
  node.metrics?.sessions(node.sessions.size);
  joined(session);
}

function newSession(
  connection: Connection,
  { identity, proven, parameters, initCmdSn }: Joining,
  tsih: number,
): Session {
  return {
    node: connection.node,
    connection,
    identity,
    tsih,
    proven,
    parameters,
    luns: new Map(),
    lunList: [],
    peers: [],
    expCmdSn: initCmdSn,
    maxCmdSn: serialAdd(initCmdSn, commandWindow - 1),
    tasks: new NumberMap(),
    immediateTasks: 0,
    managing: 0,
    fence: null,
    held: new NumberMap(),
    waiting: [],
    admitted: 0,
    admittedBytes: 0,
    orderedAdmitted: false,
    lastTransferTag: 0,
    text: null,
    loggingOut: false,
    ended: false,
    onSettled: [],
  };
}

function freeTsih(node: TargetNode): number | null {
  for (let tried = 0; tried < tsihMax; tried += 1) {
    node.lastTsih = (node.lastTsih % tsihMax) + 1;
    if (!node.sessions.has(node.lastTsih)) return node.lastTsih;
  }
  return null;
}

/** Ends a session: its connection closes, its tasks are cancelled, then it is forgotten. */
export function endSession(session: Session, why: string): void {
  if (session.ended) return;
  session.ended = true;
  const { node, connection, identity } = session;
  connection.phase = "ended";
  connection.closing ??= "now";
  connection.wake();
  if (!identity.discovery) {
    node.log(`iscsi: ${identity.initiatorName} leaves ${identity.targetName}: ${why}`);
  }
  session.held.clear();
  session.fence = null;
  abortTasks([...session.tasks.values()], () => forget(session));
}

/** Its nexuses stay until here, so that a reset by another initiator waits for its tasks too. */
function forget(session: Session): void {
  const { node, identity } = session;
  node.sessions.delete(session.tsih);
  const key = nexusKey(identity);
  if (node.nexuses.get(key) === session) node.nexuses.delete(key);
  for (const lun of session.luns.values()) detach(node, lun);
  session.luns.clear();
  node.metrics?.sessions(node.sessions.size);
  for (const action of session.onSettled) action();
}

/** TARGET COLD RESET ends every session of the target; the asking one after its answer. */
export function coldReset(asking: Session): void {
  const { targetName } = asking.identity;
  for (const session of [...asking.node.sessions.values()]) {
    if (session.identity.targetName !== targetName || session.identity.discovery) continue;
    if (session === asking) session.connection.closing = "afterFlush";
    endSession(session, "target cold reset");
  }
}
