// All at a glance: how many are connected where, what needs a look, what is under way.

import type { JSX } from "preact";
import type { Pool, Status } from "../api";
import { Backends } from "../backends";
import { PoolsChart, colour } from "../chart";
import { bytes, count, duration, plural, rate } from "../format";
import { live } from "../live";
import { busiest, refusedBy, sum } from "../rates";
import { link } from "../route";
import { Table, type Column } from "../table";
import { Bar, Card, Figure, State } from "../ui";
import { clusterConcerns } from "./cluster";
import { LogLines } from "./events";
import { JobTable } from "./jobs";

// Lines of the log that the overview shows.
const RECENT = 6;
// Backends that it shows one by one.
const FEW = 24;
// Days before its end from which a certificate is worth a look.
const CERTIFICATE_DAYS = 21;

export function Overview({ status }: { status: Status }): JSX.Element {
  const backends = sum(status.pools, (pool) => pool.backends.length);
  return (
    <>
      <h1 class="hidden">Overview</h1>
      <Figures status={status} />
      <Concerns status={status} />
      <div class="split">
        <Card title="Live connections by pool"><PoolsChart pools={status.pools} /></Card>
        <Card title="Events" side={<a href={link("events")}>all events</a>} flush>
          <LogLines lines={live.log.slice(0, RECENT)} />
        </Card>
      </div>
      <Card title="Pools" flush>
        <Table caption="Pools" columns={columns} rows={status.pools} id={(pool) => pool.name} empty="No pool." />
      </Card>
      {status.jobs.length > 0 && <Card title="Jobs" flush><JobTable jobs={status.jobs} /></Card>}
      {backends <= FEW && <Card title="Backends" flush><Backends pools={status.pools} caption="Backends of all pools" /></Card>}
    </>
  );
}

function Figures({ status }: { status: Status }): JSX.Element {
  const { process, listeners, pools } = status;
  const of = (name: "opened" | "refused" | "fromClients" | "fromBackends"): number => sum(listeners, (one) => live.rate(`listener ${one.name}`)[name]);
  const queued = sum(pools, (pool) => pool.queued);
  return (
    <dl class="figures">
      <Figure label="Connections" value={count(process.connections)} note={`of ${count(process.max_connections)}`} />
      <Figure label="New" value={`${rate(of("opened"))}/s`} note={`${count(process.setup_connections)} in set-up`} />
      <Figure label="From clients" value={`${bytes(of("fromClients"))}/s`} />
      <Figure label="From backends" value={`${bytes(of("fromBackends"))}/s`} />
      <Figure label="Refused" value={`${rate(of("refused"))}/s`} note={`${count(sum(listeners, (one) => one.refused))} in all`} tone={of("refused") > 0 ? "warn" : undefined} />
      <Figure label="Queued" value={count(queued)} tone={queued > 0 ? "warn" : undefined} note="for a backend" />
      <Figure label="Memory" value={process.anonymous_bytes === null ? "–" : bytes(process.anonymous_bytes)} note={`${bytes(process.buffered_bytes)} buffered`} tone={process.short_of_memory ? "bad" : undefined} />
      <Figure label="Up for" value={duration(process.uptime_seconds)} note={status.version} />
    </dl>
  );
}

interface Concern {
  text: string;
  href: string;
  tone: "bad" | "warn";
}

export function concerns(status: Status): Concern[] {
  const found: Concern[] = [];
  const add = (tone: Concern["tone"], text: string, href: string): void => void found.push({ tone, text, href });
  const { configuration, process } = status;
  if (configuration.last_error) add("bad", `the latest reload was refused: ${configuration.last_error}`, link("configuration"));
  if (process.about_to_stop || !process.ready) add("warn", "the process is about to stop", link("overview"));
  if (process.short_of_memory) add("bad", "new connections are refused for lack of memory", link("overview"));
  for (const text of status.cluster ? clusterConcerns(status.cluster) : []) add("bad", text, link("cluster"));
  for (const pool of status.pools) ofPool(pool, add);
  for (const listener of status.listeners) {
    if (listener.certificate_error) add("bad", `certificate of ${listener.name}: ${listener.certificate_error}`, link("listeners"));
    if (listener.state !== "listening") add("warn", `listener ${listener.name} is ${listener.state}`, link("listeners"));
    for (const { name, days_left } of listener.certificates) {
      if (days_left < CERTIFICATE_DAYS) add(days_left < 4 ? "bad" : "warn", `certificate of ${name} ${days_left < 0 ? "has ended" : `ends in ${plural(days_left, "day")}`}`, link("listeners"));
    }
  }
  return found;
}

