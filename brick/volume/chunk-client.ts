/** What a gateway asks of the bricks' chunk services. */
export interface ChunkOrigin {
  branch: number;
  grain: number;
  firstSector: number;
  sequence: number;
}

export type PutStatus = "stored" | "deduplicated" | "no_space" | "bad";
export type GetStatus = "found" | "absent" | "corrupt" | "io";

export interface GetResult {
  status: GetStatus;
  bytes: Buffer;
}

/** Keys in one GET frame. */
export const getKeysMax = 16;

// Until brick/chunk/chunk-messages.ts is there.
export function encodePut(key: Buffer, origin: ChunkOrigin, data: readonly Buffer[]): Buffer[] {
  const head = Buffer.from(JSON.stringify(origin).padEnd(128));
  return [key, head, ...data];
}

export function decodePut(body: Buffer): { key: Buffer; bytes: Buffer } {
  return { key: body.subarray(0, 32), bytes: body.subarray(160) };
}

const putStatuses = ["stored", "deduplicated", "no_space", "bad"] as const;

export function encodePutReply(status: PutStatus): Buffer[] {
  return [Buffer.of(putStatuses.indexOf(status))];
}

export function decodePutReply(body: Buffer): PutStatus | null {
  return putStatuses[body[0]!] ?? null;
}

export function encodeGet(keys: readonly Buffer[]): Buffer[] {
  return [...keys];
}

export function decodeGet(body: Buffer): Buffer[] {
  const keys: Buffer[] = [];
  for (let at = 0; at < body.length; at += 32) keys.push(body.subarray(at, at + 32));
  return keys;
}

const getStatuses = ["found", "absent", "corrupt", "io"] as const;

export function encodeGetReply(results: readonly GetResult[]): Buffer[] {
  return results.flatMap(({ status, bytes }) => {
    const head = Buffer.alloc(5);
    head[0] = getStatuses.indexOf(status);
    head.writeUInt32BE(bytes.length, 1);
    return [head, bytes];
  });
}

export function decodeGetReply(body: Buffer, keyCount: number): GetResult[] | null {
  const results: GetResult[] = [];
  let at = 0;
  for (let index = 0; index < keyCount; index += 1) {
    if (at + 5 > body.length) return null;
    const status = getStatuses[body[at]!];
    const length = body.readUInt32BE(at + 1);
    if (status === undefined || at + 5 + length > body.length) return null;
    results.push({ status, bytes: body.subarray(at + 5, at + 5 + length) });
    at += 5 + length;
  }
  return results;
}
