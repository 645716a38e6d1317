import { inFile } from "./mutant.ts";

/** Each breaks one rule of what an answer of a shard stands for: docs/simulation.md tells which. */
export const acknowledging = inFile("tools/sim/rules/acknowledge.test.ts", [
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
    name: "replicas listen to the primary of an older view",
    file: "brick/map/map-service-io.ts",
    text: "if (head.view < view.view) return;",
    instead: "",
    scenario: "an acknowledgement of an older view stands for nothing in the present one",
  },
  {
    name: "a write that comes again is answered while it is under way",
    file: "brick/map/requests.ts",
    text: "    awaitCommit(role, entry, whenLanded(replica, role, answer));\n",
    instead: '    say(replica, answer, "ok");\n',
    scenario: "a write taken over from an older view is answered when the new view has it",
  },
  {
    name: "a chunk inside a write is told to be where the view it was written in had it",
    file: "brick/map/requests.ts",
    text: "entry.inlineBytes > 0 ? replicasOf(replica.view!) : entry.holders;",
    instead: "entry.holders;",
    scenario:
      "a chunk inside a write that a narrower view took over is told to be on its bricks alone",
  },
  {
    name: "a chunk inside a write that has landed is told to be where the present view is",
    file: "brick/map/requests.ts",
    text: '      if (landed) say(replica, answer, "ok", holdersInForce(replica, request));\n',
    instead: '      if (landed) say(replica, answer, "ok", replicasOf(replica.view!));\n',
    scenario: "a chunk inside a write that landed in an older view is told to be where that had it",
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
  {
    name: "a shard remembers whatever it is asked to",
    file: "brick/map/requests.ts",
    text: '  else if (request.sequence >= window.lowWater + windowSpanMax) say(replica, answer, "refused");\n',
    instead: "",
    scenario: "a sequence too far ahead of the low-water mark is refused",
  },
  {
    name: "a new primary answers look-ups before it has committed what it took over",
    file: "brick/map/requests.ts",
    text: "  if (role === null || facts.commitOp < role.startOp || !role.startDurable)\n    return refuse",
    instead: "  if (role === null || !role.startDurable)\n    return refuse",
    scenario: "a new primary shows nothing before what was answered under the old one",
  },
]);