function ofPool(pool: Pool, add: (tone: Concern["tone"], text: string, href: string) => void): void {
  const href = link("pools", pool.name);
  const usable = pool.backends.filter((backend) => backend.state === "up").length;
  const down = pool.backends.filter((backend) => backend.state !== "up" && !backend.removed);
  if (usable === 0 && !pool.removed && pool.backends.length > 0) add("bad", `${pool.name} has no backend that takes connections`, href);
  if (pool.panic) add("bad", `${pool.name} keeps its sessions: ${pool.panic}`, href);
  if (down.length > 3) add("warn", `${count(down.length)} of ${count(pool.backends.length)} backends of ${pool.name} take no connections`, href);
  else for (const { name, state, reason } of down) add(state === "down" ? "bad" : "warn", `${pool.name}/${name}: ${state}${reason && `, ${reason}`}`, href);
  if (pool.discovery && !["good", "waiting"].includes(pool.discovery.state)) add("warn", `discovery of ${pool.name} is ${pool.discovery.state}`, href);
  for (const { name, error } of pool.failing_lookups) add("warn", `look-up of ${name}: ${error}`, href);
  for (const { kind, error } of pool.file_errors) add("bad", `${kind} files of ${pool.name}: ${error}`, href);
}

function Concerns({ status }: { status: Status }): JSX.Element {
  const found = concerns(status);
  if (found.length === 0) return <p class="well"><i aria-hidden="true" />Every backend takes connections, and nothing needs a look.</p>;
  return (
    <ul class="concerns" aria-label="What needs a look">
      {found.map(({ text, href, tone }) => <li key={text} class={tone}><a href={href}>{text}</a></li>)}
    </ul>
  );
}

function shares(pool: Pool): JSX.Element {
  const all = sum(pool.backends, (backend) => backend.live);
  if (pool.backends.length > 10) return <Evenness pool={pool} />;
  return (
    <span class="stack" aria-hidden="true">
      {all > 0 && pool.backends.map((backend, at) => <i key={backend.name} class={colour(at)} title={`${backend.name} ${backend.live}`} style={{ flexGrow: String(backend.live) }} />)}
    </span>
  );
}

// The busiest backend beside what would be even.
function Evenness({ pool }: { pool: Pool }): JSX.Element {
  const most = busiest(pool);
  return <span class="share"><Bar part={most === null ? 0 : 1 / most} tone="c0" />{most === null ? "empty" : `${most.toFixed(2)} × even`}</span>;
}

const columns: Column<Pool>[] = [
  {
    title: "Pool",
    wide: true,
    order: (pool) => pool.name,
    cell: (pool) => (
      <span class="name"><span>
        <b><a href={link("pools", pool.name)}>{pool.name}</a></b>
        <small>{pool.balance}{pool.discovery && `, ${pool.discovery.source}`}{pool.removed && ", removed"}</small>
      </span></span>
    ),
  },
  { title: "Backends", cell: health },
  { title: "Live", number: true, order: (pool) => sum(pool.backends, (one) => one.live), cell: (pool) => <a href={link("connections", "", { pool: pool.name })}>{count(sum(pool.backends, (one) => one.live))}</a> },
  { title: "Balance", cell: shares, wide: true },
  { title: "New/s", number: true, order: (pool) => live.rate(`pool ${pool.name}`).opened, cell: (pool) => rate(live.rate(`pool ${pool.name}`).opened) },
  { title: "In/s", number: true, minor: true, cell: (pool) => bytes(live.rate(`pool ${pool.name}`).fromClients) },
  { title: "Out/s", number: true, minor: true, cell: (pool) => bytes(live.rate(`pool ${pool.name}`).fromBackends) },
  { title: "Queued", number: true, order: (pool) => pool.queued, cell: (pool) => count(pool.queued) },
  { title: "No backend", number: true, cell: (pool) => count(refusedBy(pool)) },
];

// States of a pool's backends, each with its number.
function health(pool: Pool): JSX.Element {
  const states = new Map<string, number>();
  for (const { state } of pool.backends) states.set(state, (states.get(state) ?? 0) + 1);
  return <span class="states">{[...states].map(([state, number]) => <span key={state}>{count(number)} <State state={state} /></span>)}</span>;
}
