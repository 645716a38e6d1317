/** One scrape of a brick's metrics, read back: Prometheus' text format as our bricks write it. */

export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const samplePattern = /^([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})? (\S+)$/;
const labelPattern = /(\w+)="([^"]*)"/g;

export class Samples {
  readonly #byName = new Map<string, Sample[]>();

  constructor(text: string) {
    for (const line of text.split("\n")) {
      const match = samplePattern.exec(line);
      if (match === null) continue;
      const [, name, labelText, value] = match;
      const labels: Record<string, string> = {};
      for (const [, label, of] of (labelText ?? "").matchAll(labelPattern)) labels[label!] = of!;
      const samples = this.#byName.get(name!);
      const sample = { labels, value: Number(value) };
      if (samples === undefined) this.#byName.set(name!, [sample]);
      else samples.push(sample);
    }
  }

  /** Those of the name that have these labels, in the order of the text. */
  values(name: string, labels: Readonly<Record<string, string>> = {}): Sample[] {
    const wanted = Object.entries(labels);
    const all = this.#byName.get(name) ?? [];
    return all.filter((one) => wanted.every(([label, value]) => one.labels[label] === value));
  }

  sum(name: string, labels: Readonly<Record<string, string>> = {}): number {
    return this.values(name, labels).reduce((sum, { value }) => sum + value, 0);
  }
}
