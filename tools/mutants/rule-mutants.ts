import { acknowledging } from "./acknowledge-mutants.ts";
import { inFile, type Mutant } from "./mutant.ts";

/**
 * Each breaks one rule of replication, membership or garbage collection, and is caught by the one
 * scenario that was written for it: docs/simulation.md tells which.
 */

const recovering = inFile("tools/sim/rules/recovery.test.ts", [
  {
    name: "a backup that starts anew is greeted but once",
    file: "brick/map/primary.ts",
    text: "  replica.effects.wakeAfter(replica.shard, resendAfterMs);\n",
    instead: "",
    scenario:
      "a backup that starts anew is greeted again, though the first greeting is lost and nobody writes",
  },
  {
    name: "a brick that lost all records of a shard speaks for it",
    file: "brick/map/map-service-io.ts",
    text: "const damaged = report.damaged || request.damaged?.includes(brick) === true;",
    instead: "const damaged = report.damaged;",
    scenario:
      "a brick that is known to have lost records does not count, though it does not know itself",
  },
  {
    name: "a promise is told before it is durable",
    file: "brick/map/map-service-io.ts",
    text: "await new Promise<void>((resolve) => journalFacts(replica, 0, resolve));",
    instead: "journalFacts(replica, 0, () => {});",
    scenario: "who has promised a newer view stays out of the older one, over a power cut too",
  },
  {
    name: "who has promised a newer view goes on in the older one",
    file: "brick/map/map-service-io.ts",
    text: 'answered.\n    replica.view = null;\n    replica.role = { is: "idle" };\n',
    instead: "answered.\n",
    scenario: "what was reported to a recovery does not change under it",
  },
  {
    name: "a recovery takes a gap for whole",
    file: "brick/map/union.ts",
    text: "if (step === null) return `no brick",
    instead: "if (step === null) return steps.length >= 0 ? steps : `no brick",
    scenario: "a candidate that is left alone does not lead, and a shard is never empty instead",
  },
  {
    name: "a recovery goes on without a view of the chain",
    file: "brick/map/union.ts",
    text: "      if (!sound.some((report) => bricks.includes(report.brick))) {",
    instead: "      if (sound.length === 0) {",
    scenario: "a member of an older view alone is not the shard",
  },
  {
    name: "a recovery follows the oldest log",
    file: "brick/map/union.ts",
    text: "a.accepted > b.accepted ||",
    instead: "a.accepted < b.accepted ||",
    scenario: "what a member missed comes from the candidate that was there",
  },
  {
    name: "a replica is sound though its log was cut",
    file: "brick/map/map-service-io.ts",
    text: "if (store.cut || store.damaged || this.#isUnreadable || replica.broken) {",
    instead: "if (store.damaged || this.#isUnreadable || replica.broken) {",
    scenario: "a brick that cut its tail does not count before one that did not",
  },
  {
    name: "a grain emptied while a member is away leaves no tombstone",
    file: "brick/map/replica.ts",
    text: "replica.view === null || replica.view.chain.length > 0;",
    instead: "replica.view === null;",
    scenario: "what was unmapped while a member was away does not come back with it",
  },
  {
    name: "who was away for longer than tombstones stay keeps its table",
    file: "brick/map/primary.ts",
    text: "const fresh = hello.accepted < oldest;",
    instead: "const fresh = hello.accepted < 0;",
    scenario: "who was away for longer than tombstones stay begins with an empty table",
  },
  {
    name: "who lost what it had acknowledged is told only what it missed",
    file: "brick/map/backup.ts",
    text: "accepted: facts.lossy ? 0 : role.acceptedBefore,",
    instead: "accepted: role.acceptedBefore,",
    scenario: "who lost a removal that it had acknowledged begins with an empty table",
  },
  {
    name: "a member that begins with an empty table counts as complete",
    file: "brick/map/backup.ts",
    text: "  if (replica.view!.members.includes(replica.self)) facts.lossy = true;\n",
    instead: "",
    scenario: "a member that lacks what it had acknowledged says so until it is a candidate",
  },
  {
    name: "records cut from the log count again after a restart",
    file: "brick/map/replay.ts",
    text: "if (entry.op <= facts.commitOp || replica.cuts.some((cut) => entry.op > cut.keptTo)) return;",
    instead: "if (entry.op <= facts.commitOp) return;",
    scenario: "what a view cut from a log stays cut, though only a checkpoint knows of it",
  },
]);

