import net from "node:net";
import { assert } from "../assert.ts";

/** Where a socket puts what it receives: asked before each read, told after it. */
export type OnRead = net.OnReadOpts & { buffer: () => Uint8Array };

/**
 * Gives an accepted socket our receive memory. Node offers that only for sockets that it is asked
 * to make, so that the accepted socket's handle is put into one. The socket must not have been read
 * yet, and is read once `resume` is called.
 */
export function takeOver(accepted: net.Socket, onread: OnRead): net.Socket {
  const held = accepted as unknown as { _handle: object | null };
  const handle = held._handle;
  assert(handle !== null, "the accepted socket is open");
  held._handle = null;
  // What is left is an empty shell, whose end the server waits for when it closes.
  accepted.destroy();
  const options = { handle, onread, pauseOnCreate: false };
  return new net.Socket(options as unknown as net.SocketConstructorOpts);
}
