/**
 * The two functions of BLAKE3 that make a tree of hashes, as a WebAssembly module that is assembled
 * here: libraries give the hash of a whole input only, and END checks parts of a chunk against the
 * hash of the whole (outline.ts). BLAKE3's specification, section 2:
 *
 *     leaves4(from, counter, to)   the chaining values of four whole leaves (1 KiB each), one behind
 *                                  the other; the first is number `counter` of its input
 *     parent(from, to, flags)      that of the two chaining values at `from`; `flagRoot` or 0
 *
 * `from` and `to` are addresses in the exported memory. Four leaves are hashed side by side, one in
 * each lane of a vector.
 */

export const flagRoot = 8;
const flagChunkEnd = 2;
const flagParent = 4;
export const leafBytes = 1024;
const blockBytes = 64;
const blocksPerLeaf = leafBytes / blockBytes;
export const chainingValueBytes = 32;

const initialValue = [
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
] as const;
const permutation = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8] as const;
const roundCount = 7;
/** The state words that each step of a round mixes: columns, then diagonals. */
const mixed = [
  [0, 4, 8, 12],
  [1, 5, 9, 13],
  [2, 6, 10, 14],
  [3, 7, 11, 15],
  [0, 5, 10, 15],
  [1, 6, 11, 12],
  [2, 7, 8, 13],
  [3, 4, 9, 14],
] as const;

/** Bytes of instructions (WebAssembly core specification, section 5.4). */
type Code = readonly number[];

function unsigned(value: number): number[] {
  const out: number[] = [];
  for (let left = value; ; left >>>= 7) {
    if (left < 0x80) return [...out, left];
    out.push((left & 0x7f) | 0x80);
  }
}

function signed(value: number): number[] {
  const out: number[] = [];
  for (let left = value | 0; ; left >>= 7) {
    if (left >= -64 && left < 64) return [...out, left & 0x7f];
    out.push((left & 0x7f) | 0x80);
  }
}

/** Alignment (2: four bytes) and offset. */
const address = (offset: number): number[] => [2, ...unsigned(offset)];
const vector = (opcode: number): Code => [0xfd, ...unsigned(opcode)];

const get = (local: number): Code => [0x20, ...unsigned(local)];
const set = (local: number): Code => [0x21, ...unsigned(local)];
const tee = (local: number): Code => [0x22, ...unsigned(local)];
const i32 = {
  load: (offset: number): Code => [0x28, ...address(offset)],
  store: (offset: number): Code => [0x36, ...address(offset)],
  const: (value: number): Code => [0x41, ...signed(value)],
  eqz: [0x45],
  eq: [0x46],
  ne: [0x47],
  add: [0x6a],
  or: [0x72],
  xor: [0x73],
  shl: [0x74],
  rotr: [0x78],
} as const;
const i32x4 = {
  splat: vector(0x11),
  shl: vector(0xab),
  shr: vector(0xad),
  add: vector(0xae),
  or: vector(0x50),
  xor: vector(0x51),
  const: (lanes: readonly number[]): Code => {
    const bytes = Buffer.alloc(16);
    for (const [at, lane] of lanes.entries()) bytes.writeInt32LE(lane | 0, 4 * at);
    return [...vector(0x0c), ...bytes];
  },
  shuffle: (bytes: readonly number[]): Code => [...vector(0x0d), ...bytes],
  loadLane: (offset: number, lane: number): Code => [...vector(0x56), ...address(offset), lane],
  storeLane: (offset: number, lane: number): Code => [...vector(0x5a), ...address(offset), lane],
} as const;
const loopStart: Code = [0x03, 0x40];
const branchIf = (depth: number): Code => [0x0d, depth];
const end: Code = [0x0b];

/** How words are worked with: one at a time, or four in lanes. */
interface Arithmetic {
  readonly add: Code;
  readonly xor: Code;
  /** Turns the word on the stack to the right; may use the local `scratch`. */
  rotr(bits: number, scratch: number): Code;
}

