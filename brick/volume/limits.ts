import { assert } from "../assert.ts";
import { messageBodyBytesMax } from "../rpc/frame.ts";
import { GiB, KiB, MiB } from "../units.ts";

/** Bounds of single commands of a volume. What is longer is refused: fault `unavailable`. */

/** COMPARE AND WRITE: what is compared and what is written travel to the gateway in one message. */
export const compareBytesMax = 512 * KiB;
/** ORWRITE, in one message likewise. */
export const orBytesMax = 1 * MiB;
/** One copy: its ranges stay locked until it has ended. */
export const copyBytesMax = 1 * GiB;
/** iSCSI name (223), ",i,0x" and 12 digits of ISID, rounded up. */
export const initiatorPortBytesMax = 256;
/** What stands before the data of a forwarded command, at most. */
export const forwardHeadBytesMax = 128 + initiatorPortBytesMax;

assert(2 * compareBytesMax + forwardHeadBytesMax <= messageBodyBytesMax);
assert(orBytesMax + forwardHeadBytesMax <= messageBodyBytesMax);
