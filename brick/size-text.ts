/** Rounded down to three digits, never more than there is: "1TiB", "512MiB", "1.23GiB". */
export function sizeText(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2;
  const scale = 10 ** digits;
  return `${Math.floor(value * scale) / scale}${units[unit]}`;
}
