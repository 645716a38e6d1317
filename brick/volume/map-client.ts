import type { BrickNumber } from "../units.ts";
import type { Extent } from "./map-cache.ts";

/** What a gateway asks of a shard's primary, and how the answers read to it. */
export interface MapWriteRequest {
  shard: number;
  view: number;
  branch: number;
  generation: number;
  epoch: number;
  sequence: number;
  lowWater: number;
  grain: number;
  /** Whole grains that are unmapped; 0 for a part of one grain. */
  grainCount: number;
  firstSector: number;
  sectorCount: number;
  /** null: an unmap. */
  key: Buffer | null;
  holders: readonly BrickNumber[];
  /** The chunk's bytes when they travel inline. */
  inline: readonly Buffer[] | null;
}

export interface MapLookupRequest {
  shard: number;
  view: number;
  branch: number;
  epoch: number;
  firstGrain: number;
  grainCount: number;
}

export interface MapFenceRequest {
  shard: number;
  view: number;
  branch: number;
  epoch: number;
}

export interface MapCancelRequest extends MapFenceRequest {
  sequence: number;
  lowWater: number;
}

export type MapStatus =
  | "ok"
  /** Ask again, perhaps another brick. */
  | "not_now"
  | "fenced"
  | "cancelled"
  | "no_space"
  /** The primary cannot read the request: a fault of ours, or a newer version of theirs. */
  | "refused";

export interface MapReply {
  status: MapStatus;
  view: number;
  /** Of a write: the bricks that hold the inline chunk. */
  holders: readonly BrickNumber[];
}

export interface MapLookupReply {
  status: MapStatus;
  view: number;
  /** Grains from the first on that the answer speaks for. */
  coveredCount: number;
  /** Extents by grain, in order of sectors; a covered grain that is absent reads as zeros. */
  grains: ReadonlyMap<number, readonly Extent[]>;
}

// Until brick/map/map-messages.ts is there.
export function encodeMapRequest(
  request: MapWriteRequest | MapLookupRequest | MapFenceRequest | MapCancelRequest,
): Buffer[] {
  const { inline, ...rest } = request as MapWriteRequest;
  const head = Buffer.from(JSON.stringify({ ...rest, inline: inline != null }));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(head.length);
  return [length, head, ...(inline ?? [])];
}

export function decodeMapRequest(body: Buffer): { head: unknown; inline: Buffer } {
  const length = body.readUInt32BE(0);
  return {
    head: JSON.parse(body.toString("utf8", 4, 4 + length)),
    inline: body.subarray(4 + length),
  };
}

export function encodeMapReply(reply: MapReply | MapLookupReply): Buffer[] {
  const plain = "grains" in reply ? { ...reply, grains: [...reply.grains] } : reply;
  return [Buffer.from(JSON.stringify(plain))];
}

export function decodeMapReply(body: Buffer): MapReply | null {
  return JSON.parse(body.toString()) as MapReply;
}

export function decodeLookupReply(body: Buffer): MapLookupReply | null {
  const plain = JSON.parse(body.toString(), (_name, value) =>
    value?.type === "Buffer" ? Buffer.from(value.data) : value,
  );
  return { ...plain, grains: new Map(plain.grains) };
}
