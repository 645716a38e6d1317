import { randomBytes } from "node:crypto";
import type { Command } from "commander";
import { z } from "zod";
import { type ChapRecord, chapAlgorithms, type SealedSecret } from "../../brick/cluster-state.ts";
import { sealIvBytes, sealSecret } from "../../control/secret-seal.ts";
import { generateChapSecret, readChapSecret, windowsSecretBytesMax } from "../chap-secret-io.ts";
import { parseOption, UsageError } from "../options.ts";

/** The options by which credentials are given, for initiators and for discovery. */

export interface ChapOptions {
  chapUser?: string;
  secretFile?: string;
  generate?: boolean;
  mutualUser?: string;
  mutualSecretFile?: string;
  weakest: string;
}

export interface GivenChap {
  readonly chap: ChapRecord;
  /** The secret that was made here: it is shown once. null: the user knows it. */
  readonly generated: string | null;
}

export function withChapOptions(command: Command): Command {
  return command
    .option("--chap-user <USER>", "name that the initiator proves itself by (CHAP_N)")
    .option("--secret-file <FILE>", "file with its secret, mode 0600; - reads standard input")
    .option("--generate", "make a secret of 16 characters, and print it once")
    .option("--mutual-user <USER>", "name that the target proves itself by in return")
    .option("--mutual-secret-file <FILE>", "file with the target's secret; - reads standard input")
    .option("--weakest <NAME>", `weakest algorithm: ${chapAlgorithms.join(", ")}`, "sha256");
}

export function hasChapOptions(options: ChapOptions): boolean {
  const { chapUser, secretFile, generate, mutualUser, mutualSecretFile } = options;
  const given = [chapUser, secretFile, generate, mutualUser, mutualSecretFile];
  return given.some((one) => one !== undefined);
}

/** `initiator`: whose they are; null: discovery's. `userDefault` when no --chap-user is given. */
export function sealedChap(
  options: ChapOptions,
  clusterSecret: Buffer,
  initiator: string | null,
  userDefault: string,
): GivenChap {
  const { secretFile, generate, mutualUser, mutualSecretFile } = options;
  if ((secretFile === undefined) === (generate === undefined)) {
    throw new UsageError("give the secret by --secret-file, or have one made by --generate");
  }
  if ((mutualUser === undefined) !== (mutualSecretFile === undefined)) {
    throw new UsageError("--mutual-user and --mutual-secret-file belong together");
  }
  if (secretFile === "-" && mutualSecretFile === "-") {
    throw new UsageError("only one secret can be read from standard input");
  }
  const seal = (prover: "initiator" | "target", user: string, secret: Buffer): SealedSecret => {
    warnOfLength(prover, secret);
    return sealSecret(clusterSecret, { initiator, prover, user }, secret, randomBytes(sealIvBytes));
  };
  const user = parseOption("--chap-user", options.chapUser ?? userDefault, userSchema);
  const weakest = parseOption("--weakest", options.weakest, z.enum(chapAlgorithms));
  const secret =
    secretFile === undefined ? generateChapSecret() : readChapSecret("--secret-file", secretFile);
  let mutual: ChapRecord["mutual"] = null;
  if (mutualUser !== undefined) {
    const own = parseOption("--mutual-user", mutualUser, userSchema);
    const back = readChapSecret("--mutual-secret-file", mutualSecretFile!);
    mutual = { user: own, secret: seal("target", own, back) };
  }
  const chap = { user, secret: seal("initiator", user, secret), weakest, mutual };
  return { chap, generated: secretFile === undefined ? secret.toString("ascii") : null };
}

const userSchema = z
  .string()
  .regex(/^[\x21-\x7e]{1,223}$/, "is not a CHAP name: 1 to 223 printable characters, no spaces");

function warnOfLength(prover: string, secret: Buffer): void {
  if (secret.length <= windowsSecretBytesMax) return;
  const text = `the ${prover}'s secret has ${secret.length} bytes: Windows takes ${windowsSecretBytesMax} at most`;
  process.stderr.write(`endisk: note: ${text}\n`);
}
