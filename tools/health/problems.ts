import { severities } from "../../control/events.ts";
import { brickProblems, voterProblems } from "./brick-problems.ts";
import type { HealthFacts, Problem } from "./facts.ts";
import { mapProblems } from "./map-problems.ts";
import { spaceProblems } from "./space-problems.ts";

/**
 * What is wrong with a cluster, the worst first: what it is, since when, what END does about it and
 * what the operator should do. Of severity `info` are states that somebody wanted or may live with.
 */
export function problemsOf(facts: HealthFacts): Problem[] {
  const problems = [
    ...brickProblems(facts),
    ...mapProblems(facts),
    ...spaceProblems(facts),
    ...voterProblems(facts),
  ];
  const rank = ({ severity }: Problem) => -severities.indexOf(severity);
  return problems.sort((one, other) => rank(one) - rank(other));
}

/** Whether something calls for the operator. */
export function isHealthy(problems: readonly Pick<Problem, "severity">[]): boolean {
  return problems.every(({ severity }) => severity === "info");
}
