const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const day = 24 * hour;

/** A span of time for people, rounded down: "40 s", "3 min", "2 h 5 min", "4 d 3 h". */
export function durationText(spanMs: number): string {
  const ms = Math.max(0, spanMs);
  if (ms < minute) return `${Math.floor(ms / second)} s`;
  if (ms < hour) return `${Math.floor(ms / minute)} min`;
  const [large, largeName, small, smallName] =
    ms < day ? ([hour, "h", minute, "min"] as const) : ([day, "d", hour, "h"] as const);
  const rest = Math.floor((ms % large) / small);
  const whole = `${Math.floor(ms / large)} ${largeName}`;
  return rest === 0 ? whole : `${whole} ${rest} ${smallName}`;
}
