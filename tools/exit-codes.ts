import type { AdminFault } from "../control/api.ts";

/** What the exit code of every command means; docs/operations.md has the same table. */
export const exitCode = {
  done: 0,
  /** The command began and failed; its last line says why. */
  failed: 1,
  /** An option or argument is wrong; nothing was done. */
  usage: 2,
  /** The cluster, or enough of it, cannot be reached now: trying again may help. */
  unavailable: 3,
  /** No brick or volume of that name or number. */
  notFound: 4,
  /** It exists already, or its present state forbids the change. */
  conflict: 5,
  /** Not a member of this cluster: wrong or missing secret, or a spent token. */
  refused: 6,
  /** The data directory is used by another process. */
  inUse: 7,
  /** `status --check`: the answer came, and something is wrong. */
  unhealthy: 8,
} as const;

export const exitCodeHelp = `
Exit codes: 0 done, 1 failed, 2 wrong option, 3 cluster not reachable now, 4 not found,
5 conflict with the present state, 6 refused (secret or token), 7 data directory in use,
8 \`status --check\` found something wrong.`;

/** Ends a command with a message and an exit code, without a stack trace. */
export class CommandError extends Error {
  override readonly name = "CommandError";
  readonly exit: number;
  constructor(exit: number, message: string) {
    super(message);
    this.exit = exit;
  }
}

export function exitOfFault(fault: AdminFault): number {
  switch (fault.code) {
    case "invalid":
      return exitCode.usage;
    case "unavailable":
      return exitCode.unavailable;
    case "not_found":
      return exitCode.notFound;
    case "exists":
    case "conflict":
    case "no_space":
      return exitCode.conflict;
    case "refused":
      return exitCode.refused;
    case "failed":
      return exitCode.failed;
  }
}
