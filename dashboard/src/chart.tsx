// Pictures over time: the share of each backend, or their spread where there are many.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import type { Pool } from "./api";
import { clock, count, percent } from "./format";
import { live } from "./live";
import { backendKey } from "./rates";

// Backends that are drawn one by one; more of them are drawn as a spread.
export const MAX_DRAWN = 10;
const HEIGHT = 184;
// Seconds that the picture shows at least, so that its first minute stands still.
const MIN_WINDOW = 60;

type Values = (number | null)[];

interface Picture {
  labels: string[];
  colours: string[];
  // Heights as drawn, from the lowest.
  drawn: Values[];
  // Numbers as they are told.
  told: Values[];
  fill: "stack" | "between";
}

export function colour(position: number): string {
  return `c${position % MAX_DRAWN}`;
}

export function BalanceChart({ pool, share }: { pool: Pool; share: boolean }): JSX.Element {
  const picture = pool.backends.length > MAX_DRAWN ? spread(pool) : stack(pool, share);
  const unit = share && picture.fill === "stack" ? "%" : "";
  const now = picture.labels.map((label, at) => `${label} ${count(picture.told[at]?.at(-1) ?? 0)}`);
  return <Chart picture={picture} unit={unit} label={`Live connections of ${pool.name} over time; now ${now.join(", ")}`} />;
}

// Live connections of each pool, one on the other.
export function PoolsChart({ pools }: { pools: Pool[] }): JSX.Element {
  const shown = pools.slice(0, MAX_DRAWN);
  const told = shown.map((pool) => live.history.of(`pool ${pool.name}`));
  const picture: Picture = { labels: shown.map((pool) => pool.name), colours: shown.map((_, at) => colour(at)), drawn: stacked(told), told, fill: "stack" };
  const now = shown.map((pool, at) => `${pool.name} ${count(told[at]?.at(-1) ?? 0)}`);
  return <Chart picture={picture} unit="" label={`Live connections over time; now ${now.join(", ")}`} />;
}

function stack(pool: Pool, share: boolean): Picture {
  const told = pool.backends.map((backend) => live.history.of(backendKey(backend)));
  const sums = stacked(told);
  const all = sums.at(-1) ?? [];
  const part = (value: number | null, at: number): number | null => (value === null ? null : all[at] ? (100 * value) / all[at] : 0);
  return {
    labels: pool.backends.map((backend) => backend.name),
    colours: pool.backends.map((_, at) => colour(at)),
    drawn: share ? sums.map((values) => values.map(part)) : sums,
    told,
    fill: "stack",
  };
}

function stacked(told: Values[]): Values[] {
  const sums: Values[] = [];
  for (const values of told) {
    const below = sums.at(-1);
    sums.push(values.map((value, at) => (value === null ? null : value + (below?.[at] ?? 0))));
  }
  return sums;
}

function spread(pool: Pool): Picture {
  const all = pool.backends.filter((one) => !one.removed).map((backend) => live.history.of(backendKey(backend)));
  const [least, middle, most]: [Values, Values, Values] = [[], [], []];
  for (let at = 0; at < live.history.times.length; at += 1) {
    const values = all.map((series) => series[at] ?? null);
    const known = values.filter((value) => value !== null).sort((a, b) => a - b);
    least.push(known[0] ?? null);
    middle.push(known[known.length >> 1] ?? null);
    most.push(known.at(-1) ?? null);
  }
  const drawn = [least, middle, most];
  return { labels: ["fewest", "median", "most"], colours: ["c3", "c0", "c1"], drawn, told: drawn, fill: "between" };
}

function Chart({ picture, unit, label }: { picture: Picture; unit: string; label: string }): JSX.Element {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [at, setAt] = useState<number | null>(null);
  const times = live.history.times;
  const theme = useTheme();
  const shape = `${theme} ${unit} ${picture.fill} ${picture.labels.join("\n")}`;
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const made = new uPlot(options(element, picture, unit, setAt), data(times, picture), element);
    plot.current = made;
    const resize = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    resize.observe(element);
    return () => {
      resize.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape]);
  useEffect(() => plot.current?.setData(data(times, picture)), [times.at(-1)]);
  return (
    <div class="chart">
      <div ref={place} role="img" aria-label={label} />
      <Legend picture={picture} at={at} />
    </div>
  );
}

