import { assert } from "../assert.ts";
import { groupBytesMax } from "../map/group.ts";
import { messageBodyBytesMax } from "../rpc/frame.ts";
import { GiB, KiB, MiB } from "../units.ts";

/** Bounds of single commands of a volume. What is longer is refused: fault `unavailable`. */

/** COMPARE AND WRITE: what is compared and what is written travel to the gateway in one message. */
export const compareBytesMax = 512 * KiB;
/** ORWRITE, in one message likewise. */
export const orBytesMax = 1 * MiB;
/** WRITE ATOMIC, in one message likewise. */
export const atomicBytesMax = groupBytesMax;
assert(compareBytesMax <= groupBytesMax && orBytesMax <= groupBytesMax);
/** One read, of one moment wherever it is asked for. */
export const readBytesMax = 32 * MiB;
/** What a gateway keeps of reads through other portals until these have all of it; others wait. */
export const heldReadsBytesMax = 64 * MiB;
/** Such reads, waiting ones too; more get no answer until there is room. */
export const heldReadsMax = 4096;
/** One copy: its ranges stay locked until it has ended. */
export const copyBytesMax = 1 * GiB;
/** Its length is one byte of a forwarded command. RFC 7143 §4.2.7: a name has at most 223. */
export const initiatorPortBytesMax = 255;
assert(223 + ",i,0x001122334455".length <= initiatorPortBytesMax);

const headBytesMax = 128 + initiatorPortBytesMax;
assert(2 * compareBytesMax + headBytesMax <= messageBodyBytesMax);
assert(orBytesMax + headBytesMax <= messageBodyBytesMax);
assert(atomicBytesMax + headBytesMax <= messageBodyBytesMax);
