import assert from "node:assert/strict";
import { test } from "node:test";
import { StageTimes, stage, stageSampling } from "../../brick/stage-times.ts";
import { metricsText } from "../metrics.ts";
import { Samples } from "./prometheus.ts";
import { quantileUs, stageBudgets, stageRows } from "./stages.ts";

class Brick {
  readonly text: () => Promise<string>;
  readonly #stages: StageTimes;
  #nowMs = 1;

  constructor(number: number) {
    this.#stages = new StageTimes({ nowMs: () => this.#nowMs });
    const stages = this.#stages;
    const latencies = new Map();
    this.text = metricsText(number, { values: () => ({}), commands: () => [], latencies, stages });
  }

  hash(elapsedMs: number, times: number): void {
    for (let at = 0; at < times * stageSampling; at += 1) {
      const sinceMs = this.#stages.since(stage.writeHash);
      this.#nowMs += elapsedMs;
      this.#stages.took(stage.writeHash, sinceMs);
    }
  }

  async scrape(): Promise<Samples> {
    return new Samples(await this.text());
  }
}

test("a budget is what all bricks together took between two scrapes", async () => {
  const bricks = [new Brick(1), new Brick(2)];
  // The compilation of the first moments, which no job should be charged with.
  bricks[0]!.hash(40, 50);
  const scrape = () => Promise.all(bricks.map((brick) => brick.scrape()));
  const before = await scrape();
  bricks[0]!.hash(0.004, 3);
  bricks[1]!.hash(0.008, 1);
  const [budget, ...others] = stageBudgets(before, await scrape());
  assert.deepEqual(others, []);
  assert.equal(budget!.count, 4);
  assert.ok(Math.abs(budget!.meanUs - 5) < 0.01, `${budget!.meanUs}`);
  // 3 of 4 in (2, 5], one in (5, 10]: the 3.96th is at 0.96 of the latter.
  assert.ok(Math.abs(budget!.p99Us - 9.8) < 0.01, `${budget!.p99Us}`);
  const rows = stageRows([{ job: "4 KiB random write", depth: 32, stages: [budget!] }]);
  assert.deepEqual(rows, [["4 KiB random write", 32, "write", "hash", "5.0", "9.8", 4]]);
});

test("a quantile beyond all bounds is the last bound", () => {
  const buckets = [
    { upToUs: 10, count: 1 },
    { upToUs: 20, count: 1 },
    { upToUs: Infinity, count: 100 },
  ];
  assert.equal(quantileUs(buckets, 0.99), 20);
  assert.equal(quantileUs(buckets, 0.005), 5);
});