const leasing = inFile("tools/sim/rules/lease.test.ts", [
  {
    name: "a Raft leader renews leases without a round of its quorum",
    file: "control/leader-io.ts",
    text: "        const { ok } = await this.#parts.raft().readBarrier();\n        for",
    instead: "        const ok = true;\n        for",
    scenario: "a deposed Raft leader renews no lease, not even its own",
  },
  {
    name: "a lease is counted from when it was granted",
    file: "control/control-io.ts",
    text: "takeGrant(this.#lease, answer, this.state().version);",
    instead:
      "takeGrant(this.#lease, { ...answer, sentMs: this.#options.host.clock.nowMs() }, this.state().version);",
    scenario: "a lease is counted from when it was asked for",
  },
  {
    name: "a new Raft leader takes nobody to hold a lease",
    file: "control/membership.ts",
    text: "const leaseFromMs = Math.max(heard?.grantedMs ?? book.sinceMs, book.sinceMs);",
    instead: "const leaseFromMs = heard?.grantedMs ?? Number.NEGATIVE_INFINITY;",
    scenario: "a new Raft leader waits one lease before it gives a brick up",
  },
  {
    name: "a lease is reckoned by the leader's clock alone",
    file: "control/membership.ts",
    text: "return timing.leaseMs * (1 + timing.clockDriftPercent / 100);",
    instead: "return timing.leaseMs;",
    scenario: "a brick whose clock runs slow is given up after its lease, not before",
  },
  {
    name: "a gateway answers what it has read whatever has become of its lease",
    file: "brick/volume/gateway-reads.ts",
    text: "this.#gateway.whenLeased(() => read.answer({ ok: true, buffers, ...releaseOf(read) }));",
    instead: "read.answer({ ok: true, buffers, ...releaseOf(read) });",
    scenario: "a gateway that was frozen does not answer what it had under way",
  },
]);

const attaching = inFile("tools/sim/rules/attachment.test.ts", [
  {
    name: "a gateway that starts anew goes on under its old epoch",
    file: "brick/volume/attachments.ts",
    text: "return held?.brick === self && held.boot === boot() && held.epoch === epoch;",
    instead: "return held?.brick === self && held.boot <= boot() && held.epoch === epoch;",
    scenario:
      "a gateway that restarts inside its lease takes a new epoch, and what it sent before is fenced",
  },
  {
    name: "a shard takes what an older attachment sends",
    file: "brick/map/requests.ts",
    text: '  if (request.epoch < fencing) say(replica, answer, "fenced");\n  else if (window === undefined || window.epoch !== request.epoch)',
    instead: "  if (window === undefined || fencing < 0)",
    scenario: "an older attachment's write does not land after the takeover",
  },
  {
    name: "a gateway believes the primary of an older view",
    file: "brick/volume/shard-link.ts",
    text: "answer === null || answer.view < this.#viewNewest ||",
    instead: "answer === null ||",
    scenario: "an answer of an older view counts for nothing, and the operation is sent again",
  },
]);

