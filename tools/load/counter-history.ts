/**
 * What became of one sector that many initiators count up with COMPARE AND WRITE: each reads the
 * counter, and writes the next value only if the sector is still as it was read. Every new content
 * carries a mark of its own, so that each step of the counter has exactly one maker.
 */

/** A counter's content: its value, and the mark of the attempts that made it; 0 and 0 at first. */
export interface CounterContent {
  value: number;
  mark: number;
}

/** "unknown": the connection was lost, or the command aborted, before an answer told. */
export type Outcome = "written" | "miscompared" | "unknown";

interface Attempt {
  /** From `value` to `value` + 1. */
  value: number;
  mark: number;
  /** Events of this history are numbered in the order in which they were seen. */
  beganAt: number;
  endedAt: number;
  outcome: Outcome | null;
}

export class CounterHistory {
  readonly #attempts: Attempt[] = [];
  /** Who made each value, as it was read. */
  readonly #makers: number[] = [0];
  readonly #forks: string[] = [];
  #now = 0;

  /** Every content that was read, the last one after all attempts have ended. */
  read(content: CounterContent): void {
    const maker = this.#makers[content.value];
    if (maker === undefined) this.#makers[content.value] = content.mark;
    else if (maker !== content.mark) {
      this.#forks.push(`value ${content.value} was made by ${maker} and by ${content.mark}`);
    }
  }

  /** An attempt to replace `value` with the content of `mark`; the same mark may be tried again. */
  begin(value: number, mark: number): (outcome: Outcome) => void {
    const attempt: Attempt = {
      value,
      mark,
      beganAt: this.#now++,
      endedAt: Number.POSITIVE_INFINITY,
      outcome: null,
    };
    this.#attempts.push(attempt);
    return (outcome) => {
      attempt.outcome = outcome;
      attempt.endedAt = this.#now++;
    };
  }

  /** What should not have happened, when the sector now holds `last` and nothing is under way. */
  violations(last: CounterContent): string[] {
    this.read(last);
    const found = [...this.#forks];
    const byMark = Map.groupBy(this.#attempts, (attempt) => attempt.mark);
    for (let value = 1; value < this.#makers.length; value += 1) {
      const maker = this.#makers[value];
      const made = (byMark.get(maker ?? -1) ?? []).filter((attempt) => mayHaveMade(attempt, value));
      if (made.length === 0) found.push(`value ${value} was made by nobody`);
    }
    if (this.#makers.length !== last.value + 1) {
      found.push(`value ${this.#makers.length - 1} was read, but ${last.value} is there`);
    }
    for (const attempts of byMark.values()) {
      const written = attempts.filter((attempt) => attempt.outcome === "written");
      if (written.length > 1) found.push(`mark ${attempts[0]!.mark} was written twice`);
    }
    for (const attempt of this.#attempts) found.push(...this.#judge(attempt, byMark));
    return found;
  }

  #judge(attempt: Attempt, byMark: ReadonlyMap<number, readonly Attempt[]>): string[] {
    const { value, mark, outcome, endedAt } = attempt;
    const maker = this.#makers[value + 1];
    if (outcome === "written" && maker !== mark) {
      return [`the update of ${value} by ${mark} was lost: ${maker ?? "nobody"} made ${value + 1}`];
    }
    if (outcome !== "miscompared") return [];
    // Right only if something else could have replaced the value by then: another's attempt, or an
    // earlier one of the same mark whose outcome nobody was told.
    const reason = (byMark.get(maker ?? -1) ?? []).some(
      (other) => other !== attempt && mayHaveMade(other, value + 1) && other.beganAt < endedAt,
    );
    return reason ? [] : [`${mark} was told a miscompare while ${value} was there`];
  }
}

function mayHaveMade(attempt: Attempt, value: number): boolean {
  return attempt.value + 1 === value && attempt.outcome !== "miscompared";
}

const magic = 0x454e4463;
export const counterBytes = 512;

/** Counter, 512 bytes, big-endian: magic[4]="ENDc" value[6] mark[6], over and over; zeros at first. */
export function encodeCounter({ value, mark }: CounterContent): Buffer {
  const bytes = Buffer.alloc(counterBytes);
  if (mark === 0) return bytes;
  for (let at = 0; at + 16 <= counterBytes; at += 16) {
    bytes.writeUInt32BE(magic, at);
    bytes.writeUIntBE(value, at + 4, 6);
    bytes.writeUIntBE(mark, at + 10, 6);
  }
  return bytes;
}

/** null: no counter, or torn. */
export function decodeCounter(bytes: Buffer): CounterContent | null {
  const content = { value: bytes.readUIntBE(4, 6), mark: bytes.readUIntBE(10, 6) };
  return encodeCounter(content).equals(bytes) ? content : null;
}
