import { connect, createServer, type Socket } from "node:net";
import { headerBytes, PduCutter } from "../tools/load/pdus.ts";

/** Stands between an initiator and a portal, passes every byte on, and writes down the PDUs. */

export interface WirePdu {
  from: "initiator" | "target";
  /** The basic header segment. */
  header: Buffer;
}

export interface Wire {
  /** "HOST:PORT" to log in to. */
  portal: string;
  pdus: readonly WirePdu[];
  close(): void;
}

/** For one session without digests. */
export async function openWire(portal: string): Promise<Wire> {
  const [host, port] = portal.split(":");
  const pdus: WirePdu[] = [];
  const sockets = new Set<Socket>();
  const pass = (source: Socket, sink: Socket, from: WirePdu["from"]) => {
    const cutter = new PduCutter();
    sockets.add(source);
    source.on("data", (bytes) => {
      cutter.push(bytes, ({ header }) => {
        pdus.push({ from, header: Buffer.from(header.subarray(0, headerBytes)) });
      });
      sink.write(bytes);
    });
    source.on("end", () => sink.end());
    source.on("error", () => sink.destroy());
  };
  const server = createServer((near) => {
    const far = connect({ host: host!, port: Number(port), noDelay: true });
    near.setNoDelay();
    pass(near, far, "initiator");
    pass(far, near, "target");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port to listen on");
  return {
    portal: `127.0.0.1:${address.port}`,
    pdus,
    close: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
