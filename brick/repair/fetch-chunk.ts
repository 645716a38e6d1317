import { decodeChunkGetReply, encodeChunkGet, getStatus } from "../chunk/chunk-messages.ts";
import { chunkKey, keyEquals } from "../chunk/key.ts";
import type { Calls } from "../rpc/calls.ts";
import { messageType } from "../rpc/message-types.ts";
import type { BrickNumber } from "../units.ts";

const getTimeoutMs = 3000;

/** The bytes, if what the brick sends hashes to the key. */
export function fetchChunk(
  calls: Calls,
  key: Buffer,
  from: BrickNumber,
): Promise<Buffer | "without" | "away"> {
  return new Promise((resolve) => {
    calls.call(from, messageType.chunkGet, encodeChunkGet([key]), getTimeoutMs, (reply) => {
      const result = reply.ok ? decodeChunkGetReply(reply.parts)?.[0] : undefined;
      if (result === undefined) resolve("away");
      else if (result.status !== getStatus.found) resolve("without");
      else resolve(keyEquals(chunkKey(result.bytes), key) ? result.bytes : "without");
    });
  });
}
