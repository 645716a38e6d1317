import type { Prng } from "../../brick/prng.ts";
import { loginKeys } from "../../iscsi/login-keys.ts";
import type { TextPair } from "../../iscsi/text-keys.ts";

/** Text keys as initiators send them, and as none should. */

/** Keys that say who is asking; the login itself sends them. */
const names = new Set(["InitiatorName", "InitiatorAlias", "TargetName", "SessionType"]);

const numbers = [512, 513, 1024, 4096, 8192, 65_536, 262_144, 1_048_576, 16_777_215];

/** What an initiator may legally offer in the operational stage, each key at most once. */
export function legalOffers(prng: Prng): TextPair[] {
  const offers: TextPair[] = [];
  for (const [name, key] of Object.entries(loginKeys)) {
    if (names.has(name) || name === "AuthMethod" || !prng.chance(0.5)) continue;
    const value = legalValue(prng, key);
    if (value !== null) offers.push([name, value]);
  }
  return offers;
}

interface Rule {
  readonly rule: string;
  readonly ours?: unknown;
  readonly range?: readonly [number, number];
}

function legalValue(prng: Prng, key: Rule): string | null {
  if (key.range !== undefined) {
    const [min, max] = key.range;
    const fitting = numbers.filter((one) => one >= min && one <= max);
    return String(prng.pick([...fitting, min, max, prng.between(min, Math.min(max, 70_000))]));
  }
  if (typeof key.ours === "boolean") return prng.pick(["Yes", "No"]);
  if (Array.isArray(key.ours)) {
    const values = [...key.ours, "X-end.test.unknown"];
    return prng.chance(0.5) ? String(prng.pick(key.ours)) : values.join(",");
  }
  return key.rule === "refuse" ? "No" : null;
}

/** What login should withstand: unknown keys, values of the wrong kind. */
export function strangeOffers(prng: Prng): TextPair[] {
  const known = Object.keys(loginKeys);
  const value = () =>
    prng.pick([
      "",
      "Yes",
      "No",
      "None",
      "0",
      "1",
      "-1",
      "0x10",
      "1e9",
      "CRC32C,None",
      "\u00e4",
      ",",
    ]);
  return Array.from(
    { length: prng.between(1, 6) },
    (): TextPair => [
      prng.pick([...known, "X-com.example.key", "Y", "SendTargets", "CHAP_A", "CHAP_N", "CHAP_R"]),
      prng.chance(0.1) ? "v".repeat(prng.between(100, 3000)) : value(),
    ],
  );
}
