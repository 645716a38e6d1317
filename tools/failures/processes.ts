import { setTimeout as sleep } from "node:timers/promises";
import {
  forwarderHit,
  inTurn,
  nobodyLeft,
  plainly,
  portalHit,
  type Scenario,
  silent,
  silentGateway,
  silentPortal,
  unharmed,
} from "./scenarios.ts";
import type { Stage } from "./stage-io.ts";

/** Bricks that are killed, frozen and restarted. */

const frozenMs = 8_000;
/** As an initiator whose pings are answered no more, before it takes another path. */
const silentMsMax = 3_000;

async function freeze(stage: Stage, victim: number): Promise<void> {
  stage.cluster.signal(victim, "SIGSTOP");
  await sleep(frozenMs);
  await stage.rejoin([victim], () => stage.cluster.signal(victim, "SIGCONT"));
}

export const processScenarios: readonly Scenario[] = [
  {
    name: "kill",
    about: "kill -9 of a brick that neither serves the volume nor is logged in to",
    rounds: 20,
    promised: unharmed,
    begin: plainly({}, async (stage, round) => {
      const gateway = await stage.gateway();
      const [victim] = inTurn(stage, round, [gateway]);
      return stage.round([gateway], async () => {
        await stage.kill(victim!);
        await stage.progress(1_000);
        await stage.startAgain(victim!);
      });
    }),
  },
  {
    name: "kill-gateway",
    about:
      "kill -9 of the brick that serves the volume and is logged in to; others are logged in to",
    rounds: 20,
    promised: portalHit,
    begin: plainly({}, async (stage, round) => {
      const gateway = await stage.gateway();
      return stage.round([gateway], async () => {
        stage.usePortals(inTurn(stage, round, [gateway]));
        await stage.kill(gateway);
        await stage.progress();
        await stage.startAgain(gateway);
      });
    }),
  },
  {
    name: "kill-same-portal",
    about: "kill -9 of the same brick, which is started again; only its portal is logged in to",
    rounds: 10,
    promised: portalHit,
    begin: plainly({}, async (stage) => {
      const gateway = await stage.gateway();
      return stage.round([gateway], async () => {
        await stage.kill(gateway);
        await stage.startAgain(gateway);
      });
    }),
  },
  {
    name: "kill-behind-portal",
    about: "kill -9 of the brick that serves the volume; another portal is logged in to",
    rounds: 10,
    promised: forwarderHit,
    begin: plainly({}, async (stage, round) => {
      const gateway = await stage.gateway();
      const [portal] = inTurn(stage, round, [gateway]);
      return stage.round([portal!], async () => {
        await stage.kill(gateway);
        await stage.progress();
        await stage.startAgain(gateway);
      });
    }),
  },
  {
    name: "freeze",
    about: "SIGSTOP for 8 s of a brick that neither serves the volume nor is logged in to",
    rounds: 6,
    promised: silent,
    begin: plainly({}, async (stage, round) => {
      const gateway = await stage.gateway();
      const [victim] = inTurn(stage, round, [gateway]);
      return stage.round([gateway], () => freeze(stage, victim!));
    }),
  },
  {
    name: "freeze-gateway",
    about: "SIGSTOP for 8 s of the brick that serves; its initiator waits for it",
    rounds: 4,
    promised: silentGateway,
    begin: plainly({}, async (stage) => {
      const gateway = await stage.gateway();
      return stage.round([gateway], () => freeze(stage, gateway));
    }),
  },
  {
    name: "freeze-gateway-leave",
    about: "SIGSTOP for 8 s of the brick that serves; its initiator goes elsewhere after 3 s",
    rounds: 4,
    promised: silentPortal,
    begin: plainly({ silentMsMax }, async (stage, round) => {
      const gateway = await stage.gateway();
      return stage.round([gateway], async () => {
        stage.usePortals(inTurn(stage, round, [gateway]));
        await freeze(stage, gateway);
      });
    }),
  },
  {
    name: "two-of-five",
    about: "kill -9 of two bricks of five at once, three copies; not of the one that serves",
    rounds: 6,
    promised: unharmed,
    begin: plainly({ bricks: 5, copies: 3 }, async (stage, round) => {
      const gateway = await stage.gateway();
      const victims = inTurn(stage, round, [gateway]).slice(0, 2);
      return stage.round([gateway], async () => {
        await stage.kill(...victims);
        await stage.progress(1_000);
        await stage.startAgain(...victims);
      });
    }),
  },
  {
    name: "two-of-five-gateway",
    about: "kill -9 of two bricks of five at once, three copies; one of them serves the volume",
    rounds: 6,
    promised: portalHit,
    begin: plainly({ bricks: 5, copies: 3 }, async (stage, round) => {
      const gateway = await stage.gateway();
      const [other, ...rest] = inTurn(stage, round, [gateway]);
      return stage.round([gateway], async () => {
        stage.usePortals(rest);
        await stage.kill(gateway, other!);
        await stage.progress();
        await stage.startAgain(gateway, other!);
      });
    }),
  },
  {
    name: "two-of-five-two-copies",
    about: "the same with two copies: some data is away until they are started again",
    rounds: 4,
    promised: nobodyLeft,
    begin: plainly({ bricks: 5, copies: 2 }, async (stage, round) => {
      const gateway = await stage.gateway();
      const victims = inTurn(stage, round, [gateway]).slice(0, 2);
      return stage.round([gateway], async () => {
        await stage.kill(...victims);
        await sleep(frozenMs);
        await stage.startAgain(...victims);
      });
    }),
  },
  {
    name: "kill-all",
    about: "kill -9 of all bricks at once; all are started again",
    rounds: 5,
    promised: nobodyLeft,
    begin: plainly({}, async (stage, round) =>
      stage.round(inTurn(stage, round, []), async () => {
        await stage.kill(...stage.bricks);
        await stage.startAgain(...stage.bricks);
      }),
    ),
  },
  {
    name: "reboots",
    about: "each brick in turn is stopped, or killed with -9, and started again",
    rounds: 50,
    promised: portalHit,
    begin: plainly({}, async (stage, round) => {
      const victim = stage.bricks[round % stage.bricks.length]!;
      return stage.round(inTurn(stage, round, [victim]), async () => {
        if (round % 2 === 0) await stage.stopBrick(victim);
        else await stage.kill(victim);
        // Written while it is away, to its shards too.
        await stage.progress();
        await stage.startAgain(victim);
      });
    }),
  },
];
