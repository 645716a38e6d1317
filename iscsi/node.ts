import type { Clock } from "../brick/host.ts";
import type { VolumeDirectory } from "../brick/volume/volume.ts";
import { commandWindow, sessionsPerTargetMax } from "./limits.ts";
import { type LoginIdentity, type LoginPolicy, loginStatus } from "./login.ts";
import type { SessionParameters } from "./login-keys.ts";
import {
  addNexus,
  type LogicalUnit,
  makeLogicalUnit,
  takeUnitRecord,
} from "./scsi/logical-unit.ts";
import { abortTasks } from "./scsi-task.ts";
import { serialAdd } from "./serial32.ts";
import type { Connection, Session, TargetMetrics, TargetNode } from "./session-state.ts";
import { volumeNameOf } from "./target-name.ts";

/** The sessions behind one portal: who may log in, who makes room for whom, how one ends. */

const tsihMax = 0xffff;

export function makeNode(options: {
  directory: VolumeDirectory;
  portalGroupTag: number;
  announce: string;
  clock: Clock;
  log: (line: string) => void;
  metrics: TargetMetrics | null;
}): TargetNode {
  return {
    ...options,
    units: new Map(),
    sessions: new Map(),
    nexuses: new Map(),
    draining: false,
    lastTsih: 0,
  };
}

/** RFC 7143 §4.4.3: initiator name, ISID, target name; the portal group is this node's. */
function nexusKey(identity: LoginIdentity): string {
  return `${identity.targetName}\0${identity.initiatorName}\0${identity.isid}`;
}

export function loginPolicy(node: TargetNode): LoginPolicy {
  return {
    portalGroupTag: node.portalGroupTag,
    admit: (identity, tsih) => admit(node, identity, tsih),
  };
}

function admit(node: TargetNode, identity: LoginIdentity, tsih: number): number {
  if (node.draining) return loginStatus.serviceUnavailable;
  if (tsih !== 0) {
    // One connection a session: nothing can be added to one, nor taken over (ERL 0).
    return node.sessions.has(tsih) ? loginStatus.tooManyConnections : loginStatus.sessionUnknown;
  }
  if (identity.discovery) return loginStatus.success;
  if (openUnit(node, identity.targetName) === undefined) return loginStatus.notFound;
  let others = 0;
  for (const session of node.sessions.values()) {
    if (session.identity.targetName === identity.targetName) others += 1;
  }
  const reinstates = node.nexuses.has(nexusKey(identity));
  if (others >= sessionsPerTargetMax && !reinstates) return loginStatus.outOfResources;
  return loginStatus.success;
}

/** The unit of a target; the same one for all its sessions, while the volume is the same. */
function openUnit(node: TargetNode, targetName: string): LogicalUnit | undefined {
  const volumeName = volumeNameOf(targetName);
  if (volumeName === undefined) return undefined;
  const volume = node.directory.open(volumeName);
  if (volume === undefined) return undefined;
  const known = node.units.get(targetName);
  if (known?.volume.info.uuid === volume.info.uuid) return known;
  const { portalGroupTag } = node;
  const unit = makeLogicalUnit({ volume, targetName, portalGroupTag });
  volume.watchUnit(async (record) => void takeUnitRecord(unit, record));
  return unit;
}

/**
 * Makes the session of an accepted login, once an older one of the same nexus has ended and
 * settled (RFC 7143 §6.3.5, session reinstatement). `joined` gets null when the target is gone.
 */
export function joinNode(
  connection: Connection,
  identity: LoginIdentity,
  parameters: SessionParameters,
  initCmdSn: number,
  joined: (session: Session | null) => void,
): void {
  const { node } = connection;
  const older = node.nexuses.get(nexusKey(identity));
  if (older !== undefined && !identity.discovery) {
    // Before ending it: a session without running tasks settles at once.
    older.onSettled.push(() => joinNode(connection, identity, parameters, initCmdSn, joined));
    endSession(older, "reinstated");
    return;
  }
  if (connection.phase === "ended") return;
  const unit = identity.discovery ? null : openUnit(node, identity.targetName);
  const tsih = freeTsih(node);
  if (unit === undefined || tsih === null) {
    joined(null);
    return;
  }
  if (unit !== null) node.units.set(identity.targetName, unit);
  const session: Session = {
    node,
    connection,
    identity,
    tsih,
    parameters,
    unit,
    nexus: unit === null ? null : addNexus(unit, identity.initiatorName, identity.isid),
    expCmdSn: initCmdSn,
    maxCmdSn: serialAdd(initCmdSn, commandWindow - 1),
    tasks: new Map(),
    immediateTasks: 0,
    managing: 0,
    held: new Map(),
    waiting: [],
    admitted: 0,
    admittedBytes: 0,
    orderedAdmitted: false,
    lastTransferTag: 0,
    text: [],
    textBytes: 0,
    textReply: null,
    ended: false,
    onSettled: [],
  };
  node.sessions.set(tsih, session);
  if (unit !== null) node.nexuses.set(nexusKey(identity), session);
  node.metrics?.sessions(node.sessions.size);
  joined(session);
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
  const { node, connection, identity, unit, nexus } = session;
  connection.phase = "ended";
  connection.closing ??= "now";
  connection.wake();
  if (unit !== null) {
    node.log(`iscsi: ${identity.initiatorName} leaves ${identity.targetName}: ${why}`);
    if (nexus !== null) unit.nexuses.delete(nexus);
  }
  session.held.clear();
  abortTasks([...session.tasks.values()], () => forget(session));
}

function forget(session: Session): void {
  const { node, identity, unit } = session;
  node.sessions.delete(session.tsih);
  const key = nexusKey(identity);
  if (node.nexuses.get(key) === session) node.nexuses.delete(key);
  if (unit?.nexuses.size === 0 && node.units.get(identity.targetName) === unit) {
    node.units.delete(identity.targetName);
  }
  node.metrics?.sessions(node.sessions.size);
  for (const action of session.onSettled) action();
}

/** TARGET COLD RESET ends every session of the target; the asking one after its answer. */
export function coldReset(asking: Session): void {
  for (const session of [...asking.node.sessions.values()]) {
    if (session.unit !== asking.unit) continue;
    if (session === asking) session.connection.closing = "afterFlush";
    endSession(session, "target cold reset");
  }
}
