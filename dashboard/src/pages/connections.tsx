// Established connections: found by a filter, in order, page by page.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { CloseOne, Gather } from "../actions";
import { CONDITIONS, type Condition, type Connection, type ConnectionPage, type Filter, type Status } from "../api";
import { conditions, connectionsPath, mayAct, send } from "../client";
import { age, bytes, count, plural } from "../format";
import { link } from "../route";
import { Table, type Column } from "../table";
import { Card, Failure, Field, ask } from "../ui";

const LIMIT = 50;

const LABELS: Record<Condition, [string, string]> = {
  pool: ["Pool", ""],
  backend: ["Backend", "n1"],
  listener: ["Listener", ""],
  client: ["Client", "10.0.0.0/8"],
  tag: ["Tag", "user-123"],
  host: ["Host", "chat.example.com"],
  path: ["Path", "/chat/*"],
  sni: ["SNI", "example.com"],
  subject: ["Subject", "CN=device-7"],
  min_age: ["Older than", "1h"],
  min_idle: ["Idle for", "10m"],
};
// Conditions that are always shown; the others unfold.
const FIRST: Condition[] = ["pool", "backend", "client", "tag"];

const ORDERS: [string, string][] = [["", "as in the table"], ["age", "oldest first"], ["idle", "idle longest first"], ["bytes", "most bytes first"]];

export function ConnectionsPage({ status, query }: { status: Status; query: URLSearchParams }): JSX.Element {
  const filter = readFilter(query);
  const order = query.get("sort") ?? "";
  const [page, setPage] = useState<ConnectionPage | null>(null);
  const [error, setError] = useState<unknown>(null);
  // Cursors of the pages before this one.
  const [cursors, setCursors] = useState<string[]>([]);
  const [asked, setAsked] = useState(0);
  const key = query.toString();
  useEffect(() => setCursors([]), [key]);
  useEffect(() => {
    let current = true;
    const cursor = order ? undefined : cursors.at(-1);
    const more = { limit: String(LIMIT), ...(order ? { sort: order } : {}), ...(cursor ? { cursor } : {}) };
    send<ConnectionPage>("GET", connectionsPath(filter, more)).then(
      (answer) => current && (setPage(answer), setError(null)),
      (failure) => current && setError(failure),
    );
    return () => {
      current = false;
    };
  }, [key, cursors.join(), asked]);
  const again = (): void => setAsked((times) => times + 1);
  const next = page?.next ?? null;
  const filtered = conditions(filter).length > 0;
  const side = (
    <>
      <span class="faint">{page && `${count(page.live)} live in all`}</span>
      <button type="button" onClick={again}>Refresh</button>
      {mayAct() && <button type="button" onClick={() => ask(<Gather filter={filter} move />)}>Move {filtered ? "these" : "all"}</button>}
      {mayAct() && <button type="button" class="danger-quiet" onClick={() => ask(<Gather filter={filter} move={false} />)}>Close {filtered ? "these" : "all"}</button>}
    </>
  );
  return (
    <>
      <h1>Connections</h1>
      <FilterForm key={key} status={status} filter={filter} order={order} />
      <Card title="Established" side={side} flush>
        <Failure error={error} />
        {page && <Table caption="Connections" columns={columns(again)} rows={page.connections} id={(one) => String(one.id)} empty="No connection matches." />}
        {page && (cursors.length > 0 || next !== null) && (
          <nav class="pages" aria-label="Pages of connections">
            <button type="button" disabled={cursors.length === 0} onClick={() => setCursors(cursors.slice(0, -1))}>Previous</button>
            <span>page {count(cursors.length + 1)}</span>
            <button type="button" disabled={next === null || order !== ""} onClick={() => setCursors([...cursors, String(next)])}>Next</button>
          </nav>
        )}
      </Card>
    </>
  );
}

function readFilter(query: URLSearchParams): Filter {
  const filter: Filter = {};
  for (const name of CONDITIONS) {
    const value = query.get(name);
    if (value) filter[name] = value;
  }
  return filter;
}

function FilterForm({ status, filter, order }: { status: Status; filter: Filter; order: string }): JSX.Element {
  const rest = CONDITIONS.filter((name) => !FIRST.includes(name));
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    const fields = new FormData(event.currentTarget as HTMLFormElement);
    location.hash = link("connections", "", Object.fromEntries([...fields].map(([name, value]) => [name, String(value).trim()])));
  };
  return (
    <form class="card filter" onSubmit={submit} aria-label="Filter of connections">
      <div class="fields">
        {FIRST.map((name) => <Input key={name} name={name} value={filter[name] ?? ""} status={status} />)}
        <Field label="Order">
          {(id) => <select id={id} name="sort" value={order}>{ORDERS.map(([value, text]) => <option key={value} value={value} selected={value === order}>{text}</option>)}</select>}
        </Field>
        <div class="field act"><button class="primary">Find</button> {conditions(filter).length > 0 && <a href={link("connections")}>clear</a>}</div>
      </div>
      <details open={rest.some((name) => filter[name])}>
        <summary>{plural(rest.length, "more condition")}</summary>
        <div class="fields">{rest.map((name) => <Input key={name} name={name} value={filter[name] ?? ""} status={status} />)}</div>
      </details>
    </form>
  );
}

function Input({ name, value, status }: { name: Condition; value: string; status: Status }): JSX.Element {
  const [label, example] = LABELS[name];
  const choices = name === "pool" ? status.pools : name === "listener" ? status.listeners : null;
  return (
    <Field label={label}>
      {(id) =>
        choices ? (
          <select id={id} name={name}>
            <option value="">any</option>
            {choices.map((one) => <option key={one.name} selected={one.name === value}>{one.name}</option>)}
          </select>
        ) : (
          <input id={id} name={name} placeholder={example} defaultValue={value} autocomplete="off" spellcheck={false} />
        )}
    </Field>
  );
}

function columns(again: () => void): Column<Connection>[] {
  const all: Column<Connection>[] = [
    {
      title: "Client",
      wide: true,
      cell: (one) => (
        <span class="name"><span>
          <b>{one.client}</b>{one.tls && <span class="tag">TLS</span>}
          <small>{[one.via && `via ${one.via}`, one.client_subject].filter(Boolean).join(", ")}</small>
        </span></span>
      ),
    },
    { title: "Asked for", wide: true, cell: (one) => <span class="text">{`${one.host ?? one.sni ?? ""}${one.path ?? ""}` || one.listener}</span> },
    { title: "Tag", cell: (one) => (one.tag ? <a class="text" href={link("connections", "", { tag: one.tag })}>{one.tag}</a> : "–") },
    { title: "Backend", cell: (one) => (one.pool ? <a class="text" href={link("connections", "", { pool: one.pool, backend: one.backend ?? "" })}>{one.pool}/{one.backend}</a> : "–") },
    { title: "Age", number: true, cell: (one) => age(one.age_seconds) },
    { title: "Idle", number: true, cell: (one) => age(one.idle_seconds) },
    { title: "In", number: true, cell: (one) => bytes(one.bytes_from_client) },
    { title: "Out", number: true, cell: (one) => bytes(one.bytes_from_backend) },
    { title: "Id", number: true, minor: true, cell: (one) => one.id },
  ];
  if (mayAct()) {
    all.push({
      title: "Actions",
      wide: true,
      cell: (one) => <button type="button" aria-label={`Close connection ${one.id}`} onClick={() => ask(<CloseOne id={one.id} client={one.client} done={again} />)}>Close</button>,
    });
  }
  return all;
}
