import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { readPrivateFile } from "../control/api-secret-io.ts";
import { UsageError } from "./options.ts";

/**
 * CHAP secrets on their way in: from a file that others cannot read, or from standard input; never
 * from the command line, which every process of the machine can see.
 */

/** RFC 7143 §9.2.1 wants 128 random bits where IPsec is not used; fewer than 96 are refused there. */
export const chapSecretBytesMin = 12;
/** What the Windows initiator takes at most. */
export const windowsSecretBytesMax = 16;
export const chapSecretBytesMax = 128;

/** `file`: a path, or "-" for standard input. One line end at its end is not part of the secret. */
export function readChapSecret(option: string, file: string): Buffer {
  const text = file === "-" ? readFileSync(0, "utf8") : readPrivateFile(file);
  if (text === null) throw new UsageError(`${option} ${file} does not exist`);
  const secret = text.replace(/\r?\n$/, "");
  const wrong = wrongSecret(secret);
  if (wrong !== null) throw new UsageError(`${option}: ${wrong}`);
  return Buffer.from(secret, "ascii");
}

/** What is wrong with a secret, without showing it; null when nothing. */
export function wrongSecret(secret: string): string | null {
  if (!/^[\x20-\x7e]*$/.test(secret)) {
    return "the secret has other characters than printable ASCII, which initiators encode differently";
  }
  if (secret.length < chapSecretBytesMin || secret.length > chapSecretBytesMax) {
    return `the secret has ${secret.length} bytes; it must have ${chapSecretBytesMin} to ${chapSecretBytesMax}`;
  }
  return null;
}

/** 16 printable bytes that every initiator takes: 96 random bits. */
export function generateChapSecret(): Buffer {
  return Buffer.from(randomBytes(12).toString("base64url"), "ascii");
}
