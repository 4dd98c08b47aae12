// What a reload does: its effect as a plan has it, and the reload itself.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Plan, PlanPart } from "./api";
import { send } from "./client";
import { connections, count, plural } from "./format";
import { live, useLive } from "./live";
import { Table, type Column } from "./table";
import { Dialog, Failure, Figure, State } from "./ui";

// Loads the file on the balancer's disk; shows before what that would do.
export function Reload(): JSX.Element {
  useLive();
  const [careful, setCareful] = useState(true);
  const [plan, setPlan] = useState<Plan | null>(null);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    send<Plan>("GET", "/api/v1/configuration/plan").then(setPlan, setError);
  }, []);
  const all = live.status?.process.connections ?? 0;
  const act = async (): Promise<string> => {
    const { summary } = await send<{ summary: string[] }>("POST", "/api/v1/reload", careful ? { if: ["closes=0"] } : {});
    for (const text of summary) live.note({ kind: "reload", text });
    await live.refresh();
    return summary.length ? `reloaded: ${plural(summary.length, "change")}` : "reloaded: nothing has changed";
  };
  return (
    <Dialog title="Reload the configuration" act="Reload" disabled={error !== null} onAct={act}>
      <p class="touches">
        Loads <code>{live.status?.configuration.file}</code> from disk. Of <b>{connections(all)}</b> it closes <b>{plan ? count(plan.totals.closes) : "…"}</b>. A file with errors changes nothing.
      </p>
      {plan && <Effect plan={plan} />}
      <Failure error={error} />
      <label class="option">
        <input type="checkbox" checked={careful} onChange={(event) => setCareful(event.currentTarget.checked)} />
        <span>only if it closes no live connection</span>
      </label>
    </Dialog>
  );
}

export function Effect({ plan }: { plan: Plan }): JSX.Element {
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
  { title: "Effect", wide: true, cell: touched },
];

function touched({ closes, left_behind, live }: PlanPart): string {
  if (closes > 0) return `closes ${connections(closes)}`;
  if (left_behind > 0) return `${plural(left_behind, "connection")} go on behind it`;
  return live ? "touches none" : "–";
}
