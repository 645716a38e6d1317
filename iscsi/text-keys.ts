import { textPairsMax } from "./limits.ts";

/** Text segments (RFC 7143 §6.1): key=value pairs, each ended by a zero byte. */

export type TextPair = readonly [key: string, value: string];

/** §6.1: a letter, then letters, digits and a few marks; "#" begins registered extensions. */
const keyPattern = /^[A-Za-z][-A-Za-z0-9.+@_#]{0,62}$/;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The pairs in order; undefined when the text is not a list of pairs, or of too many. */
export function decodeText(text: Buffer): TextPair[] | undefined {
  const whole = decodeUtf8(text);
  if (whole === undefined) return undefined;
  const pairs: TextPair[] = [];
  for (const part of whole.split("\0")) {
    // Some initiators pad with zero bytes inside the declared length.
    if (part === "") continue;
    const equals = part.indexOf("=");
    if (equals < 0 || !keyPattern.test(part.slice(0, equals))) return undefined;
    if (pairs.length === textPairsMax) return undefined;
    pairs.push([part.slice(0, equals), part.slice(equals + 1)]);
  }
  return pairs;
}

function decodeUtf8(text: Buffer): string | undefined {
  try {
    return utf8.decode(text);
  } catch {
    // The decoder throws for nothing but a byte sequence that is no UTF-8.
    return undefined;
  }
}

export function encodeText(pairs: readonly TextPair[]): Buffer {
  return Buffer.from(pairs.map(([key, value]) => `${key}=${value}\0`).join(""), "utf8");
}

/** A decimal or 0x-hexadecimal number (§6.1) that a double holds exactly. */
export function parseNumber(value: string): number | undefined {
  if (!/^(0[xX][0-9a-fA-F]{1,12}|[0-9]{1,15})$/.test(value)) return undefined;
  return Number(value);
}
