import type { Clock } from "../brick/host.ts";
import { realClock } from "../brick/host-io.ts";
import type { VolumeDirectory } from "../brick/volume/volume.ts";
import type { Authority } from "./authority.ts";
import { checkIdle } from "./connection.ts";
import { beginDrain, checkDrain } from "./drain.ts";
import { followAuthority } from "./follow-authority.ts";
import { idleCheckMs } from "./limits.ts";
import { endSession, makeNode } from "./node.ts";
import type { Session, TargetMetrics, TargetNode } from "./session-state.ts";
import { listenTarget, realSecretBytes, type TargetListener } from "./target-io.ts";

export interface PortalOptions {
  /** "HOST:PORT" to listen on; port 0 takes a free one. */
  listen: string;
  /** The address that discovery names when the directory knows no portals. */
  announce: string;
  /** Portal group tag: the brick's number. */
  tag: number;
  directory: VolumeDirectory;
  /** Who may use which volumes, and what it must prove. */
  authority: Authority;
  log: (line: string) => void;
  metrics?: TargetMetrics;
  /** Where challenges come from; the operating system unless a test says otherwise. */
  secretBytes?: (lengthBytes: number) => Buffer;
  clock?: Clock;
}

export interface Portal {
  /** Where it listens, "HOST:PORT". */
  readonly address: string;
  /** Refuses new logins and asks initiators to log out; sessions that stay are ended in time. */
  drain(): void;
  /** Ends every session and resolves when their last task has settled. */
  close(): Promise<void>;
  sessions(): SessionSummary[];
}

export interface SessionSummary {
  initiatorName: string;
  targetName: string;
  remote: string;
  tsih: number;
  discovery: boolean;
  tasks: number;
}

/** Opens an iSCSI portal over the volumes of a directory. */
export async function startPortal(options: PortalOptions): Promise<Portal> {
  const clock = options.clock ?? realClock;
  const node = makeNode({
    directory: options.directory,
    authority: options.authority,
    portalGroupTag: options.tag,
    announce: options.announce,
    clock,
    log: options.log,
    metrics: options.metrics ?? null,
    secretBytes: options.secretBytes ?? realSecretBytes,
  });
  const listener = await listenTarget(node, options.listen);
  const following = followAuthority(node);
  let timer = clock.after(idleCheckMs, check);
  function check(): void {
    const nowMs = clock.nowMs();
    for (const connection of listener.connections) checkIdle(connection, nowMs);
    checkDrain(node, nowMs);
    timer = clock.after(idleCheckMs, check);
  }
  return {
    address: listener.address,
    drain: () => {
      node.draining = true;
      beginDrain(node);
    },
    close: () => {
      timer.cancel();
      following.stop();
      return close(node, listener);
    },
    sessions: () => [...node.sessions.values()].filter((one) => !one.ended).map(summary),
  };
}

async function close(node: TargetNode, listener: TargetListener): Promise<void> {
  node.draining = true;
  const settled = [...node.sessions.values()].map((session) => {
    return new Promise<void>((resolve) => {
      session.onSettled.push(resolve);
      endSession(session, "portal closes");
    });
  });
  await Promise.all([listener.close(), ...settled]);
}

function summary(session: Session): SessionSummary {
  return {
    initiatorName: session.identity.initiatorName,
    targetName: session.identity.targetName,
    remote: session.connection.remote,
    tsih: session.tsih,
    discovery: session.identity.discovery,
    tasks: session.tasks.size,
  };
}
