/** Numbers of things, for people. */

export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** "brick 2", "bricks 1, 3". */
export function bricksText(numbers: readonly number[]): string {
  return `brick${numbers.length === 1 ? "" : "s"} ${numbers.join(", ")}`;
}

export function isAre(count: number): string {
  return count === 1 ? "is" : "are";
}
