// Numbers, sizes and times as an operator reads them.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export function count(value: number): string {
  return whole.format(value);
}

export function plural(value: number, word: string): string {
  return `${count(value)} ${word}${value === 1 ? "" : "s"}`;
}

export function connections(value: number): string {
  return plural(value, "live connection");
}

// One decimal below ten, where it tells something.
export function rate(value: number): string {
  if (value > 0 && value < 0.05) return "<0.1";
  return value < 10 && value > 0 ? value.toFixed(1) : count(value);
}

export function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let size = value;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

export function percent(part: number, all: number): string {
  return all > 0 ? `${((100 * part) / all).toFixed(part * 10 < all && part > 0 ? 1 : 0)} %` : "0 %";
}

// The two largest units: "3 d 4 h", "5 min 2 s".
export function duration(seconds: number): string {
  const units: [number, string][] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  let rest = Math.max(0, Math.round(seconds));
  const parts: string[] = [];
  for (const [size, unit] of units) {
    const of = Math.floor(rest / size);
    rest -= of * size;
    if (of > 0 || (unit === "s" && parts.length === 0)) parts.push(`${of} ${unit}`);
    else if (parts.length > 0) break;
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}

// One unit, for a column.
export function age(seconds: number): string {
  return duration(seconds).split(" ").slice(0, 2).join(" ");
}

export function ago(time: string, now: number): string {
  const seconds = (now - Date.parse(time)) / 1000;
  return seconds < 1 ? "now" : `${age(seconds)} ago`;
}

export function clock(time: Date): string {
  return time.toLocaleTimeString("en-GB");
}

export function moment(time: string): string {
  return new Date(time).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

export function day(time: string): string {
  return new Date(time).toLocaleDateString("en-GB", { dateStyle: "medium" });
}

// Words of the API with underscores and dots, as words.
export function words(name: string): string {
  return name.replace("per_source.", "per source: ").replaceAll("_", " ");
}
