/** Serial numbers modulo 2^32 (RFC 1982), as CmdSN and StatSN are compared. */

export function serialAdd(serial: number, count: number): number {
  return (serial + count) >>> 0;
}

export function serialLess(a: number, b: number): boolean {
  return a !== b && (b - a) >>> 0 < 0x8000_0000;
}

/** Whether `serial` is in [first, last]; the window is empty when last is first - 1. */
export function serialWithin(serial: number, first: number, last: number): boolean {
  return (serial - first) >>> 0 < (last - first + 1) >>> 0;
}
