/** Bars under one another, as an SVG picture: all that the bench's plots need. */

export interface Bar {
  readonly label: string;
  readonly value: number;
  /** Which of the series it belongs to. */
  readonly series: number;
}

export interface BarGroup {
  readonly label: string;
  readonly bars: readonly Bar[];
}

export interface BarChart {
  readonly title: string;
  readonly unit: string;
  readonly series: readonly string[];
  readonly groups: readonly BarGroup[];
  /** For figures that differ by orders of magnitude. */
  readonly logarithmic?: boolean;
}

const widthPx = 860;
const labelPx = 250;
const valuePx = 90;
const barPx = 13;
const groupGapPx = 9;
const headPx = 58;
const footPx = 12;
const colors = ["#2b6cb0", "#a0aec0", "#dd6b20", "#2f855a"];

export function barChart(chart: BarChart): string {
  const { title, unit, series, groups } = chart;
  const values = groups.flatMap(({ bars }) => bars.map(({ value }) => value));
  const scale = scaleOf(values, chart.logarithmic === true);
  const lines: string[] = [];
  let top = headPx;
  for (const group of groups) {
    const middle = top + (group.bars.length * barPx) / 2 + 4;
    lines.push(text(labelPx - 8, middle, group.label, "end"));
    for (const { label, value, series: of } of group.bars) {
      const length = round(scale(value) * (widthPx - labelPx - valuePx));
      const color = colors[of % colors.length]!;
      lines.push(
        `<rect x="${labelPx}" y="${top}" width="${length}" height="${barPx - 2}" fill="${color}"/>`,
        text(labelPx + length + 5, top + barPx - 3, label, "start"),
      );
      top += barPx;
    }
    top += groupGapPx;
  }
  const legend = series.map((name, at) => {
    const x = labelPx + at * 150;
    const color = colors[at % colors.length]!;
    const box = `<rect x="${x}" y="34" width="11" height="11" fill="${color}"/>`;
    return box + text(x + 16, 44, name, "start");
  });
  const heightPx = top + footPx;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${widthPx} ${heightPx}"`,
    ` width="${widthPx}" height="${heightPx}" font-family="sans-serif" font-size="11">`,
    `<rect width="${widthPx}" height="${heightPx}" fill="white"/>`,
    `<text x="${labelPx}" y="22" font-size="14">${escaped(`${title} (${unit})`)}</text>`,
    ...legend,
    ...lines,
    "</svg>",
    "",
  ].join("\n");
}

/** A value's part of the whole width. */
function scaleOf(values: readonly number[], logarithmic: boolean): (value: number) => number {
  const most = Math.max(...values, 0);
  if (most === 0) return () => 0;
  if (!logarithmic) return (value) => Math.max(0, value) / most;
  const positive = values.filter((value) => value > 0);
  // The smallest is to be seen, too.
  const least = Math.min(...positive) / 2;
  return (value) => (value <= least ? 0 : Math.log(value / least) / Math.log(most / least));
}

function text(x: number, y: number, what: string, anchor: "start" | "end"): string {
  return `<text x="${round(x)}" y="${round(y)}" text-anchor="${anchor}">${escaped(what)}</text>`;
}

function round(px: number): number {
  return Math.round(px * 10) / 10;
}

function escaped(what: string): string {
  return what.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
