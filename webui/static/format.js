/** Numbers, times and states as people read them. */

/** @param {number} fraction */
export function percent(fraction) {
  const value = fraction * 100;
  if (value > 0 && value < 0.1) return "<0.1%";
  if (value < 10) return `${value.toFixed(1)}%`;
  // 99.96 % is not 100 %: certainty is shown only where there is no doubt.
  return `${Math.min(value, value < 100 ? 99.9 : 100).toFixed(value < 99.5 ? 0 : 1)}%`;
}

/** @param {number} seconds */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 1) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 10 && !Number.isInteger(seconds)) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/**
 * Two of them, with the unit once where both have it.
 * @param {number} first seconds
 * @param {number} second seconds
 */
export function durations(first, second) {
  const [value, unit] = duration(first).split(" ");
  const end = duration(second);
  return end.endsWith(` ${unit}`) ? `${value} · ${end}` : `${value} ${unit} · ${end}`;
}

/** @param {number} bytes */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = -1;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** @param {number} value */
export function count(value) {
  return value.toLocaleString("en");
}

/**
 * @param {number} number
 * @param {string} one
 * @param {string} [many]
 */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** @param {number} value a rate per second */
export function rate(value) {
  if (value === 0) return "0";
  return value < 10 ? value.toFixed(1) : count(Math.round(value));
}

/** @type {Record<string, string>} */
export const STATE_NAMES = {
  queued: "Waiting",
  leased: "Running",
  backoff: "Trying again",
  succeeded: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
};

export const TERMINAL = new Set(["succeeded", "failed", "cancelled"]);

/**
 * Seconds between two RFC 3339 times, NaN where one is missing.
 * @param {string | null} from
 * @param {string | null} to
 */
export function secondsBetween(from, to) {
  return from && to ? (Date.parse(to) - Date.parse(from)) / 1000 : NaN;
}
