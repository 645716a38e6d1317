/**
 * Octets as a story writes them: tokens in a row.
 *
 *     00 1f2e      hex, any even number of digits
 *     5a*512       the same, repeated
 *     "END     "   ASCII
 *     u16:80       a number, big-endian: u8 u16 u24 u32 u64, decimal or 0x
 *     $name        what an earlier answer was found to hold
 *     ..           any octet (only where an answer is described)
 */
export interface Octets {
  readonly source: string;
  readonly tokens: readonly Token[];
}

type Token =
  | { readonly kind: "bytes"; readonly bytes: Buffer }
  | { readonly kind: "any"; readonly count: number }
  | { readonly kind: "variable"; readonly name: string };

/** Octets that an answer is compared with; where `mask` is 0, anything will do. */
export interface OctetPattern {
  readonly bytes: Buffer;
  readonly mask: Buffer;
}

export type Variables = ReadonlyMap<string, Buffer>;

const tokenPattern = /"[^"]*"|\S+/g;
const repeatMax = 1 << 24;

/** Throws an Error that names the token it cannot read. */
export function parseOctets(source: string): Octets {
  return { source: source.trim(), tokens: (source.match(tokenPattern) ?? []).map(parseToken) };
}

function parseToken(token: string): Token {
  if (token.startsWith('"')) return { kind: "bytes", bytes: Buffer.from(token.slice(1, -1)) };
  if (token.startsWith("$")) return { kind: "variable", name: token.slice(1) };
  const number = /^u(8|16|24|32|64):(0x[0-9a-f]+|\d+)$/.exec(token);
  if (number !== null) {
    const bytes = Number(number[1]) / 8;
    const digits = BigInt(number[2]!).toString(16);
    if (digits.length > 2 * bytes) throw new Error(`${token} does not fit`);
    return { kind: "bytes", bytes: Buffer.from(digits.padStart(2 * bytes, "0"), "hex") };
  }
  const repeated = /^(\.\.|(?:[0-9a-f]{2})+)(?:\*(\d+))?$/.exec(token);
  if (repeated === null) throw new Error(`${token} is not an octet`);
  const count = Number(repeated[2] ?? 1);
  if (count > repeatMax) throw new Error(`${token} is longer than ${repeatMax}`);
  if (repeated[1] === "..") return { kind: "any", count };
  const unit = Buffer.from(repeated[1]!, "hex");
  return { kind: "bytes", bytes: Buffer.alloc(count * unit.length, unit) };
}

/** The octets to send; there is no "any" in them. */
export function bytesOf(octets: Octets, variables: Variables): Buffer {
  const { bytes, mask } = patternOf(octets, variables);
  if (mask.includes(0)) throw new Error(`${octets.source} leaves octets open`);
  return bytes;
}

export function patternOf(octets: Octets, variables: Variables): OctetPattern {
  const parts = octets.tokens.map((token) => patternOfToken(token, variables));
  return {
    bytes: Buffer.concat(parts.map((part) => part.bytes)),
    mask: Buffer.concat(parts.map((part) => part.mask)),
  };
}

function patternOfToken(token: Token, variables: Variables): OctetPattern {
  if (token.kind === "any") {
    return { bytes: Buffer.alloc(token.count), mask: Buffer.alloc(token.count) };
  }
  const bytes = token.kind === "bytes" ? token.bytes : knownValue(token.name, variables);
  return { bytes, mask: Buffer.alloc(bytes.length, 0xff) };
}

function knownValue(name: string, variables: Variables): Buffer {
  const bytes = variables.get(name);
  if (bytes === undefined) throw new Error(`$${name} is not known yet`);
  return bytes;
}

export function matchesAt(data: Buffer, at: number, pattern: OctetPattern): boolean {
  if (at + pattern.bytes.length > data.length) return false;
  return pattern.bytes.every((byte, index) => {
    return pattern.mask[index] === 0 || data[at + index] === byte;
  });
}

export function findIn(data: Buffer, pattern: OctetPattern): number {
  for (let at = 0; at + pattern.bytes.length <= data.length; at += 1) {
    if (matchesAt(data, at, pattern)) return at;
  }
  return -1;
}
