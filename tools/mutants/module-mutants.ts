import { inFile, type Mutant } from "./mutant.ts";

/** Each breaks a rule that lives in one module, and is caught by one test of that module. */
export const moduleMutants: readonly Mutant[] = [
  ...inFile("brick/log/replay.test.ts", [
    {
      name: "records of a recycled segment are taken for new ones",
      file: "brick/log/replay.ts",
      text: "header.segment !== segment.number || header.epoch !== segment.epoch",
      instead: "header.segment !== segment.number",
      scenario: "what an earlier use of the file left is ignored, and so are copies and strangers",
    },
  ]),
  ...inFile("brick/store/store.test.ts", [
    {
      name: "damage in the middle of the log is taken for its end",
      file: "brick/log/replay.ts",
      text: "if (later === null) return this.#finish(next);",
      instead: "if (later === null || next !== null) return this.#finish(next);",
      scenario: "corruption in the middle is a fault, and both sides of it are kept",
    },
    {
      name: "the log goes on behind a torn tail",
      file: "brick/store/store.ts",
      text: "const last = replayed.clean ? segments",
      instead: "const last = replayed.end.segment > 0 ? segments",
      scenario: "a torn tail is cut, and stays known until the loss is settled",
    },
    {
      name: "a segment is recycled before a checkpoint has passed it",
      file: "brick/log/segments.ts",
      text: "segment.liveBytes > 0 || segment.dirty) continue;\n      if (segment.lastPosition < coveredPosition) found",
      instead:
        "segment.liveBytes > 0) continue;\n      if (segment.lastPosition >= 0 || coveredPosition > 0) found",
      scenario: "a dead segment is recycled; what pointed into its old use is a miss",
    },
    {
      name: "what changes while a checkpoint is written counts as written",
      file: "brick/chunk/chunk-index.ts",
      text: "    this.#collecting.clear();\n",
      instead: "    this.#collecting.clear();\n    this.#changed.clear();\n",
      scenario: "what changes while a checkpoint is written is of the next one",
    },
    {
      name: "a segment counts as its row says though it has changed since",
      file: "brick/store/segment-rows.ts",
      text: "if (encodeSegmentRow(segment).equals(value)) segment.dirty",
      instead: "if (value.length > 0) segment.dirty",
      scenario:
        "a segment that lost its last chunk while a checkpoint was written is kept until the next",
    },
    {
      name: "a segment is recycled while its row is on its way into the index",
      file: "brick/store/store.ts",
      text: "    await this.#checkpoints.settled();\n    const count",
      instead: "    const count",
      scenario:
        "a segment that lost its last chunk while a checkpoint was written is kept until the next",
    },
    {
      name: "an index entry is followed into whatever its segment holds now",
      file: "brick/chunk/chunk-index.ts",
      text: "return this.#segments.byNumber.get(entry.segment)?.epoch === entry.epoch;",
      instead: "return this.#segments.byNumber.has(entry.segment);",
      scenario: "an index entry into an earlier use of a segment is a miss, for puts too",
    },
  ]),
  ...inFile("brick/store/store-full.test.ts", [
    {
      name: "a checkpoint that found no space counts as made",
      file: "brick/store/index-room.ts",
      text: "done(failure === null);",
      instead: "done(true);",
      scenario:
        "a checkpoint without room is put off, and what it would have held is kept until there is",
    },
    {
      name: "what must be logged is refused when the file system is full",
      file: "brick/log/segments.ts",
      text: 'return waits ? "later" : room;',
      instead: "return room;",
      scenario:
        "a record that must be logged waits for room, holds nobody else up, and is not said to be there",
    },
    {
      name: "a control record passes what waits of its own order",
      file: "brick/log/log.ts",
      text: 'claim === "control" && !held.has(order)',
      instead: 'claim === "control"',
      scenario: "control records pass others that wait for room, but none of their own order",
    },
    {
      name: "a start without room for its index fails",
      file: "brick/store/kept-room.ts",
      text: "        if (!isNoSpace(error)) throw error;\n      }\n      const freeBytes",
      instead: "        throw error;\n      }\n      const freeBytes",
      scenario:
        "a start without room says what is full and what it needs, once, and begins when there is some",
    },
    {
      name: "a segment is used anew though the index does not say so",
      file: "brick/store/recycle.ts",
      text: "  if (!indexRoom.write(rows)) return 0;\n",
      instead: "  indexRoom.write(rows);\n",
      scenario: "a segment is not used anew while the index has no room to say so",
    },
  ]),
  ...inFile("control/raft/raft-store-full.test.ts", [
    {
      name: "Raft goes on as if what found no space were durable",
      file: "control/raft/raft-store-io.ts",
      text: "        if (this.#closed) throw closedFull;\n",
      instead: "        return;\n",
      scenario: "a full disk delays what it has no room for, and loses none of it",
    },
    {
      name: "Raft does without a snapshot that took the place of its log",
      file: "control/raft/raft-store-io.ts",
      text: "    if (replacesLog) return this.#withRoom",
      instead: "    if (replacesLog && this.#closed) return this.#withRoom",
      scenario: "a full disk delays what it has no room for, and loses none of it",
    },
    {
      name: "Raft has no zeros ahead of its log",
      file: "control/raft/raft-store-io.ts",
      text: "      await this.#prepare();\n",
      instead: "",
      scenario:
        "votes and entries have room in a full file system, until the zeros ahead are used up",
    },
  ]),
  ...inFile("tools/crash-states/bit-rot.test.ts", [
    {
      name: "a flush of Raft's log of which only the beginning is left was never there",
      file: "control/raft/raft-log-replay.ts",
      text: "recordCount(pieces, batch) <= record.index)",
      instead: "false)",
      scenario:
        "of Raft's damaged files nothing is taken for what was acknowledged, and no loss is silent",
    },
  ]),
  ...inFile("brick/volume/gateway-faults.test.ts", [
    {
      name: "a commit leaves the look-ups under way as they are",
      file: "brick/volume/map-cache.ts",
      text: "    this.#voidFills(grain, 1);\n",
      instead: "",
      scenario: "a read after a write does not take the answer of a look-up from before it",
    },
    {
      name: "a brick that came back while a write was under way goes without it",
      file: "brick/volume/gateway-writes.ts",
      text: "    if (!operation.cancelling && this.#isThickened(operation)) return;\n",
      instead: "",
      scenario: "a brick that is back before the answer has what was written without it",
    },
    {
      name: "a cancelled write is answered before a shard has logged the cancel",
      file: "brick/volume/gateway-writes.ts",
      text: "      if (one.operation !== null) one.link!.cancel(one.operation);\n      else this.#pieceEnded(operation, one);\n",
      instead:
        "      if (one.operation !== null) one.link!.cancel(one.operation);\n      this.#pieceEnded(operation, one);\n",
      scenario: "a cancelled write is answered once it can never land",
    },
    {
      name: "one copy is enough whatever the cluster state says",
      file: "brick/volume/chunk-context.ts",
      text: "return Math.max(1, Math.min(volume.copies, reachableCount(state)));",
      instead: "return Math.min(1, reachableCount(state));",
      scenario: "fewer copies only when the cluster state says so and the volume allows it",
    },
    {
      name: "a chunk is looked for nowhere but where the map says",
      file: "brick/volume/chunk-reader.ts",
      text: "search.order ??= this.#placements.forRead(state).order(search.key);",
      instead: "search.order ??= this.#placements.forRead(state).order(search.key).slice(0, 0);",
      scenario: "a chunk that moved is found along the key's order",
    },
  ]),
  ...inFile("control/cluster-machine.test.ts", [
    {
      name: "a brick is kept for a volume that it served before it restarted",
      file: "control/brick-commands.ts",
      text: "attachments.filter((one) => isHeld(state, one)).length;",
      instead: "attachments.length;",
      scenario: "a drained brick goes once its boot serves nothing, whatever an earlier one served",
    },
    {
      name: "a brick is removed while it serves a volume",
      file: "control/brick-commands.ts",
      text: "    if (held > 0) return `it answers and serves",
      instead: "    if (held < 0) return `it answers and serves",
      scenario: "a drained brick goes once its boot serves nothing, whatever an earlier one served",
    },
    {
      name: "a view follows one that is not the present one",
      file: "control/shard-commands.ts",
      text: "  if (shard.view !== command.expect) return",
      instead: "  if (shard.view < command.expect) return",
      scenario: "a view follows the one it names, and only by its complete members",
    },
    {
      name: "a candidate becomes a member as it is",
      file: "control/shard-commands.ts",
      text: "    if (shard.members.includes(number) && !isDamaged(shard, number)) continue;\n",
      instead: "    if (holdsReplica(shard, number)) continue;\n",
      scenario: "a view follows the one it names, and only by its complete members",
    },
    {
      name: "a primary is replaced while it may answer",
      file: "control/shard-commands.ts",
      text: "const oldMayAnswer = isReachable(old) && old!.boot === shard.primaryBoot;",
      instead: "const oldMayAnswer = old === undefined;",
      scenario: "a living primary is replaced only once it has given way",
    },
    {
      name: "a shard is recovered past a complete member",
      file: "control/shard-commands.ts",
      text: "  if (live.length > 0) return",
      instead: "  if (live.length < 0) return",
      scenario: "a recovery is refused while a complete member answers, and begins with one member",
    },
    {
      name: "an attachment is taken from who may serve",
      file: "control/volume-commands.ts",
      text: "held !== undefined && mayServe(state, held) &&",
      instead: "held !== undefined && held.epoch < 0 &&",
      scenario:
        "an attachment is taken by compare-and-set, and only from who cannot serve or agrees",
    },
    {
      name: "a token lets in any number of bricks",
      file: "control/brick-commands.ts",
      text: "  if (token.usedBy !== undefined) {\n",
      instead: "  if (token.usedBy === uuid) {\n",
      scenario: "a token gives one brick its number; the same brick may ask again",
    },
    {
      name: "a brick that cut its log is a complete member still",
      file: "control/brick-commands.ts",
      text: "const damaged = command.cut && restarted;",
      instead: "const damaged = command.cut && !restarted;",
      scenario: "a brick whose log was cut is no complete member until it has caught up",
    },
    {
      name: "the end of an older boot's lease takes a brick down",
      file: "control/brick-commands.ts",
      text: "was seen to end.\n  if (boot !== brick.boot) return otherBoot",
      instead: "was seen to end.\n  if (boot < 0) return otherBoot",
      scenario: "down and up name the boot that they speak of",
    },
  ]),
  ...inFile("control/membership.test.ts", [
    {
      name: "a damaged primary has given way before the state knows of it",
      file: "control/membership.ts",
      text: "status.damaged === true && isDamaged(shard, from)",
      instead: "status.damaged === true",
      scenario:
        "a damaged primary that is the only member is not made the primary of one view after the other",
    },
    {
      name: "a brick is down while its lease may last",
      file: "control/membership.ts",
      text: "nowMs >= leaseFromMs + leaseSpanMs(book.timing)",
      instead: "nowMs >= leaseFromMs",
      scenario: "the exact millisecond: lease plus drift margin after the grant",
    },
    {
      name: "a lease begins before its brick knows of the views that were changed meanwhile",
      file: "control/lease.ts",
      text: "if (ownVersion >= grant.stateVersion) {",
      instead: "if (ownVersion >= 0) {",
      scenario:
        "a lease counts from the sending, and only once the brick knows what the leader knew",
    },
    {
      name: "a brick that was given up returns with its replicas",
      file: "control/brick-commands.ts",
      text: 'if (brick.status === "failed" && !command.discarded) {',
      instead: 'if (brick.status === "failed" && command.boot < 0) {',
      scenario:
        "a brick back before permanentAfter is up; after it, it must drop its replicas first",
    },
    {
      name: "a keepalive of an older boot is heard",
      file: "control/membership.ts",
      text: "  if (known !== undefined && known.boot > keepalive.boot) return false;\n",
      instead: "",
      scenario: "a keepalive of an older boot is void",
    },
    {
      name: "a brick is granted a lease while it is being given up",
      file: "control/membership.ts",
      text: "brick!.boot === boot && !book.falling.has(number);",
      instead: "brick!.boot === boot;",
      scenario: "nothing is granted to a brick that falls, is down, or speaks under another boot",
    },
  ]),
  ...inFile("control/view-planner.test.ts", [
    {
      name: "a full brick stays in the views of its shards",
      file: "control/view-planner.ts",
      text: "    leaving: leavingForRoom(state),\n",
      instead: "    leaving: new Set(),\n",
      scenario: "a full brick leaves its shards in the first steps, and is back once it has room",
    },
    {
      name: "a primary leads on after its restart",
      file: "control/view-planner.ts",
      text: "brick!.boot === shard.primaryBoot && !isDamaged",
      instead: "!isDamaged",
      scenario: "a restarted primary loses its view at once, nobody their membership",
    },
    {
      name: "a member that was not heard yet leads",
      file: "control/view-planner.ts",
      text: "const leaders = live.filter((one) => input.heard.has(one));",
      instead: "const leaders = live.filter((one) => one > 0);",
      scenario: "a member that only the state calls up does not lead before it is heard",
    },
    {
      name: "the chain of views ends while replicas are missing",
      file: "control/shard-commands.ts",
      text: "if (next.candidates.length === 0 && next.members.length >= wanted) return [];",
      instead: "if (next.members.length >= Math.min(1, wanted)) return [];",
      scenario: "whatever happens to the bricks, no op is lost and every shard is whole in the end",
    },
  ]),
  ...inFile("control/gc.test.ts", [
    {
      name: "an epoch ends when some shard is marked",
      file: "control/gc-planner.ts",
      text: "seen.marked.size === state.shards.length",
      instead: "seen.marked.size > 0",
      scenario:
        "the leader begins an epoch when somebody wants it, and ends it when every shard is marked",
    },
    {
      name: "a brick sweeps by what was marked under an older boot",
      file: "brick/gc/epochs.ts",
      text: "own === undefined || own.boot !== boot ||",
      instead: "own === undefined || boot < 0 ||",
      scenario:
        "a brick sweeps once it was there for two whole epochs, and then what is older than both",
    },
    {
      name: "who was away during an epoch sweeps by its marks",
      file: "control/gc-commands.ts",
      text: ".filter(([number]) => isSteady(state, Number(number)))",
      instead: '.filter(([number]) => number !== "")',
      scenario: "who was away, however shortly, or restarted, begins anew",
    },
  ]),
  ...inFile("brick/gc/mark-page.test.ts", [
    {
      name: "a mark counts when one brick has the chunk",
      file: "brick/gc/mark-page.ts",
      text: "      if (having.length >= copies) continue;\n",
      instead: "      if (having.length > 0) continue;\n",
      scenario: "where too few have it every other brick is asked, and the map learns who has it",
    },
  ]),
  ...inFile("brick/repair/repair-plan.test.ts", [
    {
      name: "copies on a brick that is down are made again",
      file: "brick/repair/repair-plan.ts",
      text: 'status === "up" || status === "down" || status === "joining"',
      instead: 'status === "up" || status === "joining"',
      scenario: "a brick that is down or joining keeps counting",
    },
  ]),
  ...inFile("tools/sim/repair.test.ts", [
    {
      name: "what commits behind a walk, naming a brick that leaves, is not noted",
      file: "brick/repair/repair-io.ts",
      text: "chunksOf(entry).some(isShort)",
      instead: "chunksOf(entry).slice(0, 0).some(isShort)",
      scenario: "what lands on a brick after its shard was found in order is moved as well",
    },
  ]),
  ...inFile("tools/sim/damage.test.ts", [
    {
      name: "a brick that lost records takes a shard that it knows nothing of for new",
      file: "brick/map/map-service-io.ts",
      text: "if (this.#hasLostRecords) replica.facts.lossy = true;",
      instead: "",
      scenario:
        "a brick that has lost all records of a shard says so itself, after another restart too",
    },
  ]),
  ...inFile("control/raft/raft-thesis.test.ts", [
    {
      name: "a Raft server stands for election without asking first",
      file: "control/raft/raft.ts",
      text: "    election.startPreVote(raft);\n",
      instead: "    election.startElection(raft, false);\n",
      scenario: "Pre-vote: a server that cannot win does not raise its term",
    },
    {
      name: "a Raft leader leads on without a quorum",
      file: "control/raft/raft.ts",
      text: "if (raft.nowMs - contactMs > raft.timing.electionTimeoutMsMax) {",
      instead: "if (contactMs < 0) {",
      scenario: "Check-quorum: a leader that no majority answers steps down",
    },
    {
      name: "a Raft server votes while it hears a leader",
      file: "control/raft/raft.ts",
      text: "      if (isSticky(raft) && !message.transfer) return;\n",
      instead: "",
      scenario:
        "Stickiness: a vote asked for while a leader is heard is ignored, unless the leader wants it",
    },
    {
      name: "Raft's voters change twice at once",
      file: "control/raft/membership.ts",
      text: "const pending = raft.configurations.at(-1)!.index > raft.commitIndex;",
      instead: "const pending = raft.commitIndex < 0;",
      scenario: "Membership: one change at a time, none before an entry of the term is committed",
    },
    {
      name: "Raft's voters change before the leader has committed anything",
      file: "control/raft/membership.ts",
      text: "if (pending || raft.commitIndex < role.firstIndex) {",
      instead: "if (pending) {",
      scenario: "Membership: no change before an entry of the term is committed",
    },
    {
      name: "a Raft read is confirmed by a round from before it",
      file: "control/raft/read-index.ts",
      text: "role.reads.push({ id, round: role.round + 1 });",
      instead: "role.reads.push({ id, round: role.round });",
      scenario:
        "Reads: confirmed by a round begun after the request, when an entry of the term is committed",
    },
    {
      name: "a Raft server votes though it may have forgotten entries",
      file: "control/raft/raft-state.ts",
      text: "  return raft.healing === null;\n",
      instead: "  return raft.self > 0;\n",
      scenario: "Healing: a server that may have forgotten entries neither votes nor stands",
    },
    {
      name: "a Raft learner votes before it has the log",
      file: "control/raft/membership.ts",
      text: 'if (change.type === "promote" && !hasCaughtUp(raft, role, change.brick)) {',
      instead: 'if (change.type === "promote" && role.peers.get(change.brick) === undefined) {',
      scenario:
        "Membership: a learner has no part in majorities and is promoted only when it has caught up",
    },
  ]),
  ...inFile("brick/volume/chunk-guard.test.ts", [
    {
      name: "a holder that comes back while the others are asked is waited for, and not asked",
      file: "brick/volume/chunk-guard.ts",
      text: "for (const brick of missing) ask(brick);",
      instead: "",
      scenario:
        "a holder that was away when its turn came, and is back before the others have answered, is asked",
    },
  ]),
  ...inFile("brick/store/recycle.test.ts", [
    {
      name: "a recycled segment is taken to be as long as any",
      file: "brick/store/recycle.ts",
      text: "segment.preparedBytes = sizeBytes - (sizeBytes % batchAlignBytes);",
      instead: "segment.preparedBytes = sizeBytes < 0 ? 0 : segments.segmentBytes;",
      scenario: "a segment whose file is short has no more room than that when it is used anew",
    },
  ]),
  ...inFile("brick/map/map-cluster-faults.test.ts", [
    {
      name: "a state from before the restart makes a member drop its replica",
      file: "brick/map/map-service-io.ts",
      text: "if (isNews && !inChain &&",
      instead: "if (record.view >= 0 && !inChain &&",
      scenario: "a brick that restarts and is told an older state keeps what it took part in since",
    },
    {
      name: "a checkpoint takes in what no flush has covered",
      file: "brick/map/replay.ts",
      text: "for (const { op } of undurable) lastOp = Math.min(lastOp, op - 1);",
      instead: "for (const { op } of undurable) lastOp = Math.max(lastOp, op - 1);",
      scenario: "a checkpoint leaves out the entries that no flush has covered",
    },
    {
      name: "a candidate takes records before it was told to begin",
      file: "brick/map/backup.ts",
      text: "if (!role.accepting) return;\n  takeRecords",
      instead: "if (!role.greeted) return;\n  takeRecords",
      scenario: "a candidate takes no records before it was told to begin with an empty base",
    },
    {
      name: "a proposal is sent once",
      file: "brick/map/primary.ts",
      text: "wakeAfter(replica.shard, resendAfterMs);\n  journalEntry",
      instead: "wakeAfter(replica.shard, 1_000_000 * resendAfterMs);\n  journalEntry",
      scenario: "a proposal whose messages were lost is sent again, though nothing else happens",
    },
  ]),
  ...inFile("brick/gc/demand.test.ts", [
    {
      name: "epochs are asked for without end while space is short",
      file: "brick/gc/demand.ts",
      text: "const pressing = urgent && (!this.#isComing() || released > share * freeBytes);",
      instead: "const pressing = urgent && (this.#isComing() || released > 0 || share > 0);",
      scenario: "what was asked for is swept before more is asked for, but for much more",
    },
  ]),
  ...inFile("control/raft/raft.test.ts", [
    {
      name: "a Raft leader commits an older leader's entry by its copies",
      file: "control/raft/raft.ts",
      text: "if (index <= raft.commitIndex || raft.log.termAt(index) !== raft.term) return;",
      instead: "if (index <= raft.commitIndex) return;",
      scenario:
        "Leaders: an entry of an earlier term is committed only with one of the own (section 5.4.2)",
    },
  ]),
  ...inFile("control/raft/raft-store-io.test.ts", [
    {
      name: "Raft's mark of what was flushed is not flushed itself",
      file: "control/raft/raft-store-io.ts",
      text: "    await file.write((this.#tail.batch % 2) * tailSlotBytes, [encodeTail(this.#tail)]);\n    await unrepeated(file.sync());\n",
      instead:
        "    await file.write((this.#tail.batch % 2) * tailSlotBytes, [encodeTail(this.#tail)]);\n",
      scenario:
        "what a power cut and damage take together is known: the end of the log, and a mark of it",
    },
  ]),
  ...inFile("control/raft/raft-log-replay.test.ts", [
    {
      name: "damage at the end of Raft's log is taken for a torn tail",
      file: "control/raft/raft-log-replay.ts",
      text: "const suspect = isLastFlushed || isLastComplete ? null : lastBatch;",
      instead: "const suspect = isLastComplete ? null : lastBatch;",
      scenario: "the same bad batch is damage when it was flushed",
    },
    {
      name: "Raft's mark of what was flushed counts as the last one though another is unreadable",
      file: "control/raft/raft-log-replay.ts",
      text: "const isTailKnown = tail.isLast && lastBatch",
      instead: "const isTailKnown = lastBatch",
      scenario:
        "a damaged end of the log is lost without a bound where the tail may have known of more",
    },
    {
      name: "Raft's mark of what was flushed counts though its log goes on far behind it",
      file: "control/raft/raft-log-replay.ts",
      text: "tail.isLast && lastBatch <= flushedBatch + 1;",
      instead: "tail.isLast;",
      scenario: "a tail that is more than one batch behind the log was damaged",
    },
    {
      name: "a slot of Raft's mark that cannot be read counts as one that never was",
      file: "control/raft/raft-log-format.ts",
      text: "isLast: isEach && before.batch === Math.max(0, latest.batch - 1) };",
      instead: "isLast: isEach || before.batch === 0 };",
      scenario: "the tail is the later slot, and the last one only beside the one before it",
    },
  ]),
];