const viewing = inFile("tools/sim/rules/views.test.ts", [
  {
    name: "who is asked for the union of a recovery is asked but once",
    file: "control/recovery-io.ts",
    text: "const assembleAskMs = 3000;",
    instead: "const assembleAskMs = assembleMsMax;",
    scenario: "a recovery goes on when what asks for the union was lost on its way",
  },
  {
    name: "a primary that has promised a newer view keeps its place in the present one",
    file: "brick/map/shard-status.ts",
    text: "if (view === null) return standsBack(replica, present);",
    instead: "if (view === null && present !== null) return null;",
    scenario: "a primary that has promised a newer view gives way in its own",
  },
  {
    name: "who stands in for a brick is sent the map at once",
    file: "control/view-planner.ts",
    text: "  return shard.shortSinceMs > 0 && input.nowMs - shard.shortSinceMs >= input.transferAfterMs;",
    instead: "  return true;",
    scenario: "rolling restarts quicker than the wait for a transfer copy nothing",
  },
  {
    name: "a brick that is back and not heard yet is not waited for",
    file: "control/view-planner.ts",
    text: "if (isReachable(brick)) return !input.heard.has(one);",
    instead: "if (isReachable(brick)) return false;",
    scenario: "rolling restarts quicker than the wait for a transfer copy nothing",
  },
  {
    name: "who stands in is sent the map while the member comes back",
    file: "brick/map/transfer.ts",
    text: "  if (standsIn(replica, role, peer)) return;\n",
    instead: "",
    scenario: "rolling restarts quicker than the wait for a transfer copy nothing",
  },
  {
    name: "nobody stands in for a brick that is away",
    file: "control/view-planner.ts",
    text: "if (staying.length + chosen.length >= wanted) break;",
    instead: "if (staying.length + chosen.length >= 1) break;",
    scenario: "new writes are at full copies at once while a brick is away",
  },
  {
    name: "a recovery does not wait for bricks that may come back",
    file: "control/recovery-io.ts",
    text: "(brick) => reports.has(brick) || isGivenUp(state, brick),",
    instead: "(brick) => reports.has(brick) || isGivenUp(state, brick) || brick > 0,",
    scenario: "a stale backup does not lead, and meanwhile the shard is unavailable, not empty",
  },
  {
    name: "an older copy of a store takes part",
    file: "control/brick-commands.ts",
    text: "  if (boot < brick.boot) {\n",
    instead: "  if (boot < 0) {\n",
    scenario: "a store that is older than the cluster knows takes no part, and is kept",
  },
  {
    name: "a change of view begins the wait for a transfer anew",
    file: "control/shard-commands.ts",
    text: "    shortSinceMs: shard.shortSinceMs,\n",
    instead: "    shortSinceMs: shard.shortSinceMs && state.clusterTimeMs,\n",
    scenario: "a change of view does not begin the wait for a transfer anew",
  },
  {
    name: "a member that comes back is not told what is gone",
    file: "brick/map/transfer.ts",
    text: "if (entry.value.op <= transfer.sinceOp) continue;",
    instead:
      "if (entry.value.op <= transfer.sinceOp || entry.value.extents.length === 0) continue;",
    scenario:
      "a brick that returns after several epochs and views brings nothing back, and lacks nothing",
  },
  {
    name: "after a recovery a stand-in is sent the map at once",
    file: "control/view-planner.ts",
    text: "return { candidates, transfer: isTransferDue(planning, number, shard, aim) };",
    instead: "return { candidates, transfer: aim.candidates.length > 0 };",
    scenario: "a recovery does not end the wait for a transfer",
  },
]);

