import { InvalidArgumentError } from "commander";

/** One of several parts of a list, counted from 1. */
export interface Part {
  readonly number: number;
  readonly of: number;
}

export function readPart(text: string): Part {
  const [, number, of] = (/^(\d+)\/(\d+)$/.exec(text) ?? []).map(Number);
  if (number === undefined || of === undefined || number < 1 || number > of) {
    throw new InvalidArgumentError("such as 1/4, up to 4/4");
  }
  return { number, of };
}

/** Every one of the list is in one part: each part has some of all that stand together in it. */
export function partOf<T>(all: readonly T[], { number, of }: Part): T[] {
  return all.filter((_one, at) => at % of === number - 1);
}
