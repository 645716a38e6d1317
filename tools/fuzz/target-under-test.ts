import type { Prng } from "../../brick/prng.ts";
import { TestAuthority } from "../../iscsi/authority.test-double.ts";
import type { Proof } from "../../iscsi/authority.ts";
import { followAuthority } from "../../iscsi/follow-authority.ts";
import { ManualClock } from "../../iscsi/initiator.test-double.ts";
import {
  commandWindow,
  immediateTasksMax,
  loginPenaltiesMax,
  sessionDataBytesMax,
  unsentBytesMax,
} from "../../iscsi/limits.ts";
import { memoryDirectory } from "../../iscsi/memory-volume.test-double.ts";
import { makeNode } from "../../iscsi/node.ts";
import { type LogicalUnit, makeLogicalUnit } from "../../iscsi/scsi/logical-unit.ts";
import type { TargetMetrics, TargetNode } from "../../iscsi/session-state.ts";
import { targetNameOf } from "../../iscsi/target-name.ts";
import { FuzzVolume } from "./fuzz-volume.ts";
import { demand } from "./violation.ts";

/**
 * The target that is fuzzed, and its volumes: `wild` is everybody's, `calm` belongs to initiators
 * that keep to the rules, `innocent` to the one session that must not notice anything.
 */

const volumeBytes = { wild: 64 << 20, calm: 64 << 20, innocent: 1 << 20 } as const;
export type VolumeRole = keyof typeof volumeBytes;
export const volumeRoles = ["wild", "calm", "innocent"] as const;

export interface TargetUnderTest {
  readonly node: TargetNode;
  readonly clock: ManualClock;
  readonly authority: TestAuthority;
  readonly volumes: ReadonlyMap<VolumeRole, FuzzVolume>;
  /** Units as the initiators imagine them, to make commands that fit. */
  readonly imagined: ReadonlyMap<VolumeRole, LogicalUnit>;
}

/** Initiators that must prove who they are, all with the same account. */
export const guardedNames = ["iqn.2026-11.test:guarded", "iqn.2026-11.test:lawful-guarded"];
export const guardedAccount = { user: "guard", secret: Buffer.from("sixteen bytes of") };
export const guardedProof: Proof = {
  method: "chap",
  account: {
    ...guardedAccount,
    algorithms: [8, 7],
    mutual: { user: "target", secret: Buffer.from("sixteen others of") },
  },
};

const portalGroupTag = 7;

export function makeTarget(prng: Prng, metrics: TargetMetrics): TargetUnderTest {
  const volumes = new Map<VolumeRole, FuzzVolume>();
  const imagined = new Map<VolumeRole, LogicalUnit>();
  for (const [index, name] of volumeRoles.entries()) {
    const volume = new FuzzVolume({
      name,
      sizeBytes: volumeBytes[name],
      uuid: `${index}`.repeat(32),
      prng: prng.fork(),
      faultChance: name === "innocent" ? 0 : 0.02,
    });
    volumes.set(name, volume);
    imagined.set(name, makeLogicalUnit({ volume, targetName: targetNameOf(name), portalGroupTag }));
  }
  const clock = new ManualClock();
  const directory = memoryDirectory([...volumes.values()]);
  const authority = new TestAuthority(directory);
  for (const name of guardedNames) authority.proofs.set(name, guardedProof);
  const secrets = prng.fork();
  const node = makeNode({
    directory,
    authority,
    portalGroupTag,
    announce: "192.0.2.1:3260",
    clock,
    log: () => {},
    metrics,
    secretBytes: (lengthBytes) => secrets.fill(Buffer.alloc(lengthBytes)),
  });
  followAuthority(node);
  return { node, clock, authority, volumes, imagined };
}

/** Every table of the target is within its bound, at every moment. */
export function checkBounds({ node }: TargetUnderTest): void {
  demand(node.throttle.size <= loginPenaltiesMax, `${node.throttle.size} penalties`);
  for (const {
    tasks,
    held,
    fence,
    immediateTasks,
    connection,
    admittedBytes,
  } of node.sessions.values()) {
    demand(tasks.size <= commandWindow + immediateTasksMax, `a session of ${tasks.size} tasks`);
    demand(held.size <= commandWindow, `${held.size} requests are held for their turn`);
    const fenced = fence?.length ?? 0;
    demand(fenced <= commandWindow + 2 * immediateTasksMax, `${fenced} requests wait for a reset`);
    demand(immediateTasks <= immediateTasksMax, `${immediateTasks} immediate tasks`);
    const owed = connection.outbox.bytes + connection.unsentBytes;
    const owedMax = unsentBytesMax + 2 * sessionDataBytesMax;
    demand(owed <= owedMax, `${owed} B are owed to one initiator`);
    demand(admittedBytes >= 0, "admitted bytes below zero");
  }
}

/** When all connections are gone, so is everything that was kept for them. */
export function isAtRest({ node, volumes }: TargetUnderTest): boolean {
  const { sessions, nexuses, units, challenges } = node;
  const tables = sessions.size + nexuses.size + units.size + challenges.size;
  const waiting = [...volumes.values()].reduce((sum, volume) => sum + volume.waitingCount, 0);
  return tables + waiting === 0;
}
