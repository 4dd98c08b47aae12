// What has happened since the page was opened.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { clock, count } from "../format";
import { live, type LogLine } from "../live";
import { Card, Empty } from "../ui";

export function EventsPage(): JSX.Element {
  const [kind, setKind] = useState("");
  const kinds = [...new Set(live.log.map((line) => line.kind))].sort();
  const lines = live.log.filter((line) => kind === "" || line.kind === kind);
  const side = (
    <select aria-label="Kind of event" value={kind} onChange={(event) => setKind(event.currentTarget.value)}>
      <option value="">all kinds</option>
      {kinds.map((one) => <option key={one}>{one}</option>)}
    </select>
  );
  return (
    <>
      <h1>Events</h1>
      <Card title="Since this page was opened" side={side} flush><LogLines lines={lines} /></Card>
    </>
  );
}

export function LogLines({ lines }: { lines: LogLine[] }): JSX.Element {
  if (lines.length === 0) return <Empty>Nothing yet.</Empty>;
  return (
    <ol class="log">
      {lines.map((line) => (
        <li key={line.id} class={line.tone}>
          <time dateTime={line.at.toISOString()}>{clock(line.at)}</time>
          <span class="kind">{line.kind}</span>
          <span>{line.text}{line.times > 1 && <small> × {count(line.times)}</small>}</span>
        </li>
      ))}
    </ol>
  );
}
