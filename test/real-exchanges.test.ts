import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { RealCluster } from "../tools/real-cluster-io.ts";
import { replay } from "./exchanges/replay.ts";
import { clusterScene } from "./exchanges/scene.ts";
import { storiesOver } from "./exchanges/stories.ts";

/** Initiators' exchanges, told in test/exchanges/, against a cluster of three bricks. */

const stories = storiesOver("cluster");
/** What a story does to bricks must not meet another story half way. */
const endangers = ({ story }: (typeof stories)[number]) =>
  story.steps.some((step) => step.kind === "brick");
const ordered = [
  ...stories.filter((one) => !endangers(one)),
  ...stories.filter((one) => endangers(one)),
];

describe("exchanges with a cluster", () => {
  const volumes = stories.flatMap(({ story }) => story.volumes);
  const cluster = new RealCluster({
    restart: false,
    volumes: volumes.map(({ name, size }) => `${name}:${size}`),
  });
  before(async () => {
    assert.equal(new Set(volumes.map(({ name }) => name)).size, volumes.length, "one name each");
    await cluster.start();
  });
  after(() => cluster.dispose());

  for (const one of ordered) {
    const { file, story } = one;
    test(`${file}: ${story.title}`, async () => {
      if (endangers(one)) await mayLoseABrick(cluster);
      await replay(story, clusterScene(cluster));
    });
  }
});

/** A cluster that has just begun has one voter, and a brick that has just come back is behind. */
async function mayLoseABrick(cluster: RealCluster): Promise<void> {
  await cluster.waitFor("three voters and every shard whole", 60_000, async () => {
    const { bricks, shards } = await cluster.status();
    return bricks.filter((brick) => brick.voter).length === 3 && shards.whole === shards.total;
  });
}
