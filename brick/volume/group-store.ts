import { assert } from "../assert.ts";
import { withKeyDomain } from "../map/grain.ts";
import type { GroupPart } from "../map/group.ts";
import type { StoreHandle, StoreOutcome } from "./chunk-writer.ts";
import type { Piece } from "./split.ts";

export type GroupOutcome =
  /** `gcEpoch`: no holder of any of them had been asked before that epoch; 0 when nothing was stored. */
  { ok: true; parts: GroupPart[]; gcEpoch: number } | { ok: false; fault: "no_space" };

/** Begins to store one piece's data; `done` is called once, perhaps before it returns. */
export type StorePiece = (
  piece: Piece,
  data: Buffer[],
  done: (key: Buffer, outcome: StoreOutcome) => void,
) => StoreHandle;

/** Stores the chunks of a group, all at the same time: done when every one of them is durable. */
export function storeGroup(
  group: readonly Piece[],
  store: StorePiece,
  done: (outcome: GroupOutcome) => void,
): StoreHandle {
  const parts = group.map((piece) => partOf(piece, null, []));
  const handles: StoreHandle[] = [];
  let gcEpoch = 0;
  let waiting = 1;
  let ended = false;
  const end = () => {
    ended = true;
    for (const handle of handles) handle.abandon();
  };
  const conclude = () => {
    waiting -= 1;
    if (waiting > 0) return;
    ended = true;
    done({ ok: true, parts, gcEpoch });
  };
  for (const [at, piece] of group.entries()) {
    if (piece.data === null) continue;
    waiting += 1;
    const handle = store(piece, piece.data, (key, outcome) => {
      if (ended) return;
      if (!outcome.ok) {
        end();
        done(outcome);
        return;
      }
      parts[at] = partOf(piece, key, outcome.holders);
      gcEpoch = gcEpoch === 0 ? outcome.gcEpoch : Math.min(gcEpoch, outcome.gcEpoch);
      conclude();
    });
    handles.push(handle);
    // It has failed within the call.
    if (ended) end();
    if (ended) break;
  }
  if (!ended) conclude();
  return { abandon: end };
}

function partOf(piece: Piece, key: Buffer | null, holders: readonly number[]): GroupPart {
  const { grain, firstSector, sectorCount } = piece;
  assert(piece.grainCount === 0 && piece.part === undefined);
  const chunk = { chunkSector: 0, chunkSectors: sectorCount, key, holders };
  const part = { grain, grainCount: 0 as const, firstSector, sectorCount, ...chunk, owed: false };
  return key === null ? part : withKeyDomain(part, piece.keyDomain);
}
