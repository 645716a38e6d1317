/** Columns of text under their heads; columns of numbers flush right. */
export function table(heads: readonly string[], rows: readonly (string | number)[][]): string {
  const cells = [heads.map(String), ...rows.map((row) => row.map(String))];
  const widths = heads.map((_, column) => Math.max(...cells.map((row) => row[column]!.length)));
  const right = heads.map(
    (_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === "number"),
  );
  const lines = cells.map((row) =>
    row
      .map((cell, column) =>
        right[column] ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!),
      )
      .join("  ")
      .trimEnd(),
  );
  return lines.join("\n");
}
