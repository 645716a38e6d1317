/**
 * A shard's primary to the gateway of a volume: the grain is in another chunk than its cache may say,
 * version 1, big-endian: version[1] = 1, zero[3], zero[2] branch[6], zero[2] grain[6]. There is no
 * reply, and nothing rests on it: a gateway that was not told finds the old chunks gone one day, and
 * looks the grain up again.
 */
const version = 1;
const bodyBytes = 20;

export interface MapForget {
  readonly branch: number;
  readonly grain: number;
}

export function encodeMapForget({ branch, grain }: MapForget): Buffer[] {
  const body = Buffer.alloc(bodyBytes);
  body[0] = version;
  body.writeUIntBE(branch, 6, 6);
  body.writeUIntBE(grain, 14, 6);
  return [body];
}

/** null: not exactly as written here. */
export function decodeMapForget(body: Buffer): MapForget | null {
  if (body.length !== bodyBytes || body.readUInt32BE(0) !== version * 2 ** 24) return null;
  if (body.readUInt16BE(4) !== 0 || body.readUInt16BE(12) !== 0) return null;
  return { branch: body.readUIntBE(6, 6), grain: body.readUIntBE(14, 6) };
}