const collecting = inFile("tools/sim/rules/garbage.test.ts", [
  {
    name: "a map operation that is sent again names the present epoch",
    file: "brick/volume/shard-link.ts",
    text: "    const { piece, key, holders, inline, parts, gcEpoch } = operation;\n",
    instead:
      "    const { piece, key, holders, inline, parts } = operation;\n    const { gcEpoch } = this.#context.state();\n",
    scenario:
      "a gateway that waits between PUT and map operation over two epochs stores its chunk again",
  },
  {
    name: "a chunk that a PUT finds is not protected",
    file: "brick/store/store.ts",
    text: "      this.stamps.stamp(known);\n      this.#countDedup(lengthBytes);\n",
    instead: "      this.#countDedup(lengthBytes);\n",
    scenario: "a chunk that a PUT finds is kept, however long it was garbage before",
  },
  {
    name: "the chunks of uncommitted entries are not marked",
    file: "brick/gc/mark-walk-io.ts",
    text: "for (const entry of replica.pending.values()) {",
    instead: "for (const entry of [...replica.pending.values()].slice(0, 0)) {",
    scenario: "the chunks of what is logged and not committed are marked",
  },
  {
    name: "what a shard owes to another one is nobody's",
    file: "brick/gc/epochs.ts",
    text: "    const branch = ownBranch(of);\n",
    instead: "    const branch = ownBranch(of);\n    if (branch !== of) return null;\n",
    scenario: "what a shard owes to another one is kept while it does, over any number of epochs",
  },
  {
    name: "a walk goes on in the next view",
    file: "brick/gc/mark-walk-io.ts",
    text: "return replica.view?.view === view && isSettled(replica);",
    instead: "return view > 0 && isSettled(replica);",
    scenario: "a walk that marks ends with its view, and what another view marked does not count",
  },
  {
    name: "what one view marked counts for the next",
    file: "brick/gc/mark-walk-io.ts",
    text: "if (done?.view !== view || done.epoch !== state.gcEpoch) return undefined;",
    instead: "if (done === undefined || done.epoch !== state.gcEpoch) return undefined;",
    scenario: "a walk that marks ends with its view, and what another view marked does not count",
  },
]);

const logging = inFile("tools/sim/rules/log.test.ts", [
  {
    name: "a PUT after a restart rests on the page cache",
    file: "brick/store/store-open.ts",
    text: "make it so.\n    await file.sync();\n",
    instead: "make it so.\n",
    scenario: "what a killed process had not flushed is durable before its next boot answers",
  },
  {
    name: "a boot number is taken without writing it down",
    file: "brick/store/store-open.ts",
    text: "boot: superblock.boot + 1 };\n  await copies.write(superblock);\n",
    instead:
      "boot: superblock.boot + 1 };\n  if (superblock.boot === 1) await copies.write(superblock);\n",
    scenario: "each start has a boot number that none before it had, whatever ends it",
  },
  {
    name: "a brick goes on after a failed flush",
    file: "brick/log/log.ts",
    text: "this.#commit(taken).catch((error: unknown) => this.#host.crash(error));",
    instead: "this.#commit(taken).catch(() => {});",
    scenario: "a failed flush ends the brick, and what waited for it is not answered",
  },
]);

const indexing = inFile("tools/sim/rules/index-rot.test.ts", [
  {
    name: "a map record that cannot be read is taken for absent",
    file: "brick/map/map-table.ts",
    text: "      const bytes = this.#store().get(recordKey(line.table, key)) ?? null;\n",
    instead:
      "      let bytes: Buffer | null = null;\n      try {\n        bytes = this.#store().get(recordKey(line.table, key)) ?? null;\n      } catch {}\n",
    scenario: "a map record that a start cannot read is not taken for absent",
  },
]);

const copying = inFile("tools/sim/rules/copies.test.ts", [
  {
    name: "of the bricks that leave, one is walked for",
    file: "brick/repair/repair-plan.ts",
    text: ".filter((brick) => !stays(state, brick.number))",
    instead: ".filter((brick) => !stays(state, brick.number))\n    .slice(0, 1)",
    scenario: "a brick that is given up while another one is emptied is walked for as well",
  },
  {
    name: "copies on a brick that is down count no more",
    file: "brick/repair/repair-plan.ts",
    text: 'status === "up" || status === "down" ||',
    instead: 'status === "up" ||',
    scenario: "a reboot copies no chunk, and neither does a brick that stays away",
  },
]);

