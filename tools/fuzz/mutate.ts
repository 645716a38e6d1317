import type { Prng } from "../../brick/prng.ts";
import { headerBytes, type WirePdu } from "./wire.ts";

/** Makes one PDU wrong in one or a few places. The PDU given is not changed. */

type Mutation = (pdu: WirePdu, prng: Prng, other: WirePdu) => void;

/** [offset, bytes] of what most headers keep there (RFC 7143 §11.2.1): opcode and flags, lengths,
 *  LUN, task tag, then transfer tag or length, CmdSN, ExpStatSN, and three words by opcode. */
const headerFields: readonly (readonly [number, number])[] = [
  [0, 1],
  [1, 1],
  [2, 2],
  [4, 1],
  [5, 3],
  [8, 2],
  [8, 4],
  [12, 4],
  [16, 4],
  [20, 4],
  [24, 4],
  [28, 4],
  [32, 4],
  [36, 4],
  [40, 4],
  [44, 4],
];

const requestOpcodes = [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10];

/** By weight: what desynchronises the stream kills the connection, and is rarer. */
const mutations: readonly (readonly [number, string, Mutation])[] = [
  [6, "field", mutateField],
  [3, "bit", (pdu, prng) => flipBit(pdu.bhs, prng)],
  [2, "byte", (pdu, prng) => void (pdu.bhs[at(pdu.bhs, prng)] = prng.between(0, 255))],
  [2, "opcode", (pdu, prng) => void (pdu.bhs[0] = prng.pick(requestOpcodes) | flagBit(prng))],
  [1, "anyOpcode", (pdu, prng) => void (pdu.bhs[0] = prng.between(0, 255))],
  [3, "flags", (pdu, prng) => void (pdu.bhs[1] = prng.between(0, 255))],
  [3, "cdb", (pdu, prng) => void (pdu.bhs[prng.between(32, 47)] = prng.between(0, 255))],
  [1, "lun", (pdu, prng) => void prng.fill(pdu.bhs.subarray(8, 16))],
  [2, "ahs", addSegments],
  [1, "ahsLength", (pdu, prng) => void (pdu.bhs[4] = prng.between(0, 255))],
  [1, "dataLength", mutateDataLength],
  [2, "data", mutateData],
  [2, "resize", resizeData],
  [2, "text", mutateText],
  [1, "spliceData", (pdu, _prng, other) => setData(pdu, Buffer.from(other.data))],
  [1, "spliceHeader", spliceHeader],
  [1, "junk", (pdu, prng) => void prng.fill(pdu.bhs.subarray(prng.between(0, 40)))],
];
const weightSum = mutations.reduce((sum, [weight]) => sum + weight, 0);

/** `other` is a PDU of this or another connection, to take parts from. */
export function mutate(original: WirePdu, prng: Prng, other: WirePdu): WirePdu {
  const pdu: WirePdu = {
    bhs: Buffer.from(original.bhs),
    ahs: Buffer.from(original.ahs),
    data: Buffer.from(original.data),
  };
  const count = prng.chance(0.8) ? 1 : prng.between(2, 5);
  for (let done = 0; done < count; done += 1) pickMutation(prng)(pdu, prng, other);
  return pdu;
}

function pickMutation(prng: Prng): Mutation {
  let left = prng.between(0, weightSum - 1);
  for (const [weight, , mutation] of mutations) {
    if (left < weight) return mutation;
    left -= weight;
  }
  return mutateField;
}

const at = (bytes: Buffer, prng: Prng): number => prng.between(0, bytes.length - 1);
const flagBit = (prng: Prng): number => (prng.chance(0.5) ? 0x40 : 0);

function flipBit(bytes: Buffer, prng: Prng): void {
  if (bytes.length > 0) bytes[at(bytes, prng)]! ^= 1 << prng.between(0, 7);
}

/** The values at which comparisons and sums go wrong. */
function mutateField(pdu: WirePdu, prng: Prng): void {
  const [offset, width] = prng.pick(headerFields);
  const max = 2 ** (8 * width) - 1;
  const now = pdu.bhs.readUIntBE(offset, width);
  const wrap = (value: number) => ((value % (max + 1)) + max + 1) % (max + 1);
  const value = prng.pick([
    0,
    1,
    max,
    max - 1,
    Math.floor(max / 2),
    Math.ceil(max / 2),
    wrap(now + 1),
    wrap(now - 1),
    wrap(now + prng.between(-200, 200)),
    wrap(now * 2),
    prng.between(0, max),
  ]);
  pdu.bhs.writeUIntBE(value, offset, width);
}

/** Says another length than follows; the rest of the stream is read out of step. */
function mutateDataLength(pdu: WirePdu, prng: Prng): void {
  const length = prng.pick([
    Math.max(0, pdu.data.length + prng.between(-8, 8)),
    prng.between(0, 0xffff),
    0xff_ffff,
    0x10_0001,
    8193,
  ]);
  pdu.bhs.writeUIntBE(length, 5, 3);
}

/** Replaces the data segment, with the length that belongs to it. */
export function setData(pdu: WirePdu, data: Buffer): void {
  pdu.data = data;
  pdu.bhs.writeUIntBE(data.length, 5, 3);
}

function mutateData(pdu: WirePdu, prng: Prng): void {
  if (pdu.data.length === 0) return;
  for (let done = prng.between(1, 8); done > 0; done -= 1) flipBit(pdu.data, prng);
}

function resizeData(pdu: WirePdu, prng: Prng): void {
  const length = prng.pick([0, 1, 3, 4, 511, 512, 513, 8192, prng.between(0, 70_000)]);
  const data = Buffer.alloc(length, prng.between(0, 255));
  pdu.data.copy(data);
  setData(pdu, data);
}

/** Text keys: pairs doubled, torn, without "=", with other bytes, very long. */
function mutateText(pdu: WirePdu, prng: Prng): void {
  const pairs = pdu.data.toString("latin1").split("\0");
  const index = prng.between(0, pairs.length - 1);
  const pair = pairs[index]!;
  const changed = prng.pick([
    [pair, pair],
    [],
    [pair.replace("=", "")],
    [`${pair}${"x".repeat(prng.between(1, 9000))}`],
    [pair.replace(/=.*/, `=${prng.pick(["", "0", "-1", "Yes", "0x", "99999999999999999999"])}`)],
    [`${"K".repeat(prng.between(1, 80))}=${pair}`],
    [pair.slice(0, prng.between(0, pair.length))],
    [`X${pair}`],
  ]);
  pairs.splice(index, 1, ...changed);
  setData(pdu, Buffer.from(pairs.join("\0"), "latin1"));
}

/** Additional header segments: an extended CDB, a read length, or nothing of the kind. */
function addSegments(pdu: WirePdu, prng: Prng): void {
  const ahs = prng.fill(Buffer.alloc(4 * prng.between(1, prng.chance(0.9) ? 20 : 140)));
  if (prng.chance(0.7)) {
    ahs.writeUInt16BE(prng.chance(0.7) ? ahs.length - 3 : prng.between(0, 0xffff), 0);
    ahs[2] = prng.pick([1, 2, 3, 0]);
  }
  pdu.ahs = ahs;
  pdu.bhs[4] = (ahs.length / 4) & 0xff;
}

function spliceHeader(pdu: WirePdu, prng: Prng, other: WirePdu): void {
  other.bhs.copy(pdu.bhs, 0, 0, prng.between(1, headerBytes));
}
