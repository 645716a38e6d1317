import { setTimeout as sleep } from "node:timers/promises";
import { Namespaces } from "./namespaces-io.ts";
import type { Promised } from "./rounds.ts";
import { inTurn, killPauseMsMax, type Scenario, silent, silentPortal } from "./scenarios.ts";
import type { Stage } from "./stage-io.ts";

/** Bricks whose packets are dropped: nobody is told, and they live on. */

const bricks = 3;
const cutMs = 8_000;
const silentMsMax = 3_000;

interface Cut {
  victim: number;
  /** Whose portal the initiator is logged in to. */
  portal: number;
  /** Where it goes when that one is silent. */
  elsewhere: readonly number[];
  /** From whom; absent: from everyone. */
  from?: readonly number[];
}

function cutting(choose: (stage: Stage, round: number) => Promise<Cut>): Scenario["begin"] {
  return async () => {
    const namespaces = await Namespaces.make(bricks);
    return {
      options: { bricks, copies: 2, machines: namespaces, silentMsMax },
      round: async (stage, round) => {
        const { victim, portal, elsewhere, from } = await choose(stage, round);
        return stage.round([portal], async () => {
          stage.usePortals(elsewhere);
          await namespaces.cut(victim, from);
          await sleep(cutMs);
          await stage.rejoin([victim], () => namespaces.heal(victim));
        });
      },
      end: () => namespaces.dispose(),
    };
  };
}

/** An initiator that stays at a portal which may not serve waits as long as that lasts. */
const aside: Promised = { ...silentPortal, pauseMsMax: cutMs + killPauseMsMax };

export const networkScenarios: readonly Scenario[] = [
  {
    name: "cut-off",
    about: "all packets of a brick that neither serves nor is logged in to are dropped for 8 s",
    rounds: 4,
    promised: silent,
    begin: cutting(async (stage, round) => {
      const gateway = await stage.gateway();
      const [victim] = inTurn(stage, round, [gateway]);
      return { victim: victim!, portal: gateway, elsewhere: [gateway] };
    }),
  },
  {
    name: "cut-off-gateway",
    about:
      "all packets of the brick that serves are dropped; its initiator goes elsewhere after 3 s",
    rounds: 4,
    promised: silentPortal,
    begin: cutting(async (stage, round) => {
      const gateway = await stage.gateway();
      return { victim: gateway, portal: gateway, elsewhere: inTurn(stage, round, [gateway]) };
    }),
  },
  {
    name: "cut-off-from-bricks",
    about: "the brick that serves is cut off from the other bricks, not from its initiator",
    rounds: 4,
    promised: aside,
    begin: cutting(async (stage, round) => {
      const gateway = await stage.gateway();
      const from = inTurn(stage, round, [gateway]);
      return { victim: gateway, portal: gateway, elsewhere: [gateway], from };
    }),
  },
];
