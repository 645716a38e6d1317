/** Text segments (RFC 7143 §6.1): key=value pairs, each ended by a zero byte. */

export type TextPair = readonly [key: string, value: string];

const keyBytesMax = 63;

/** The pairs in order; undefined when the text is not a list of pairs. */
export function decodeText(text: Buffer): TextPair[] | undefined {
  const pairs: TextPair[] = [];
  for (const part of text.toString("utf8").split("\0")) {
    // Some initiators pad with zero bytes inside the declared length.
    if (part === "") continue;
    const equals = part.indexOf("=");
    if (equals < 1 || equals > keyBytesMax) return undefined;
    pairs.push([part.slice(0, equals), part.slice(equals + 1)]);
  }
  return pairs;
}

export function encodeText(pairs: readonly TextPair[]): Buffer {
  return Buffer.from(pairs.map(([key, value]) => `${key}=${value}\0`).join(""), "utf8");
}

/** A decimal or 0x-hexadecimal number (§6.1) that a double holds exactly. */
export function parseNumber(value: string): number | undefined {
  if (!/^(0[xX][0-9a-fA-F]{1,12}|[0-9]{1,15})$/.test(value)) return undefined;
  return Number(value);
}
