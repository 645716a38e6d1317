import {
  createServer as createHttpServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { type AddressInfo, createServer, type Socket } from "node:net";
import type { Health } from "./api-server-io.ts";

/**
 * One port for two protocols: gRPC begins with HTTP/2's connection preface (RFC 9113 §3.4), and
 * everything else is plain HTTP for /metrics and /health.
 */

/** Connections at once; more are closed as they come. */
export const apiConnectionsMax = 512;
/** A connection that has not said enough to be told apart by then is closed. */
const firstBytesMs = 10_000;
const http2Preface = "PRI * HTTP/2.0";

export interface ApiFrontOptions {
  host: string;
  port: number;
  http2: (socket: Socket) => void;
  metrics: () => Promise<string>;
  health: () => Health;
  log: (line: string) => void;
}

export interface ApiFront {
  readonly port: number;
  close(): Promise<void>;
}

export async function listenApiFront(options: ApiFrontOptions): Promise<ApiFront> {
  const http = createHttpServer({ maxHeaderSize: 8192, requestTimeout: 10_000 }, (request, reply) =>
    serveHttp(options, request, reply),
  );
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => socket.destroy());
    sort(socket, options.http2, (plain) => http.emit("connection", plain));
  });
  server.maxConnections = apiConnectionsMax;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port, options.host, () => {
      server.off("error", reject);
      resolve();
    });
  });
  server.on("error", (error) => options.log(`api: ${error.message}`));
  return {
    port: (server.address() as AddressInfo).port,
    close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      return closed;
    },
  };
}

/** Reads until the first bytes tell the protocol, then hands the socket on with them put back. */
function sort(socket: Socket, http2: (socket: Socket) => void, http1: (socket: Socket) => void) {
  let seen = Buffer.alloc(0);
  socket.setTimeout(firstBytesMs, () => socket.destroy());
  const onReadable = () => {
    const bytes: Buffer | null = socket.read();
    if (bytes === null) return;
    seen = Buffer.concat([seen, bytes]);
    const head = seen.toString("latin1", 0, http2Preface.length);
    if (head.length < http2Preface.length && http2Preface.startsWith(head)) return;
    socket.off("readable", onReadable);
    socket.setTimeout(0);
    socket.removeAllListeners("timeout");
    socket.unshift(seen);
    (head === http2Preface ? http2 : http1)(socket);
  };
  socket.on("readable", onReadable);
}

function serveHttp(
  options: ApiFrontOptions,
  request: IncomingMessage,
  reply: ServerResponse,
): void {
  const path = (request.url ?? "").split("?")[0];
  if (request.method !== "GET" && request.method !== "HEAD") {
    end(reply, 405, "only GET\n");
  } else if (path === "/health") {
    const health = options.health();
    const body = JSON.stringify({ status: health.ready ? "ok" : "not ready", ...health.facts });
    end(reply, health.ready ? 200 : 503, `${body}\n`, "application/json");
  } else if (path === "/metrics") {
    options.metrics().then(
      (text) => end(reply, 200, text, "text/plain; version=0.0.4; charset=utf-8"),
      (error) => {
        options.log(`api: metrics failed: ${error?.stack ?? error}`);
        end(reply, 500, "failed\n");
      },
    );
  } else {
    end(reply, 404, "only /metrics and /health\n");
  }
}

function end(reply: ServerResponse, code: number, body: string, type = "text/plain"): void {
  reply.writeHead(code, { "content-type": type, "content-length": Buffer.byteLength(body) });
  reply.end(reply.req.method === "HEAD" ? undefined : body);
}
