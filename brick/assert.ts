/** Something that cannot happen has happened: the process must not go on answering. */
export class AssertionFailure extends Error {
  override readonly name = "AssertionFailure";
}

/** Asserts what we computed ourselves. Bytes from a wire or a disk are checked instead. */
export function assert(condition: unknown, what = "an invariant does not hold"): asserts condition {
  if (!condition) throw new AssertionFailure(what);
}

export function assertNever(value: never): never {
  throw new AssertionFailure(`unexpected value ${JSON.stringify(value)}`);
}
