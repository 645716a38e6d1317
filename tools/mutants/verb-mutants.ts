import { inFile, type Mutant } from "./mutant.ts";

/** Each leaves an operator's verb half done, or tells what is not so, when power is lost: docs/simulation.md. */
export const verbMutants: readonly Mutant[] = inFile("tools/sim/verb-crash.test.ts", [
  {
    name: "a deletion ends with the brick that was asked for it",
    file: "control/leader-io.ts",
    text: "    for (const command of begunDeletions(state)) this.#decideIfItHolds(command);\n",
    instead: "",
    scenario: "a volume that is being deleted is there, or gone to the last trace",
  },
  {
    name: "an operator is told of a change before it is committed",
    file: "control/submit-io.ts",
    text: "    const result = await this.#propose(id, timeMs, command);\n",
    instead:
      '    const proposed = this.#propose(id, timeMs, command);\n    const early: CommandResult = { ok: true, value: 0 };\n    const result = command.type === "addJoinToken" ? early : await proposed;\n',
    scenario: "a change that its operator was told of is made, whatever loses power then",
  },
  {
    name: "a brick is removed before its copies are elsewhere",
    file: "tools/admin-backend.ts",
    text: "return led === state.shards.length && stats.every((one) => one.repairPending === 0);",
    instead: "return led <= state.shards.length;",
    scenario: "a brick is removed once its copies are elsewhere, whatever is cut meanwhile",
  },
  {
    name: "a key that no volume took is kept for it for ever",
    file: "control/pending-keys.ts",
    text: "([, { endsMs }]) => endsMs > toMs",
    instead: "([, { endsMs }]) => endsMs > 0",
    scenario: "a key that was made for a volume is that volume's, or gone",
  },
  {
    name: "a token is spent by an answer that never came",
    file: "control/brick-commands.ts",
    text: "    if (token.usedBy === uuid && known !== undefined) return done(state, known.number);\n",
    instead: "",
    scenario: "a brick that joins has one number, also when it was not told of it",
  },
]);
