import type { Mutant } from "./mutant.ts";

/**
 * Each breaks one rule of replication, membership or garbage collection, and is caught by the one
 * scenario that was written for it: docs/simulation.md tells which.
 */

type Breach = Pick<Mutant, "name" | "file" | "text" | "instead"> & { readonly scenario: string };

const inFile = (test: string, breaches: readonly Breach[]): Mutant[] =>
  breaches.map((breach) => ({ ...breach, caughtBy: [test] }));

const acknowledging = inFile("tools/sim/rules/acknowledge.test.ts", [
  {
    name: "a write is answered before the candidates have it",
    file: "brick/map/primary.ts",
    text: "  for (const peer of role.peers.values()) op = ",
    instead:
      "  for (const peer of role.peers.values())\n    if (replica.view!.members.includes(peer.brick)) op = ",
    scenario: "an acknowledgement waits for a candidate as for a member",
  },
  {
    name: "a primary does not wait for its own flush",
    file: "brick/map/primary.ts",
    text: "  journalEntry(replica, entry, facts.commitOp, () => {\n",
    instead:
      "  role.durableOp = entry.op;\n  advanceCommit(replica, role);\n  journalEntry(replica, entry, facts.commitOp, () => {\n",
    scenario: "a primary that is alone answers once its own log has it",
  },
  {
    name: "the lease is not looked at again before an answer",
    file: "brick/map/requests.ts",
    text: "if (replica.role !== role || leading(replica) === null) return;",
    instead: "if (replica.role !== role) return;",
    scenario: "a lease that ends while backups are waited for ends the answer",
  },
  {
    name: "a write that comes again is answered while it is under way",
    file: "brick/map/requests.ts",
    text: "    awaitCommit(role, entry, whenLanded(replica, role, answer));\n",
    instead: '    say(replica, answer, "ok");\n',
    scenario: "a write taken over from an older view is answered when the new view has it",
  },
  {
    name: "a log keeps what the new primary's log has otherwise",
    file: "brick/map/replica-state.ts",
    text: "if (start.view > common.view) op =",
    instead: "if (start.view < 0) op =",
    scenario:
      "a write that only its dead primary had is taken back there, and what took its place stays",
  },
  {
    name: "a sequence below the low-water mark is new again",
    file: "brick/map/requests.ts",
    text: '  else if (request.sequence < window.lowWater) say(replica, answer, "refused");\n',
    instead: "",
    scenario: "a sequence below the low-water mark is refused, and changes nothing",
  },
  {
    name: "an UNMAP leaves no trace among the sequences",
    file: "brick/map/replica.ts",
    text: '    case "write":\n    case "reference":\n    case "unmap":\n    case "group":\n',
    instead:
      '    case "unmap":\n      return;\n    case "write":\n    case "reference":\n    case "group":\n',
    scenario: "an UNMAP sent again after a change of view has landed once",
  },
  {
    name: "a candidate is not told what was carried out before it joined",
    file: "brick/map/backup.ts",
    text: "  facts.windows = windowsFrom(payload.windows);\n",
    instead: "",
    scenario: "a candidate that comes to lead knows what was carried out before it joined",
  },
  {
    name: "what was carried out is not logged with the facts of a view",
    file: "brick/map/replica-state.ts",
    text: "    windows: imageOf(windows),\n",
    instead: "    windows: imageOf(windows).slice(0, 0),\n",
    scenario: "what was carried out is known after power cuts of all",
  },
  {
    name: "a fence is answered before it is logged",
    file: "brick/map/requests.ts",
    text: '      entryOf(replica, { kind: "fence", branch, epoch }, op, view);\n    propose(replica, role, make, whenLanded(replica, role, answer));\n',
    instead:
      '      entryOf(replica, { kind: "fence", branch, epoch }, op, view);\n    propose(replica, role, make, () => {});\n    say(replica, answer, "ok");\n',
    scenario: "a fence is answered once every replica has logged it",
  },
  {
    name: "a cancel is answered before it is logged",
    file: "brick/map/requests.ts",
    text: '    entryOf(replica, { ...request, kind: "cancel" }, op, view);\n  propose(replica, role, make, whenLanded(replica, role, answer));\n',
    instead:
      '    entryOf(replica, { ...request, kind: "cancel" }, op, view);\n  propose(replica, role, make, () => {});\n  say(replica, answer, "cancelled");\n',
    scenario: "a cancel is answered once every replica has logged it",
  },
]);

const recovering = inFile("tools/sim/rules/recovery.test.ts", [
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
    name: "records cut from the log count again after a restart",
    file: "brick/map/replay.ts",
    text: "if (entry.op <= facts.commitOp || replica.cuts.some((cut) => entry.op > cut.keptTo)) return;",
    instead: "if (entry.op <= facts.commitOp) return;",
    scenario: "what a view cut from a log stays cut, though only a checkpoint knows of it",
  },
]);

export const ruleMutants: readonly Mutant[] = [...acknowledging, ...recovering];
