/** How to run one brick: what the command line and the supervisor hand to `startBrick`. */
export interface BrickOptions {
  /** Everything the brick keeps lies in this folder. */
  dataFolder: string;
  /** "HOST:PORT" for the other bricks; null takes the one in the brick's identity file. */
  listen: string | null;
  /** "HOST:PORT" for initiators; null as above. */
  portal: string | null;
  /** "HOST:PORT" for administration, metrics and health; null as above. */
  api: string | null;
  /** Space offered to the cluster; null keeps what was offered before, or most of what is free. */
  capacityBytes: number | null;
  /** What its process may take; null does not bound it. */
  memoryBytes: number | null;
  /** Failure domain; "" is a domain of its own; null keeps what was said before. */
  domain: string | null;
  /** A new brick joins the cluster of the brick whose api listens there; as a spare, or to be used. */
  join: { address: string; tokenFile: string; spare: boolean } | null;
  /** Make a new cluster, of which this is the first brick. */
  init: boolean;
  /** What seals the brick's keys of encrypted volumes; null: a file that it makes in its folder. */
  masterKeyFile: string | null;
  /** One line for the operator. */
  log(line: string): void;
}

/** A brick under way. */
export interface RunningBrick {
  readonly number: number;
  /** Ends sessions, closes the store; resolves when nothing is left running. */
  stop(): Promise<void>;
}

/** What is wrong with the request, not with the program: printed without a stack trace. */
export class BrickStartError extends Error {
  override readonly name = "BrickStartError";
  readonly code: BrickStartCode;
  constructor(code: BrickStartCode, message: string) {
    super(message);
    this.code = code;
  }
}

export type BrickStartCode =
  /** The folder has no brick, or one that does not fit what was asked. */
  | "invalid"
  /** The folder is used by another process. */
  | "in_use"
  /** The cluster cannot be reached now. */
  | "unavailable"
  /** The cluster refused: token or secret. */
  | "refused"
  /** The file system has no room for a new brick. */
  | "no_room";
