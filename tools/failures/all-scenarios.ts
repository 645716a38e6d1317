import { diskScenarios } from "./disks.ts";
import { lossScenarios } from "./losses.ts";
import { networkScenarios } from "./networks.ts";
import { processScenarios } from "./processes.ts";
import type { Scenario } from "./scenarios.ts";

export const scenarios: readonly Scenario[] = [
  ...processScenarios,
  ...diskScenarios,
  ...networkScenarios,
  ...lossScenarios,
];
