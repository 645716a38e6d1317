import type { Samples } from "./prometheus.ts";

/** What the jobs are run on: END, or what it is measured beside. */
export interface Subject {
  readonly name: string;
  /** One for each session. */
  readonly urls: readonly string[];
  pids(): number[];
  /** The metrics of its bricks; none of a target that is not END. */
  scrape(): Promise<Samples[]>;
}
