// The configuration in force, a reload, and a plan: what a file would do to how many live connections.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Reload } from "../actions";
import type { Plan, PlanPart, Status } from "../api";
import { mayAct, send } from "../client";
import { connections, count, moment, plural } from "../format";
import { Table, type Column } from "../table";
import { Card, Failure, Figure, State, ask } from "../ui";

export function ConfigurationPage({ status }: { status: Status }): JSX.Element {
  const { file, number, hash, loaded_at, reloads_ok, reloads_failed, last_error } = status.configuration;
  return (
    <>
      <h1>Configuration</h1>
      <Card title="In force" side={mayAct() && <button type="button" class="primary" onClick={() => ask(<Reload />)}>Reload</button>}>
        <dl class="facts">
          <dt>file</dt><dd><code>{file}</code></dd>
          <dt>version</dt><dd>{count(number)}, SHA-256 <code title={hash}>{hash.slice(0, 16)}</code></dd>
          <dt>loaded</dt><dd>{moment(loaded_at)}</dd>
          <dt>reloads</dt><dd>{count(reloads_ok)} applied, {count(reloads_failed)} refused</dd>
          {last_error && <><dt>latest refused</dt><dd class="bad">{last_error}</dd></>}
        </dl>
        {mayAct() && <TextInForce number={number} />}
      </Card>
      <Planner />
    </>
  );
}

// The text of the file as it was loaded; asked for when it is unfolded.
function TextInForce({ number }: { number: number }): JSX.Element {
  const [open, setOpen] = useState(false);
  const [text, setText] = useState("");
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    if (!open) return;
    send<{ text: string }>("GET", "/api/v1/configuration").then((answer) => setText(answer.text), setError);
  }, [open, number]);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>the text in force</summary>
      <Failure error={error} />
      {text && <pre class="text-in-force" tabIndex={0} aria-label="Configuration in force">{text}</pre>}
    </details>
  );
}

function Planner(): JSX.Element {
  const [text, setText] = useState("");
  const [plan, setPlan] = useState<Plan | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const make = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    try {
      setPlan(await send<Plan>("POST", "/api/v1/plan", { configuration: text }));
      setError(null);
    } catch (failure) {
      setPlan(null);
      setError(failure);
    } finally {
      setBusy(false);
    }
  };
  const open = async (file: File | undefined): Promise<void> => {
    if (file) setText(await file.text());
  };
  return (
    <Card title="Plan">
      <form onSubmit={(event) => void make(event)}>
        <p class="faint" id="plan-hint">What would a reload of this file do? Nothing is changed, and no file that it names is opened.</p>
        <textarea aria-label="Configuration file" aria-describedby="plan-hint" rows={14} spellcheck={false} wrap="off" placeholder="paste a configuration here" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        <div class="row">
          <button class="primary" disabled={busy || text.trim() === ""}>Plan</button>
          <label class="file">or open <input type="file" accept=".toml,text/plain" onChange={(event) => void open(event.currentTarget.files?.[0])} /></label>
        </div>
      </form>
      <div role="status">
        <Failure error={error} />
        {plan && <Result plan={plan} />}
      </div>
    </Card>
  );
}

function Result({ plan }: { plan: Plan }): JSX.Element {
  const { totals, parts, needs_restart, refusals } = plan;
  const differing = parts.filter((part) => part.fate !== "kept");
  return (
    <div class="plan">
      <dl class="figures">
        <Figure label="Closed" value={count(totals.closes)} note="live connections" tone={totals.closes > 0 ? "bad" : undefined} />
        <Figure label="Left behind" value={count(totals.left_behind)} note="go on, not in the file" tone={totals.left_behind > 0 ? "warn" : undefined} />
        <Figure label="Changes" value={count(totals.changes)} note={`${count(totals.kept)} kept`} />
        <Figure label="Added" value={count(totals.adds)} />
        <Figure label="Removed" value={count(totals.removes)} />
      </dl>
      {refusals.map((reason) => <p key={reason} class="bad">it would be refused: {reason}</p>)}
      {needs_restart.length > 0 && <p class="warned">Read at start only: {needs_restart.join(", ")}</p>}
      <Table caption="Parts that differ" columns={columns} rows={differing} id={(part) => `${part.part} ${part.name}`} empty="It is the same as the configuration in force." />
    </div>
  );
}

const columns: Column<PlanPart>[] = [
  { title: "Part", wide: true, cell: (part) => <b>{part.part} {part.name}</b> },
  { title: "Change", cell: (part) => <State state={part.fate} /> },
  { title: "Keys", wide: true, cell: (part) => part.keys.join(", ") || "–" },
  { title: "Live", number: true, order: (part) => part.live ?? 0, cell: (part) => (part.live === null ? "–" : count(part.live)) },
  { title: "Effect", wide: true, cell: effect },
];

function effect({ closes, left_behind, live }: PlanPart): string {
  if (closes > 0) return `closes ${connections(closes)}`;
  if (left_behind > 0) return `${plural(left_behind, "connection")} go on behind it`;
  return live ? "touches none" : "–";
}
