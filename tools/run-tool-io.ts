import { type ChildProcess, spawn } from "node:child_process";

/** Runs a program of another project and says what it printed. */

export interface ToolResult {
  code: number | null;
  output: string;
}

const outputBytesMax = 4 * 1024 * 1024;

export function runTool(
  program: string,
  args: readonly string[],
  options: { timeoutMs?: number; env?: NodeJS.ProcessEnv; input?: string } = {},
): Promise<ToolResult> {
  return new Promise((resolve, reject) => {
    const child: ChildProcess = spawn(program, args, {
      stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
      env: { ...process.env, ...options.env },
    });
    child.stdin?.end(options.input);
    let output = "";
    const keep = (bytes: Buffer) => {
      if (output.length < outputBytesMax) output += bytes.toString("utf8");
    };
    child.stdout?.on("data", keep);
    child.stderr?.on("data", keep);
    const timer = setTimeout(() => {
      output += `\n[${program} did not end in time and was killed]`;
      child.kill("SIGKILL");
    }, options.timeoutMs ?? 60_000);
    child.on("error", (error) => {
      clearTimeout(timer);
      reject(new Error(`${program}: ${error.message}`));
    });
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ code, output });
    });
  });
}
