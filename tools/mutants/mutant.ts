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

type Breach = Omit<Mutant, "caughtBy" | "scenario"> & { readonly scenario: string };

/** Mutants that are each caught by one test of the same file. */
export function inFile(test: string, breaches: readonly Breach[]): Mutant[] {
  return breaches.map((breach) => ({ ...breach, caughtBy: [test] }));
}
