import { homeMutants } from "./home-mutants.ts";
import { moduleMutants } from "./module-mutants.ts";
import type { Mutant } from "./mutant.ts";
import { ruleMutants } from "./rule-mutants.ts";
import { verbMutants } from "./verb-mutants.ts";

const crashTests = ["brick/store/store-crash.test.ts"];
const storeTests = ["brick/store/store.test.ts", "brick/store/store-model.test.ts"];
const mapTests = ["brick/map/map-fuzz.test.ts", "brick/map/map-cluster.test.ts"];
const raftTests = ["control/raft/raft-fuzz.test.ts", "control/raft/raft-thesis.test.ts"];
const gatewayTests = [
  "brick/volume/gateway.test.ts",
  "brick/volume/gateway-faults.test.ts",
  "brick/volume/volumes.test.ts",
];
const gcRace = ["tools/sim/gc-race-main.ts", "--operations", "300000"];
/** Of one seed nobody knows what it means tomorrow; of a dozen, several catch what they shall. */
const fewSeeds = ["--runs", "12", "--seed", "100000", "--hours", "0.006", "--pause", "1100"];
const shortSoak = ["tools/sim/main.ts", "--soak", ...fewSeeds];

/**
 * Versions of END that are wrong on purpose: each breaks one rule that data depend on. The suite must
 * catch every one of them; a rule whose breach nothing notices is not tested. `npm run mutants` makes
 * them, one at a time, in a copy of the source.
 */
