import type { ClusterState } from "../brick/cluster-state.ts";
import { levelOfShardSpan } from "../brick/feature-level.ts";
import { apply, emptyClusterState } from "./cluster-machine.ts";
import type { CommandResult } from "./command-result.ts";
import type { Command } from "./commands.ts";

/** A cluster state under commands, for the tests of this folder. */
export class TestCluster {
  state: ClusterState = emptyClusterState;

  constructor(brickCount: number, shardCount = 4, shardSpan?: number) {
    const span = shardSpan !== undefined && { shardSpan, level: levelOfShardSpan };
    this.ok({ type: "initCluster", clusterId: uuid(999), shardCount, ...span, ...facts(1, 1) });
    for (let number = 2; number <= brickCount; number += 1) this.join(number);
  }

  run(command: Command): CommandResult {
    const { state, result } = apply(this.state, command);
    this.state = state;
    return result;
  }

  ok(command: Command): number {
    const result = this.run(command);
    if (!result.ok) throw new Error(`${command.type}: ${result.fault.message}`);
    return result.value;
  }

  /** The code of the refusal; throws when the command is taken. */
  refused(command: Command): string {
    const before = this.state;
    const result = this.run(command);
    if (result.ok) throw new Error(`${command.type} was not refused`);
    if (this.state !== before) throw new Error(`${command.type} was refused but changed the state`);
    return result.fault.code;
  }

  join(number: number): void {
    const id = `token-${number}`;
    const hash = "a".repeat(64);
    this.ok({ type: "addJoinToken", id, hash, lifeMs: 60_000 });
    this.ok({ type: "joinBrick", tokenId: id, tokenHash: hash, ...facts(number, 0) });
    this.announce(number, 1);
  }

  announce(number: number, boot: number, flags: AnnouncementFlags = {}) {
    return this.ok(announcement(number, boot, flags));
  }

  down(number: number): void {
    const { boot } = this.state.bricks[number]!;
    this.ok({ type: "brickDown", number, boot });
  }

  up(number: number): void {
    const { boot } = this.state.bricks[number]!;
    this.ok({ type: "brickUp", number, boot });
  }
}

export function announcement(number: number, boot: number, flags: AnnouncementFlags = {}): Command {
  return {
    type: "announceBrick",
    number,
    ...facts(number, boot),
    incarnation: flags.incarnation ?? `start-${boot}`,
    cut: flags.cut ?? false,
    discarded: flags.discarded ?? false,
    witnessed: flags.witnessed ?? true,
  };
}

interface AnnouncementFlags {
  cut?: boolean;
  discarded?: boolean;
  incarnation?: string;
  witnessed?: boolean;
}

export function facts(number: number, boot: number) {
  return {
    uuid: uuid(number),
    boot,
    incarnation: `start-${boot}`,
    peerAddress: `10.0.0.${number}:1`,
    portalAddress: `10.0.0.${number}:2`,
    apiAddress: `10.0.0.${number}:3`,
    domain: "",
    capacityBytes: 2 ** 30,
  };
}

export function uuid(number: number): string {
  return number.toString(16).padStart(32, "0");
}