// From the top: where a backend has nothing, its line is covered by that of the next one below.
function data(times: number[], { drawn }: Picture): uPlot.AlignedData {
  return [times, ...drawn.toReversed()] as uPlot.AlignedData;
}

function Legend({ picture, at }: { picture: Picture; at: number | null }): JSX.Element {
  const index = at ?? live.history.times.length - 1;
  const values = picture.told.map((series) => series[index] ?? 0);
  const all = values.reduce((sum, value) => sum + value, 0);
  const time = live.history.times[index];
  return (
    <p class="legend" aria-hidden="true">
      <time>{at === null || time === undefined ? "now" : clock(new Date(time * 1000))}</time>
      {picture.labels.map((label, place) => (
        <span key={label}>
          <i class={`swatch ${picture.colours[place]}`} />
          {label} <b>{count(values[place] ?? 0)}</b>
          {picture.fill === "stack" && <small>{percent(values[place] ?? 0, all)}</small>}
        </span>
      ))}
    </p>
  );
}

function options(element: HTMLElement, picture: Picture, unit: string, setAt: (at: number | null) => void): uPlot.Options {
  const read = (name: string): string => resolve(element, name);
  const axis = { stroke: read("faint"), font: `11px ${getComputedStyle(element).fontFamily}`, ticks: { show: false }, grid: { stroke: read("line"), width: 1 } };
  const isStack = picture.fill === "stack";
  const colours = picture.colours.map(read).toReversed();
  const series = colours.map((stroke, at): uPlot.Series => ({
    stroke,
    width: 1.5,
    points: { show: false },
    ...(isStack && at === colours.length - 1 ? { fill: faded(stroke, 0.35) } : {}),
  }));
  const bands = colours.slice(1).map((_, at): uPlot.Band => ({ series: [at + 1, at + 2], fill: isStack ? faded(colours[at] ?? "", 0.35) : faded(read("c0"), 0.15) }));
  const ceiling = (_: uPlot, __: number | null, most: number | null): [number, number] => [0, unit ? 100 : Math.max(4, Math.ceil((most ?? 0) * 1.1))];
  return {
    width: element.clientWidth,
    height: HEIGHT,
    padding: [8, 20, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    scales: { x: { range: (_, from, to) => [Math.min(from ?? 0, (to ?? 0) - MIN_WINDOW), to ?? 0] }, y: { range: ceiling } },
    axes: [
      { ...axis, grid: { show: false }, size: 24, space: 90, values: (_, ticks) => ticks.map((tick) => clock(new Date(tick * 1000))) },
      { ...axis, size: 46, space: 32, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? `${count(tick)}${unit && " %"}` : "")) },
    ],
    series: [{}, ...series],
    bands,
    hooks: { setCursor: [(made) => setAt(made.cursor.idx ?? null)] },
  };
}

// A colour of the style sheet as a canvas understands it: rgb(R, G, B).
function resolve(element: HTMLElement, name: string): string {
  element.style.color = `var(--${name})`;
  const { color } = getComputedStyle(element);
  element.style.color = "";
  return color;
}

function faded(colour: string, part: number): string {
  return colour.replace("rgb(", "rgba(").replace(")", `, ${part})`);
}

const dark = matchMedia("(prefers-color-scheme: dark)");

// The theme in effect: what is drawn on a canvas does not follow the style sheet by itself.
function useTheme(): string {
  const [, redraw] = useState(0);
  useEffect(() => {
    const change = (): void => redraw((times) => times + 1);
    dark.addEventListener("change", change);
    addEventListener("theme", change);
    return () => {
      dark.removeEventListener("change", change);
      removeEventListener("theme", change);
    };
  }, []);
  return document.documentElement.dataset["theme"] ?? (dark.matches ? "dark" : "light");
}