export const mutants: readonly Mutant[] = [
  ...ruleMutants,
  ...homeMutants,
  ...moduleMutants,
  ...verbMutants,
  {
    name: "the log answers before it has flushed",
    file: "brick/log/log.ts",
    text: "      await file.sync();\n",
    instead: "",
    caughtBy: crashTests,
  },
  {
    name: "that a segment is used anew is not synced",
    file: "brick/store/index-room.ts",
    text: "      this.#kv.write(batch, { sync: true });\n",
    instead: "      this.#kv.write(batch, { sync: false });\n",
    caughtBy: crashTests,
  },
  {
    name: "what a killed process left is taken for durable",
    file: "brick/store/store-open.ts",
    text: "    // What a crashed process left in the page cache is read as if it were durable: make it so.\n    await file.sync();\n",
    instead: "",
    caughtBy: crashTests,
  },
  {
    name: "a recycled segment keeps its epoch",
    file: "brick/log/segments.ts",
    text: "  segment.epoch += 1;\n",
    instead: "",
    caughtBy: [...storeTests, ...crashTests],
  },
  {
    name: "a put of a chunk that waits for its flush is answered at once",
    file: "brick/store/store.ts",
    text: "      pending.waiters.push(done);\n",
    instead: "      this.#answer(done, { ok: true, deduplicated: true });\n",
    caughtBy: [...storeTests, ...crashTests],
  },
  {
    name: "a brick reads its chunks without checking them",
    file: "brick/store/chunk-reads.ts",
    text: "bytes.length === entry.lengthBytes && keyEquals(chunkKey(bytes), key)",
    instead: "bytes.length === entry.lengthBytes",
    caughtBy: storeTests,
  },
  {
    name: "a brick keeps whatever it is sent under a key",
    file: "brick/chunk/chunk-service.ts",
    text: "if (!isOwn && !keyEquals(chunkKey(put.data), put.key)) {",
    instead: "if (put.key.length === 0) {",
    caughtBy: ["brick/chunk/chunk-service.test.ts"],
  },
  {
    name: "a gateway believes a holder",
    file: "brick/volume/chunk-reader.ts",
    text: "keyEquals(chunkKey(result.bytes), search.key)",
    instead: "result.bytes.length > 0",
    caughtBy: gatewayTests,
  },
  {
    name: "a gateway believes a holder's slices",
    file: "brick/volume/slice-reader.ts",
    text: "return areSlicesOf(outline, first, result.bytes) ? result.bytes : null;",
    instead:
      "return areSlicesOf(outline, first, result.bytes) || first >= 0 ? result.bytes : null;",
    caughtBy: gatewayTests,
  },
  {
    name: "a gateway believes a holder's outline",
    file: "brick/volume/slice-reader.ts",
    text: "if (!isOutlineOf(result.outline, key)) return null;",
    instead: "if (!isOutlineOf(result.outline, key) && first < 0) return null;",
    caughtBy: gatewayTests,
  },
  {
    name: "a write is answered before the backups have it",
    file: "brick/map/primary.ts",
    text: "op = Math.min(op, peer.acked ? peer.ackedOp : 0);",
    instead: "op = Math.min(op, peer.acked ? Math.max(op, peer.ackedOp) : 0);",
    caughtBy: mapTests,
  },
  {
    name: "what a view takes over names the bricks of the view before",
    file: "brick/map/primary.ts",
    text: "if (replica.pending.size > pendingHintedMax || effects.isLogShort()) return;",
    instead: "if (pendingHintedMax > 0) return;",
    caughtBy: ["brick/map/map-cluster.test.ts"],
  },
  {
    name: "a shard takes writes of an attachment that has ended",
    file: "brick/map/requests.ts",
    text: 'if (request.epoch < fencing) say(replica, answer, "fenced");\n  else if (window === undefined || window.epoch !== request.epoch)',
    instead: "if (window === undefined)",
    caughtBy: [...mapTests, ...gatewayTests],
  },
  {
    name: "a write that comes again is carried out again",
    file: "brick/map/requests.ts",
    text: "    if (landed !== undefined) {\n",
    instead: "    if (landed !== undefined && request.sequence < 0) {\n",
    caughtBy: mapTests,
  },
  {
    name: "a primary answers without its lease",
    file: "brick/map/map-service-io.ts",
    text: "leaseValid: () => !this.#closed && clock.nowMs() < this.#leaseUntilMs,",
    instead: "leaseValid: () => !this.#closed && clock.nowMs() >= 0,",
    caughtBy: ["brick/map/map-cluster.test.ts"],
  },
  {
    name: "a replica that was told of a removal late forgets it",
    file: "brick/map/replica.ts",
    text: 'return clearSectors(grain, op, firstSector, sectorCount, kind === "overlay");',
    instead: "return clearSectors(grain, op, firstSector, sectorCount, false);",
    caughtBy: mapTests,
  },
  {
    name: "a replica that lacks older records is taken for complete",
    file: "brick/map/replica.ts",
    text: "  return replica.facts.overlayFrom === 0;\n",
    instead: "  return replica.facts.overlayFrom >= 0;\n",
    caughtBy: mapTests,
  },
  {
    name: "chunks are swept an epoch early",
    file: "brick/gc/epochs.ts",
    text: "  return marked - 1;\n",
    instead: "  return marked + 1;\n",
    caughtBy: gcRace,
  },
  {
    name: "a reference to a chunk that may be gone is taken",
    file: "brick/gc/epochs.ts",
    text: "return protectedIn < present - 1;",
    instead: "return protectedIn < present - 1000;",
    caughtBy: [...gatewayTests, "control/gc.test.ts", "brick/map/map-cluster.test.ts"],
  },
  {
    name: "in whole clusters under faults, a brick that is down has its copies made again",
    file: "brick/repair/repair-plan.ts",
    text: 'status === "up" || status === "down" || status',
    instead: 'status === "up" || status',
    caughtBy: shortSoak,
  },
  {
    name: "a write does not wait for the one before it on its range",
    file: "brick/volume/range-lock.ts",
    text: "for (const held of this.#writes) if (overlaps(held, start, end)) blockers += 1;",
    instead:
      "for (const held of this.#writes) if (overlaps(held, start, end) && start < 0) blockers += 1;",
    caughtBy: ["brick/volume/range-lock.test.ts", ...gatewayTests],
  },
  {
    name: "a gateway answers reads without its lease",
    file: "brick/volume/gateway-reads.ts",
    text: "this.#gateway.whenLeased(() => read.answer({ ok: true, buffers, ...releaseOf(read) }));",
    instead: "read.answer({ ok: true, buffers, ...releaseOf(read) });",
    caughtBy: gatewayTests,
  },
  {
    name: "an atomic write is cut at grain boundaries",
    file: "brick/volume/split.ts",
    text: "return pieces.length <= 1 ? pieces : [groupOf(inGrains.map(withoutZeros))];",
    instead: "return pieces.length < 0 ? [groupOf(inGrains.map(withoutZeros))] : pieces;",
    caughtBy: ["brick/volume/atomic.test.ts", "tools/sim/atomic.test.ts"],
  },
  {
    name: "of an entry that changes several grains, one is changed",
    file: "brick/map/entry.ts",
    text: "      return entry.parts;\n",
    instead: "      return entry.parts.slice(0, 1);\n",
    caughtBy: mapTests,
  },
  {
    name: "a Raft server votes twice in a term",
    file: "control/raft/election.ts",
    text: "const free = raft.votedFor === 0 || raft.votedFor === from;",
    instead: "const free = raft.votedFor === 0 || from > 0;",
    caughtBy: raftTests,
  },
  {
    name: "a Raft server follows whoever has the shorter log",
    file: "control/raft/election.ts",
    text: "lastTerm > log.lastTerm || (lastTerm === log.lastTerm && lastIndex >= log.lastIndex)",
    instead: "lastTerm >= 0 || lastIndex >= log.lastIndex",
    caughtBy: raftTests,
  },
  {
    name: "a vote is given before it is durable",
    file: "control/raft/election.ts",
    text: "    persistHardState(raft.outbox);\n",
    instead: "",
    caughtBy: raftTests,
  },
  {
    name: "persistent reservations keep nobody out",
    file: "brick/volume/unit-check.ts",
    text: 'return mayAccess(unit, nexus, access) ? null : { code: "reservation_conflict" };',
    instead: "return null;",
    caughtBy: ["brick/volume/unit-check.test.ts"],
  },
  {
    name: "CHAP takes any response of the right name",
    file: "iscsi/login-security.ts",
    text: "const right = rightName && rightResponse && isAccepted && known !== null;",
    instead: "const right = rightName && isAccepted && known !== null;",
    caughtBy: ["iscsi/login-chap.test.ts"],
  },
  {
    name: "our own challenge may come back",
    file: "iscsi/login-security.ts",
    text: "return context.challenges.isOut(challenge)",
    instead: "return context.challenges.isOut(challenge) && identifier < 0",
    caughtBy: ["iscsi/login-chap.test.ts"],
  },
  {
    name: "damaged data is written as if it were whole",
    file: "iscsi/pdu-stream.ts",
    text: "        if (sum !== readDigest(trailer, padding)) {\n",
    instead: "        if (sum !== readDigest(trailer, padding) && padding < 0) {\n",
    caughtBy: ["iscsi/session-errors.test.ts", "iscsi/codec.test.ts"],
  },
];
