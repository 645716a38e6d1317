import type { ClusterState } from "../cluster-state.ts";
import type { Host } from "../host.ts";
import type { Calls } from "../rpc/calls.ts";
import type { VolumeOptions } from "./options.ts";
import type { VolumeStats } from "./stats.ts";

/** What the parts of one attached volume's gateway share. */
export interface AttachmentContext {
  readonly host: Host;
  readonly calls: Calls;
  readonly options: VolumeOptions;
  readonly stats: VolumeStats;
  readonly branch: number;
  readonly epoch: number;
  state(): ClusterState;
  generation(): number;
  /** A shard has told that a newer attachment exists. */
  fenced(): void;
}
