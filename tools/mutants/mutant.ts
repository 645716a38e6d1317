/** A version of END that is wrong on purpose. */
export interface Mutant {
  /** What is wrong with it. */
  readonly name: string;
  readonly file: string;
  /** Stands in the file exactly once. */
  readonly text: string;
  readonly instead: string;
  /** What must fail: test files, or a program and its arguments. */
  readonly caughtBy: readonly string[];
  /** The one test of these files that must fail; absent: any of them may. */
  readonly scenario?: string;
}
