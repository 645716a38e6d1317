import { rmSync } from "node:fs";
import type { Promised } from "./rounds.ts";
import { plainly, type Scenario, unharmed } from "./scenarios.ts";

/** A brick whose data directory is lost, and a new one in its place. */

const replaced: Promised = { ...unharmed, repair: true };

export const lossScenarios: readonly Scenario[] = [
  {
    name: "replace",
    about:
      "a brick and its directory are lost, it is removed and a new one joins; then the last other holder dies",
    rounds: 2,
    promised: replaced,
    begin: plainly({}, async (stage) => {
      const gateway = await stage.gateway();
      const [lost, other] = stage.bricks.filter((number) => number !== gateway);
      return stage.round([gateway], async () => {
        await stage.progress(1_500);
        await stage.kill(lost!);
        await stage.cluster.waitGone(lost!);
        rmSync(stage.cluster.brickFolder(lost!), { recursive: true, force: true });
        await stage.progress();
        await stage.cluster.waitFor("the brick given up", 60_000, async () => {
          const reply = stage.cluster.ask((client) => client.brickRemove(lost!, true));
          return reply.then(
            () => true,
            () => false,
          );
        });
        await stage.replaceBrick(lost!, gateway);
        await stage.waitRepaired();
        // Whoever else had what the lost brick had; every acknowledged write is on two others.
        await stage.kill(other!);
        await stage.progress(1_000);
        await stage.verifyNow();
        await stage.startAgain(other!);
      });
    }),
  },
];