const compacting = inFile("tools/sim/grain-compaction.test.ts", [
  {
    name: "a grain is compacted whatever was written to it meanwhile",
    file: "brick/map/requests.ts",
    text: '  if (!isGrainAsItWas(replica, of)) return "changed";\n',
    instead: "",
    scenario: "a grain that is written while it is rewritten keeps what was written",
  },
  {
    name: "a grain is compacted over what is logged and has not committed",
    file: "brick/map/requests.ts",
    text: "if (grain >= change.grain && grain < end) return false;",
    instead: "if (grain >= change.grain && grain < end && op < 0) return false;",
    scenario: "a chunk that was stored two epochs ago is not named any more",
  },
  {
    name: "a compacted chunk is named however long ago it was stored",
    file: "brick/map/requests.ts",
    text: '  if (isTooOld(gcEpoch, replica.effects.gcEpoch())) return "stale";\n',
    instead: "",
    scenario: "a chunk that was stored two epochs ago is not named any more",
  },
  {
    name: "a compacted chunk counts as protected when it is named, not when it was stored",
    file: "brick/compaction/grain-compaction-io.ts",
    text: "const landed = await this.#name(replica, of, gcEpoch);",
    instead:
      "const landed = await this.#name(replica, of, Math.max(gcEpoch, this.#parts.state().gcEpoch));",
    scenario: "a chunk of which a copy took two epochs to be stored is not named, but stored again",
  },
  {
    name: "compaction maps what was unmapped in a grain",
    file: "brick/compaction/grain-plan.ts",
    text: "if (run !== undefined && run.firstSector + run.sectorCount === firstSector) {\n      run.sectorCount += sectorCount;",
    instead:
      "if (run !== undefined) {\n      run.sectorCount = firstSector + sectorCount - run.firstSector;",
    scenario: "what is unmapped in a grain stays unmapped",
  },
  {
    name: "a compacted chunk is on one brick",
    file: "brick/compaction/grain-compaction-io.ts",
    text: "const wanted = { copies, degradedWrites: false };",
    instead: "const wanted = { copies: Math.min(copies, 1), degradedWrites: false };",
    scenario: "nothing is named on fewer bricks than the volume wants",
  },
  {
    name: "a gateway says that a chunk is lost before it has asked what the map says now",
    file: "brick/volume/gateway-reads.ts",
    text: 'if (outcome.fault === "lost" && part.lostKeys?.has(name)) {',
    instead: 'if (outcome.fault === "lost" && part.lostKeys?.has(name) !== true) {',
    scenario: "a gateway that was not told finds the old chunks swept, and asks again",
  },
]);

const ciphertext = inFile("brick/compaction/grain-plan.test.ts", [
  {
    name: "sectors that were encrypted alone become part of a unit",
    file: "brick/compaction/grain-plan.ts",
    text: "  if (keyDomain !== undefined && !extents.every((one) => keepsUnits(one, span))) return null;\n",
    instead: "",
    scenario: "ciphertext of one chunk is read as the many that it was made of, or is not made",
  },
]);

const levelling = [
  ...inFile("tools/sim/rolling-upgrade.test.ts", [
    {
      name: "a brick is told what it does not understand yet",
      file: "brick/rpc/calls.ts",
      text: "    if (levelOfMessage(type) > this.level) return;\n",
      instead: "",
      scenario:
        "a cluster is upgraded brick by brick under load, and uses what is new once all have it",
    },
    {
      name: "a brick goes on in a cluster that it does not understand",
      file: "control/control-io.ts",
      text: "if (level !== null) this.#options.host.crash(",
      instead: 'if (level === "") this.#options.host.crash(',
      scenario:
        "a brick that goes back to the build before the cluster's level stops, and says what to do",
    },
  ]),
  ...inFile("control/levels.test.ts", [
    {
      name: "the level rises while a brick does not know it",
      file: "control/levels.ts",
      text: "    if (newest <= level) return null;\n",
      instead: "",
      scenario: "the level rises once every brick has said that it knows the next",
    },
    {
      name: "the level rises while a brick is away",
      file: "control/levels.ts",
      text: "if (!isReachable(brick) || heard?.boot !== brick.boot) return null;",
      instead: "if (heard?.boot !== brick.boot) return null;",
      scenario: "a brick that is away keeps the level where it is, until it is given up",
    },
  ]),
  ...inFile("brick/store/superblock.test.ts", [
    {
      name: "a store of a newer format is opened by its older copy",
      file: "brick/store/store-open.ts",
      text: "if (copies.newestVersion > superblockVersion) {",
      instead: "if (copies.newestVersion > 255) {",
      scenario: "a store that a newer build has written is not opened, and is left as it is",
    },
  ]),
  ...inFile("brick/rpc/handshake.test.ts", [
    {
      name: "bricks without a common version of frames take each other on",
      file: "brick/rpc/handshake.ts",
      text: 'if (!isProof && !this.#settle(record)) return "version";',
      instead: "if (!isProof) this.#settle(record);",
      scenario: "two bricks settle on the newest version of frames that both speak",
    },
  ]),
];

