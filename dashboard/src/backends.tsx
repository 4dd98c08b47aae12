// The table of backends, with what an operator may do to each.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { Drain, Gather, Maint, Ready, Weight } from "./actions";
import type { Backend, Pool } from "./api";
import { mayAct } from "./client";
import { MAX_DRAWN, colour } from "./chart";
import { ago, bytes, count, percent, rate } from "./format";
import { live } from "./live";
import { backendKey, sum } from "./rates";
import { link } from "./route";
import { Table, type Column } from "./table";
import { Bar, Menu, State, ask, type Choice } from "./ui";

// Backends above this number get a field to search in.
const SEARCHED = 12;

interface Row {
  backend: Backend;
  // Connections of its pool, and the most that one of them has.
  all: number;
  most: number;
  // Its colour in the picture, where there is one.
  colour: string | null;
}

export function Backends({ pools, caption }: { pools: Pool[]; caption: string }): JSX.Element {
  const [search, setSearch] = useState("");
  const [state, setState] = useState("");
  const all = pools.flatMap(rows);
  const states = [...new Set(all.map(({ backend }) => backend.state))].sort();
  const words = search.toLowerCase();
  const shown = all.filter(({ backend }) => (state === "" || backend.state === state) && matches(backend, words));
  const several = pools.length > 1;
  return (
    <>
      {all.length > SEARCHED && (
        <div class="search">
          <input type="search" aria-label="Search backends" placeholder="name, address, reason" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
          <select aria-label="State" value={state} onChange={(event) => setState(event.currentTarget.value)}>
            <option value="">any state</option>
            {states.map((one) => <option key={one} value={one}>{one}: {count(all.filter(({ backend }) => backend.state === one).length)}</option>)}
          </select>
          <span class="faint">{count(shown.length)} of {count(all.length)}</span>
        </div>
      )}
      <Table caption={caption} columns={columns(several)} rows={shown} id={({ backend }) => `${backend.pool}/${backend.name}`} empty="No backend." tone={tone} />
    </>
  );
}

function rows(pool: Pool): Row[] {
  const all = sum(pool.backends, (backend) => backend.live);
  const most = pool.backends.reduce((high, backend) => Math.max(high, backend.live), 1);
  const drawn = pool.backends.length <= MAX_DRAWN;
  return pool.backends.map((backend, at) => ({ backend, all, most, colour: drawn ? colour(at) : null }));
}

function matches({ name, pool, address, reason }: Backend, words: string): boolean {
  return words === "" || `${pool}/${name} ${address} ${reason}`.toLowerCase().includes(words);
}

function tone({ backend }: Row): string {
  return backend.removed ? "removed" : "";
}

function columns(several: boolean): Column<Row>[] {
  const name: Column<Row> = {
    title: "Backend",
    wide: true,
    order: ({ backend }) => `${several ? `${backend.pool}/` : ""}${backend.name}`,
    cell: ({ backend, colour }) => (
      <span class="name">
        {colour && <i class={`swatch ${colour}`} aria-hidden="true" />}
        <span>
          <b>{several && <a href={link("pools", backend.pool)}>{backend.pool}/</a>}{backend.name}</b>
          <small title={backend.endpoint ?? undefined}>{backend.address}{backend.backup && ", backup"}{backend.removed && ", removed"}</small>
        </span>
      </span>
    ),
  };
  const all: Column<Row>[] = [
    name,
    {
      title: "State",
      wide: true,
      order: ({ backend }) => backend.state,
      cell: ({ backend }) => (
        <>
          <State state={backend.state} title={`since ${backend.since}`} />
          <small>{why(backend)}</small>
        </>
      ),
    },
    {
      title: "Live",
      number: true,
      order: ({ backend }) => backend.live,
      cell: ({ backend }) => <a href={link("connections", "", { pool: backend.pool, backend: backend.name })} aria-label={`${count(backend.live)} connections of ${backend.name}`}>{count(backend.live)}</a>,
    },
    {
      title: "Share",
      number: true,
      cell: ({ backend, all, most, colour }) => (
        <span class="share">
          <Bar part={backend.live / most} tone={colour ?? "c0"} />
          {percent(backend.live, all)}
        </span>
      ),
    },
    { title: "New/s", number: true, order: (row) => rates(row).opened, cell: (row) => rate(rates(row).opened) },
    { title: "In/s", number: true, minor: true, order: (row) => rates(row).fromClients, cell: (row) => bytes(rates(row).fromClients) },
    { title: "Out/s", number: true, minor: true, order: (row) => rates(row).fromBackends, cell: (row) => bytes(rates(row).fromBackends) },
    {
      title: "Failed",
      number: true,
      order: ({ backend }) => backend.connect_failures,
      cell: ({ backend }) => (
        <span title={backend.last_error ? `${backend.last_error} (${backend.last_error_at})` : undefined} class={backend.connect_failures ? "warned" : ""}>
          {count(backend.connect_failures)}
        </span>
      ),
    },
    { title: "Weight", number: true, order: ({ backend }) => backend.weight, cell: ({ backend }) => backend.weight },
    { title: "Actions", wide: true, cell: ({ backend }) => <Buttons backend={backend} /> },
  ];
  return mayActSomewhere() ? all : all.slice(0, -1);
}

function mayActSomewhere(): boolean {
  return (live.status?.pools ?? []).some((pool) => pool.backends.some((backend) => mayAct(pool.name, backend.name)));
}

function rates({ backend }: Row): ReturnType<typeof live.rate> {
  return live.rate(backendKey(backend));
}

// The reason, what the check says beside it, and since when.
function why(backend: Backend): string {
  const says = backend.check === "down" && backend.check_reason ? `: ${backend.check_reason}` : "";
  const check = backend.check === "none" || backend.check === backend.state ? "" : `check ${backend.check}${says}`;
  return [backend.reason, check, ago(backend.since, Date.now())].filter(Boolean).join(" · ");
}

function Buttons({ backend }: { backend: Backend }): JSX.Element | null {
  const { pool, name } = backend;
  if (!mayAct(pool, name) || backend.removed) return null;
  const filter = { pool, backend: name };
  const ready = { label: "Ready", act: () => ask(<Ready of={{ backend }} />) };
  const drain = { label: "Drain", act: () => ask(<Drain of={{ backend }} />) };
  const maint = { label: "Maintenance", act: () => ask(<Maint backend={backend} />) };
  const isReady = backend.operator === "ready";
  const choices: Choice[] = isReady ? [maint] : backend.operator === "drain" ? [drain, maint] : [drain];
  choices.push({ label: "Weight", act: () => ask(<Weight backend={backend} />) });
  if (mayAct()) {
    choices.push({ label: "Move connections", act: () => ask(<Gather filter={filter} move />) });
    choices.push({ label: "Close connections", act: () => ask(<Gather filter={filter} move={false} />) });
  }
  const first = isReady ? drain : ready;
  return (
    <span class="buttons">
      <button type="button" onClick={first.act} aria-label={`${first.label} ${name}`}>{first.label}</button>
      <Menu label={`More for ${name}`} choices={choices} />
    </span>
  );
}
