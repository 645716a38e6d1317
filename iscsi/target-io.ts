import { randomBytes } from "node:crypto";
import net from "node:net";
import { type OnRead, takeOver } from "../brick/rpc/take-over-io.ts";
import { findRoom } from "./admission.ts";
import { closeNow, connectionLost, openConnection, receiveFilled } from "./connection.ts";
import { unsentBytesMax } from "./limits.ts";
import { admitTasks } from "./scsi-task.ts";
import type { Connection, TargetNode } from "./session-state.ts";

/** The sockets of a portal: what is owed in one tick leaves in one gathered write. */

export interface TargetListener {
  readonly address: string;
  readonly connections: ReadonlySet<Connection>;
  /** Stops listening and closes every socket. */
  close(): Promise<void>;
}

export function realSecretBytes(lengthBytes: number): Buffer {
  return randomBytes(lengthBytes);
}

/** How long a closing socket may take to send what is still owed. */
const lingerMs = 2_000;

export function listenTarget(node: TargetNode, listen: string): Promise<TargetListener> {
  const connections = new Set<Connection>();
  const sockets = new Set<net.Socket>();
  const server = net.createServer({ noDelay: true, pauseOnConnect: true }, (socket) => {
    const address = socket.remoteAddress ?? "?";
    const room = findRoom(connections, address);
    if (room === "no") {
      node.audit.line(`iscsi: ${address} is refused: too many connections`, node.clock.nowMs());
      socket.destroy();
      return;
    }
    if (room !== "yes") closeNow(room, "its login makes room for others");
    const driven = driveSocket(node, socket, connections);
    sockets.add(driven);
    driven.once("close", () => sockets.delete(driven));
  });
  const at = listen.lastIndexOf(":");
  const host = listen.slice(0, at).replace(/^\[(.*)\]$/, "$1");
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port: Number(listen.slice(at + 1)) }, () => {
      server.off("error", reject);
      server.on("error", (error) => node.log(`iscsi: portal ${listen}: ${error.message}`));
      const { port } = server.address() as net.AddressInfo;
      resolve({
        address: `${listen.slice(0, at)}:${port}`,
        connections,
        close: () => closeServer(server, sockets),
      });
    });
  });
}

function closeServer(server: net.Server, sockets: ReadonlySet<net.Socket>): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    for (const socket of sockets) socket.destroy();
  });
}

function driveSocket(
  node: TargetNode,
  accepted: net.Socket,
  connections: Set<Connection>,
): net.Socket {
  let flushIsDue = false;
  const wake = (): void => {
    if (flushIsDue) return;
    flushIsDue = true;
    node.clock.soon(() => {
      flushIsDue = false;
      flush(connection, socket);
    });
  };
  const remote = { address: accepted.remoteAddress ?? "?", port: accepted.remotePort ?? 0 };
  const connection = openConnection(node, remote, wake);
  connections.add(connection);
  const onread: OnRead = {
    buffer: () => connection.stream.room(),
    callback: (count) => {
      receiveFilled(connection, count);
      if (connection.outbox.bytes > 0 || connection.closing !== null) wake();
      return true;
    },
  };
  const socket = takeOver(accepted, onread);
  socket.setNoDelay(true);
  socket.on("drain", () => {
    connection.unsentBytes = socket.writableLength;
    socket.resume();
    if (connection.session === null || connection.session.ended) return;
    admitTasks(connection.session);
    wake();
  });
  socket.on("end", () => socket.destroy());
  // A reset is as good as an end: "close" follows.
  socket.on("error", () => {});
  socket.on("close", () => {
    connections.delete(connection);
    connectionLost(connection);
  });
  socket.resume();
  return socket;
}

function flush(connection: Connection, socket: net.Socket): void {
  const { node } = connection;
  if (socket.destroyed || socket.writableEnded) return;
  if (connection.closing === "now") return void socket.destroy();
  const buffers = connection.outbox.take();
  const whenSent = connection.outbox.takeWhenSent();
  const last = buffers.pop();
  if (last !== undefined) {
    const sent = () => {
      for (const action of whenSent) action();
    };
    socket.cork();
    for (const buffer of buffers) socket.write(buffer);
    socket.write(last, whenSent.length > 0 ? sent : undefined);
    socket.uncork();
    node.metrics?.stages?.took(connection.answerStage, connection.answerSinceMs);
    connection.answerSinceMs = 0;
  }
  connection.unsentBytes = socket.writableLength;
  if (connection.closing === "afterFlush") {
    socket.setTimeout(lingerMs, () => socket.destroy());
    socket.end();
  } else if (connection.unsentBytes > unsentBytesMax) {
    socket.pause();
  }
}
