import { memoryRuntime } from "../brick/memory-budget.ts";

/**
 * V8 and the C library take their bounds when a process begins: with a memory budget, the process begins
 * once more, as itself (execve keeps its number, its parent and its standard streams).
 */
export function beginWithin(memoryBytes: number): void {
  const { nodeFlags, environment } = memoryRuntime(memoryBytes);
  const { execPath, execArgv, argv, env } = process;
  if (nodeFlags.every((flag) => execArgv.includes(flag))) return;
  // --no-warnings: execve itself warns that it may change, and the operator cannot do anything about it.
  const flags = [...execArgv, "--no-warnings", ...nodeFlags];
  process.execve!(execPath, [execPath, ...flags, ...argv.slice(1)], { ...env, ...environment });
}