const oneWord: Arithmetic = {
  add: i32.add,
  xor: i32.xor,
  rotr: (bits) => [...i32.const(bits), ...i32.rotr],
};

const fourWords: Arithmetic = {
  add: i32x4.add,
  xor: i32x4.xor,
  rotr: (bits, scratch) => {
    const twice = [...tee(scratch), ...get(scratch)];
    if (bits % 8 === 0) {
      const turned = (_: unknown, at: number) => (at & ~3) | ((at + bits / 8) & 3);
      return [...twice, ...i32x4.shuffle(Array.from({ length: 16 }, turned))];
    }
    const right = [...i32.const(bits), ...i32x4.shr];
    const left = [...get(scratch), ...i32.const(32 - bits), ...i32x4.shl];
    return [...tee(scratch), ...right, ...left, ...i32x4.or];
  },
};

/** The rounds of one compression: 16 state locals from `state` on, 16 message locals from `message`. */
function compression(
  words: Arithmetic,
  locals: { state: number; message: number; scratch: number },
): Code {
  const code: number[] = [];
  const { state, message, scratch } = locals;
  const addTo = (a: number, b: number, m: number) => {
    const sum = [...get(state + a), ...get(state + b), ...words.add];
    code.push(...sum, ...get(message + m), ...words.add, ...set(state + a));
  };
  const turn = (d: number, a: number, bits: number) => {
    const both = [...get(state + d), ...get(state + a), ...words.xor];
    code.push(...both, ...words.rotr(bits, scratch), ...set(state + d));
  };
  const add = (c: number, d: number) => {
    code.push(...get(state + c), ...get(state + d), ...words.add, ...set(state + c));
  };
  let order = Array.from({ length: 16 }, (_, at) => at);
  for (let round = 0; round < roundCount; round += 1) {
    for (const [step, [a, b, c, d]] of mixed.entries()) {
      addTo(a, b, order[2 * step]!);
      turn(d, a, 16);
      add(c, d);
      turn(b, c, 12);
      addTo(a, b, order[2 * step + 1]!);
      turn(d, a, 8);
      add(c, d);
      turn(b, c, 7);
    }
    order = permutation.map((at) => order[at]!);
  }
  return code;
}

/** parent(from 0, to 1, flags 2). */
function parentBody(): Code {
  const state = 3;
  const message = state + 16;
  const code: number[] = [];
  for (let word = 0; word < 16; word += 1) {
    code.push(...get(0), ...i32.load(4 * word), ...set(message + word));
  }
  const first = [...initialValue, ...initialValue.slice(0, 4), 0, 0, blockBytes];
  for (const [at, value] of first.entries()) code.push(...i32.const(value), ...set(state + at));
  code.push(...get(2), ...i32.const(flagParent), ...i32.or, ...set(state + 15));
  code.push(...compression(oneWord, { state, message, scratch: 0 }));
  for (let word = 0; word < 8; word += 1) {
    const halves = [...get(state + word), ...get(state + word + 8), ...i32.xor];
    code.push(...get(1), ...halves, ...i32.store(4 * word));
  }
  return body([{ count: 32, type: valueType.i32 }], code);
}

