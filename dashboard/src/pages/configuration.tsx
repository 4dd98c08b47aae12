// The configuration in force, a reload, and a plan: what a file would do to how many live connections.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Plan, Status } from "../api";
import { mayAct, send } from "../client";
import { count, moment } from "../format";
import { Effect, Reload } from "../reload";
import { Card, Failure, ask } from "../ui";

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
        {plan && <Effect plan={plan} />}
      </div>
    </Card>
  );
}
