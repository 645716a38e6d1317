import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";

interface Record {
  /** Hash of the sources that it is about. */
  sources: string;
  /** By mutant: whether it was caught. */
  caught: { [name: string]: boolean };
}

/** Which mutants of one state of the sources were caught, kept in a file if one is given. */
export class Findings {
  readonly #record: Record;
  readonly #path: string | undefined;

  /** What the file tells of other sources is forgotten with the first that is added. */
  constructor(sources: string, path: string | undefined) {
    this.#path = path;
    this.#record = { sources, caught: {} };
    if (path === undefined || !existsSync(path)) return;
    const kept: Record = JSON.parse(readFileSync(path, "utf8"));
    if (kept.sources === sources) this.#record.caught = kept.caught;
  }

  isKnown(name: string): boolean {
    return this.#record.caught[name] !== undefined;
  }

  isCaught(name: string): boolean {
    return this.#record.caught[name] === true;
  }

  add(name: string, caught: boolean): void {
    this.#record.caught[name] = caught;
    if (this.#path === undefined) return;
    writeFileSync(`${this.#path}.new`, JSON.stringify(this.#record, null, 2));
    renameSync(`${this.#path}.new`, this.#path);
  }

  /** Of all the mutants there are. */
  summary(names: readonly string[]): string {
    const caught = names.filter((name) => this.isCaught(name)).length;
    const survived = names.filter((name) => this.isKnown(name) && !this.isCaught(name)).length;
    const left = names.length - caught - survived;
    const sources = this.#record.sources.slice(0, 12);
    return `of all ${names.length} mutants of the sources ${sources}: ${caught} caught, ${survived} not caught, ${left} not tried yet`;
  }
}
