// Where clients come in, who is turned away and why, and how long certificates hold.

import type { JSX } from "preact";
import { Drain, Ready } from "../actions";
import type { Certificate, Listener, Status } from "../api";
import { mayAct } from "../client";
import { bytes, count, day, percent, plural, rate, words } from "../format";
import { live } from "../live";
import { link } from "../route";
import { Table, type Column } from "../table";
import { Bar, Card, State, ask } from "../ui";

export function ListenersPage({ status }: { status: Status }): JSX.Element {
  const refusals = status.listeners.flatMap((listener) => listener.refusals.map(({ reason, count }) => ({ listener: listener.name, reason, count, all: listener.refused })));
  const ends = status.listeners.flatMap((listener) => listener.ends.map((end) => ({ listener: listener.name, ...end })));
  const certificates = status.listeners.flatMap((listener) => listener.certificates.map((certificate) => ({ listener: listener.name, ...certificate })));
  return (
    <>
      <h1>Listeners</h1>
      <Card title="Entrances" flush>
        <Table caption="Listeners" columns={columns} rows={status.listeners} id={(one) => one.name} empty="No listener." />
      </Card>
      <Card title="Refused, by reason" flush>
        <Table caption="Refusals by reason" columns={refusalColumns} rows={refusals.filter((one) => one.count > 0)} id={(one) => `${one.listener} ${one.reason}`} empty="Nobody was refused." />
      </Card>
      <Card title="Certificates" flush>
        <Table caption="Certificates" columns={certificateColumns} rows={certificates} id={(one) => `${one.listener} ${one.cert}`} empty="No listener has a certificate." />
      </Card>
      <Card title="How connections ended" flush>
        <Table caption="Ends of connections" columns={endColumns} rows={ends.filter((one) => one.count > 0)} id={(one) => `${one.listener} ${one.side} ${one.phase} ${one.how}`} empty="None has ended yet." />
      </Card>
    </>
  );
}

const columns: Column<Listener>[] = [
  {
    title: "Listener",
    wide: true,
    order: (one) => one.name,
    cell: (one) => (
      <span class="name"><span>
        <b>{one.name}</b>
        <small>{one.bind}, {one.protocol}{one.certificates.length > 0 && " over TLS"}</small>
      </span></span>
    ),
  },
  { title: "State", wide: true, cell: (one) => <><State state={one.state} />{one.certificate_error && <small>{one.certificate_error}</small>}</> },
  { title: "Live", number: true, order: (one) => one.live, cell: (one) => <a href={link("connections", "", { listener: one.name })}>{count(one.live)}</a> },
  { title: "New/s", number: true, order: (one) => live.rate(`listener ${one.name}`).opened, cell: (one) => rate(live.rate(`listener ${one.name}`).opened) },
  { title: "In/s", number: true, minor: true, cell: (one) => bytes(live.rate(`listener ${one.name}`).fromClients) },
  { title: "Out/s", number: true, minor: true, cell: (one) => bytes(live.rate(`listener ${one.name}`).fromBackends) },
  { title: "Upgrades", number: true, minor: true, order: (one) => one.upgrades, cell: (one) => count(one.upgrades) },
  { title: "TLS failed", number: true, minor: true, order: (one) => one.handshake_failures, cell: (one) => count(one.handshake_failures) },
  { title: "Refused", number: true, order: (one) => one.refused, cell: (one) => <span class={one.refused > 0 ? "warned" : ""}>{count(one.refused)}</span> },
  { title: "Actions", wide: true, cell: buttons },
];

function buttons(listener: Listener): JSX.Element | null {
  if (!mayAct() || listener.state === "stopped") return null;
  const draining = listener.state === "draining";
  const word = draining ? "Ready" : "Drain";
  const of = { listener };
  return (
    <span class="buttons">
      <button type="button" aria-label={`${word} listener ${listener.name}`} onClick={() => ask(draining ? <Ready of={of} /> : <Drain of={of} />)}>{word}</button>
    </span>
  );
}

interface RefusalRow {
  listener: string;
  reason: string;
  count: number;
  all: number;
}

const refusalColumns: Column<RefusalRow>[] = [
  { title: "Reason", wide: true, order: (one) => one.reason, cell: (one) => <b title={one.reason}>{words(one.reason)}</b> },
  { title: "Listener", order: (one) => one.listener, cell: (one) => one.listener },
  { title: "Part", number: true, cell: (one) => <span class="share"><Bar part={one.count / Math.max(1, one.all)} tone="c1" />{percent(one.count, one.all)}</span> },
  { title: "Refused", number: true, order: (one) => one.count, cell: (one) => count(one.count) },
];

interface EndRow {
  listener: string;
  side: string;
  phase: string;
  how: string;
  count: number;
}

const endColumns: Column<EndRow>[] = [
  { title: "End", wide: true, order: (one) => `${one.side} ${one.phase} ${one.how}`, cell: (one) => <b>{one.side} {one.phase} {one.how}</b> },
  { title: "Listener", order: (one) => one.listener, cell: (one) => one.listener },
  { title: "Connections", number: true, order: (one) => one.count, cell: (one) => count(one.count) },
];

type CertificateRow = Certificate & { listener: string };

const MANY_DAYS = 3650;

function validity({ days_left }: Certificate): string {
  return days_left < 0 ? "ended" : days_left < 4 ? "ending" : days_left < 21 ? "soon" : "valid";
}

function left({ days_left }: Certificate): string {
  if (days_left < 0) return "none";
  return days_left > MANY_DAYS ? "over 10 years" : plural(days_left, "day");
}

const certificateColumns: Column<CertificateRow>[] = [
  { title: "Certificate", wide: true, order: (one) => one.name, cell: (one) => <span class="name"><span><b>{one.name}</b><small>{one.cert}</small></span></span> },
  { title: "Listener", order: (one) => one.listener, cell: (one) => one.listener },
  { title: "State", cell: (one) => <State state={validity(one)} /> },
  { title: "Valid until", number: true, order: (one) => one.days_left, cell: (one) => day(one.not_after) },
  { title: "Left", number: true, order: (one) => one.days_left, cell: (one) => left(one) },
];