const filling = inFile("tools/sim/rules/space.test.ts", [
  {
    name: "a brick ends when its index finds no space",
    file: "brick/store/fatal-kv.ts",
    text: "if (failure !== null && !isNoSpace(failure)) this",
    instead: "if (failure !== null) this",
    scenario: "a brick whose file system is full for long goes on, and takes data again by itself",
  },
  {
    name: "a write that nobody has room for is sent, and its refusal logged",
    file: "brick/volume/shard-link.ts",
    text: "if (takesSpace(operation) && this.#isFull()) {",
    instead: "if (takesSpace(operation) && this.#ended) {",
    scenario:
      "while every file system is full writes are refused, reads go on, and then both do again",
  },
  {
    name: "a start gives up nothing of the room that was kept for it",
    file: "brick/store/kept-room.ts",
    text: "if (given <= 0) return;",
    instead: "if (given <= this.#sizeBytes) return;",
    scenario: "a brick starts in a full file system, time after time, and is what it was before",
  },
  {
    name: "what a start gave up of the room kept is left to others",
    file: "brick/store/kept-room.ts",
    text: "const isOwed = this.#givenBytes > 0;",
    instead: "const isOwed = false;",
    scenario: "a brick starts in a full file system, time after time, and is what it was before",
  },
  {
    name: "control records have no room of their own",
    file: "brick/log/segments.ts",
    text: 'if (claim === "control") return false;',
    instead: 'if (claim === "control") return this.#isKeptFrom(bytes, "reserve");',
    scenario:
      "who has used up the reserve of its log promises a view still, and leads with what it holds",
  },
  {
    name: "a promise waits behind what has no room",
    file: "brick/map/map-service-io.ts",
    text: "    giveUpWaiting(replica);\n    facts.promised = view;\n",
    instead: "    facts.promised = view;\n",
    scenario:
      "who has used up the reserve of its log promises a view still, and leads with what it holds",
  },
  {
    name: "a full brick leaves no view",
    file: "brick/map/full-bricks.ts",
    text: "return new Set(bricks.filter(isFull).map(({ number }) => number));",
    instead: "return new Set();",
    scenario: "a brick whose file system is full for long goes on, and takes data again by itself",
  },
  {
    name: "full bricks leave their views though nobody can take their place",
    file: "brick/map/full-bricks.ts",
    text: "if (bricks.filter(hasRoom).length < replicasWanted(state)) return new Set();",
    instead: "",
    scenario:
      "while every file system is full writes are refused, reads go on, and then both do again",
  },
  {
    name: "what was accepted with records that were given up stays accepted",
    file: "brick/map/replica.ts",
    text: "  facts.accepted = Math.max(replica.acceptedDurable, ...acceptedUnderWay);\n",
    instead: "",
    scenario:
      "what a full brick had no room to accept counts as never accepted, and ends nobody's log",
  },
  {
    name: "whoever holds the most gathers a recovery, with or without room for it",
    file: "brick/map/union.ts",
    text: "if (base.noRoom !== true || isOwn) return",
    instead: "if (base.noRoom !== true || withoutRoom === null) return",
    scenario: "of those who could gather what a recovery needs, one that has room for it does",
  },
]);

export const ruleMutants: readonly Mutant[] = [
  ...acknowledging,
  ...recovering,
  ...leasing,
  ...attaching,
  ...viewing,
  ...collecting,
  ...logging,
  ...indexing,
  ...copying,
  ...filling,
  ...compacting,
  ...ciphertext,
  ...levelling,
];