/** leaves4(from 0, counter 1, to 2). */
function leavesBody(): Code {
  const block = 3;
  const chaining = 4;
  const state = chaining + 8;
  const message = state + 16;
  const scratch = message + 16;
  const same = (value: number) => i32x4.const([value, value, value, value]);
  const code: number[] = [];
  for (const [at, value] of initialValue.entries()) {
    code.push(...same(value), ...set(chaining + at));
  }
  code.push(...loopStart);
  for (let word = 0; word < 16; word += 1) {
    for (let lane = 0; lane < 4; lane += 1) code.push(...get(0));
    code.push(...same(0));
    for (let lane = 0; lane < 4; lane += 1) {
      code.push(...i32x4.loadLane(lane * leafBytes + 4 * word, lane));
    }
    code.push(...set(message + word));
  }
  for (let at = 0; at < 8; at += 1) code.push(...get(chaining + at), ...set(state + at));
  for (let at = 0; at < 4; at += 1) code.push(...same(initialValue[at]!), ...set(state + 8 + at));
  const counters = [...get(1), ...i32x4.splat, ...i32x4.const([0, 1, 2, 3]), ...i32x4.add];
  code.push(...counters, ...set(state + 12), ...same(0), ...set(state + 13));
  code.push(...same(blockBytes), ...set(state + 14));
  // The first block begins the leaf (1), the last one ends it.
  const isLast = [...get(block), ...i32.const(blocksPerLeaf - 1), ...i32.eq];
  const ends = [...isLast, ...i32.const(Math.log2(flagChunkEnd)), ...i32.shl];
  code.push(...get(block), ...i32.eqz, ...ends, ...i32.or, ...i32x4.splat, ...set(state + 15));
  code.push(...compression(fourWords, { state, message, scratch }));
  for (let at = 0; at < 8; at += 1) {
    const halves = [...get(state + at), ...get(state + at + 8), ...i32x4.xor];
    code.push(...halves, ...set(chaining + at));
  }
  code.push(...get(0), ...i32.const(blockBytes), ...i32.add, ...set(0));
  code.push(...get(block), ...i32.const(1), ...i32.add, ...tee(block));
  code.push(...i32.const(blocksPerLeaf), ...i32.ne, ...branchIf(0), ...end);
  for (let lane = 0; lane < 4; lane += 1) {
    for (let at = 0; at < 8; at += 1) {
      const to = lane * chainingValueBytes + 4 * at;
      code.push(...get(2), ...get(chaining + at), ...i32x4.storeLane(to, lane));
    }
  }
  const vectors = { count: scratch + 1 - chaining, type: valueType.v128 };
  return body([{ count: 1, type: valueType.i32 }, vectors], code);
}

const valueType = { i32: 0x7f, v128: 0x7b } as const;

function body(locals: readonly { count: number; type: number }[], code: Code): Code {
  const declared = locals.flatMap(({ count, type }) => [...unsigned(count), type]);
  return sized([...unsigned(locals.length), ...declared, ...code, ...end]);
}

function sized(bytes: Code): Code {
  return [...unsigned(bytes.length), ...bytes];
}

function section(id: number, items: readonly Code[]): Code {
  return [id, ...sized([...unsigned(items.length), ...items.flat()])];
}

function name(text: string): Code {
  return sized([...Buffer.from(text)]);
}

/** Three numbers in, none out: the type of both functions. */
const threeNumbers: Code = [0x60, 3, valueType.i32, valueType.i32, valueType.i32, 0];

export interface Blake3Tree {
  readonly memory: Buffer;
  leaves4(from: number, counter: number, to: number): void;
  parent(from: number, to: number, flags: number): void;
}

/** An instance with `memoryPages` of 64 KiB. */
export function makeBlake3Tree(memoryPages: number): Blake3Tree {
  const module = Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [threeNumbers]),
    ...section(3, [[0], [0]]),
    ...section(5, [[0, ...unsigned(memoryPages)]]),
    ...section(7, [
      [...name("memory"), 2, 0],
      [...name("leaves4"), 0, 0],
      [...name("parent"), 0, 1],
    ]),
    ...section(10, [leavesBody(), parentBody()]),
  ]);
  const { Instance, Module } = engine.WebAssembly;
  const { memory, leaves4, parent } = new Instance(new Module(module)).exports;
  return { memory: Buffer.from(memory.buffer), leaves4, parent };
}

/** What is used of the engine's interface, whose types come with browsers' only. */
const engine = globalThis as unknown as {
  readonly WebAssembly: {
    readonly Module: new (bytes: Uint8Array) => object;
    readonly Instance: new (
      module: object,
    ) => {
      readonly exports: Omit<Blake3Tree, "memory"> & {
        readonly memory: { readonly buffer: ArrayBuffer };
      };
    };
  };
};
