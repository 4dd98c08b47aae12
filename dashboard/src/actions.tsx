// What an operator may do. Each asks first, and says how many live connections it touches.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Backend, Filter, Job, Listener, Pool } from "./api";
import { backendPath, conditions, countConnections, send } from "./client";
import { connections, count, duration, plural } from "./format";
import { live, useLive } from "./live";
import { sum } from "./rates";
import { Dialog, Field } from "./ui";

interface Operated {
  job: Job | null;
}

interface Close {
  code: string;
  reason: string;
}

const GOING_AWAY: Close = { code: "", reason: "" };
// What the balancer sends where a drain says nothing else.
const DEFAULT_CODE = "1012";

function started({ job }: Operated, otherwise: string): string {
  return job ? `job ${job.id} began: ${plural(job.left, "connection")} at ${job.pace}` : otherwise;
}

async function change(method: string, path: string, body: unknown, said: (answer: Operated) => string): Promise<string> {
  const answer = await send<Operated>(method, path, body);
  const text = said(answer);
  live.note({ kind: "action", text });
  await live.refresh();
  return text;
}

function where(local: boolean): string {
  return local ? "?local=true" : "";
}

function find({ pool, name }: Backend): Backend | undefined {
  return live.status?.pools.find((one) => one.name === pool)?.backends.find((one) => one.name === name);
}

function listener(name: string): Listener | undefined {
  return live.status?.listeners.find((one) => one.name === name);
}

function Touches({ children }: { children: ComponentChildren }): JSX.Element {
  return <p class="touches">{children}</p>;
}

// A state of a backend holds at all balancers of a cluster.
function Everywhere(): JSX.Element | null {
  const cluster = live.status?.cluster;
  if (!cluster?.share.includes("operator")) return null;
  return <p class="faint">It holds at all {count(cluster.members.length + 1)} balancers of {cluster.name}. The number is of this one.</p>;
}

type Pace = "pool" | "keep" | "rate" | "deadline";

// Drains a backend or a listener.
export function Drain({ of }: { of: { backend: Backend } | { listener: Listener } }): JSX.Element {
  useLive();
  const isBackend = "backend" in of;
  const [pace, setPace] = useState<Pace>(isBackend ? "pool" : "keep");
  const [speed, setSpeed] = useState("100/s");
  const [deadline, setDeadline] = useState("10m");
  const [close, setClose] = useState(GOING_AWAY);
  const name = isBackend ? `${of.backend.pool}/${of.backend.name}` : `listener ${of.listener.name}`;
  const path = isBackend ? backendPath(of.backend.pool, of.backend.name) : `/api/v1/listeners/${encodeURIComponent(of.listener.name)}`;
  const left = (isBackend ? find(of.backend)?.live : listener(of.listener.name)?.live) ?? 0;
  const ends = pace === "rate" || pace === "deadline";
  const body = {
    ...(pace === "keep" && isBackend ? { keep: true } : {}),
    ...(pace === "rate" ? { rate: speed } : {}),
    ...(pace === "deadline" ? { deadline } : {}),
    ...(ends ? withClose(close) : {}),
  };
  const act = (local: boolean): Promise<string> =>
    change("POST", `${path}/drain${where(local)}`, body, (answer) => `${name} is draining: ${started(answer, `${connections(left)} stay until they end`)}`);
  const option = (value: Pace, label: ComponentChildren): JSX.Element => (
    <label class="option">
      <input type="radio" name="pace" checked={pace === value} onChange={() => setPace(value)} />
      <span>{label}</span>
    </label>
  );
  return (
    <Dialog title={`Drain ${name}`} act={ends ? `Drain ${count(left)}` : "Drain"} danger={ends} onAct={act}>
      <Touches>
        No new connection. <b>{connections(left)}</b> {fate(pace, left, speed, deadline)}
      </Touches>
      {isBackend && <Everywhere />}
      <fieldset>
        <legend>Live connections</legend>
        {isBackend && option("pool", <>as the pool says: by its <code>drain</code>, or until they end</>)}
        {option("keep", "stay until they end by themselves")}
        {option("rate", <>end, or move where the pool has <code>resume</code>, at a rate of <input aria-label="Rate" size={7} value={speed} disabled={pace !== "rate"} required onInput={(event) => setSpeed(event.currentTarget.value)} /></>)}
        {option("deadline", <>the same, all within <input aria-label="Deadline" size={7} value={deadline} disabled={pace !== "deadline"} required onInput={(event) => setDeadline(event.currentTarget.value)} /></>)}
      </fieldset>
      {ends && <Goodbye close={close} set={setClose} />}
    </Dialog>
  );
}

function fate(pace: Pace, left: number, speed: string, deadline: string): string {
  if (pace === "rate") return `end or move at ${speed}${about(left, speed)}, quiet ones first.`;
  if (pace === "deadline") return `end or move within ${deadline}, quiet ones first.`;
  return pace === "keep" ? "stay until they end by themselves." : "end as the pool's drain says, or stay.";
}

function about(left: number, speed: string): string {
  const [, number, unit] = /^(\d+)\/(s|m|h)$/.exec(speed) ?? [];
  if (!number || left === 0) return "";
  const seconds = (left / Number(number)) * (unit === "s" ? 1 : unit === "m" ? 60 : 3600);
  return `, which takes about ${duration(Math.ceil(seconds))}`;
}

function withClose({ code, reason }: Close): { close?: { code?: number; reason?: string } } {
  if (!code && !reason) return {};
  return { close: { ...(code ? { code: Number(code) } : {}), ...(reason ? { reason } : {}) } };
}

// Code and reason that a WebSocket's client is told.
function Goodbye({ close, set }: { close: Close; set: (close: Close) => void }): JSX.Element {
  return (
    <div class="fields">
      <Field label="Close code" hint="of WebSockets">
        {(id) => <input id={id} size={6} inputMode="numeric" pattern="[0-9]{4}" placeholder={DEFAULT_CODE} value={close.code} onInput={(event) => set({ ...close, code: event.currentTarget.value })} />}
      </Field>
      <Field label="Reason" hint="at most 123 bytes">
        {(id) => <input id={id} maxLength={123} placeholder="deploy" value={close.reason} onInput={(event) => set({ ...close, reason: event.currentTarget.value })} />}
      </Field>
    </div>
  );
}

export function Ready({ of }: { of: { backend: Backend } | { listener: Listener } }): JSX.Element {
  useLive();
  const isBackend = "backend" in of;
  const name = isBackend ? `${of.backend.pool}/${of.backend.name}` : `listener ${of.listener.name}`;
  const path = isBackend ? backendPath(of.backend.pool, of.backend.name) : `/api/v1/listeners/${encodeURIComponent(of.listener.name)}`;
  const left = (isBackend ? find(of.backend)?.live : listener(of.listener.name)?.live) ?? 0;
  const act = (local: boolean): Promise<string> => change("POST", `${path}/ready${where(local)}`, {}, () => `${name} is ready`);
  return (
    <Dialog title={`Make ${name} ready`} act="Ready" onAct={act}>
      <Touches>It takes new connections again. <b>{connections(left)}</b> stay, and a job that ends them is aborted.</Touches>
      {isBackend && <Everywhere />}
    </Dialog>
  );
}

export function Maint({ backend }: { backend: Backend }): JSX.Element {
  useLive();
  const name = `${backend.pool}/${backend.name}`;
  const left = find(backend)?.live ?? 0;
  const act = (local: boolean): Promise<string> => change("POST", `${backendPath(backend.pool, backend.name)}/maint${where(local)}`, {}, () => `${name} is in maintenance`);
  return (
    <Dialog title={`Take ${name} out of service`} act="Maintenance" onAct={act}>
      <Touches>No new connection and no check. <b>{connections(left)}</b> stay until they end by themselves.</Touches>
      <Everywhere />
    </Dialog>
  );
}

export function Weight({ backend }: { backend: Backend }): JSX.Element {
  useLive();
  const name = `${backend.pool}/${backend.name}`;
  const [weight, setWeight] = useState(String(backend.weight));
  const left = find(backend)?.live ?? 0;
  const set = weight === "" ? null : Number(weight);
  const said = set === null ? `${name} has its configured weight` : `${name} has weight ${set}`;
  const act = (local: boolean): Promise<string> => change("PUT", `${backendPath(backend.pool, backend.name)}/weight${where(local)}`, { weight: set }, () => said);
  return (
    <Dialog title={`Weight of ${name}`} act="Set weight" onAct={act}>
      <Touches>New connections follow it. <b>{connections(left)}</b> stay, unless the pool has <code>rebalance</code>.</Touches>
      <Everywhere />
      <Field label="Weight" hint="0 to 256; empty: as configured. Holds until a restart.">
        {(id) => <input id={id} type="number" min={0} max={256} value={weight} onInput={(event) => setWeight(event.currentTarget.value)} />}
      </Field>
    </Dialog>
  );
}

// Ends, or moves to other backends, the connections that a filter finds.
export function Gather({ filter, move }: { filter: Filter; move: boolean }): JSX.Element {
  const [found, setFound] = useState<number | null>(null);
  const [speed, setSpeed] = useState("50/s");
  const [close, setClose] = useState(GOING_AWAY);
  const key = JSON.stringify(filter);
  useEffect(() => {
    let current = true;
    countConnections(filter).then((counted) => current && setFound(counted), () => current && setFound(null));
    return () => {
      current = false;
    };
  }, [key]);
  const meant = conditions(filter);
  const what = meant.length ? meant.map(([name, value]) => `${name} ${value}`).join(", ") : "all connections";
  const body = { ...(meant.length ? { filter: Object.fromEntries(meant) } : { all: true }), rate: speed, ...(move ? {} : withClose(close)) };
  const act = async (): Promise<string> => {
    const job = await send<Job>("POST", `/api/v1/connections/${move ? "move" : "close"}`, body);
    const text = `job ${job.id} ${move ? "moves" : "ends"} ${plural(job.left, "connection")} at ${job.pace}`;
    live.note({ kind: "action", text });
    await live.refresh();
    return text;
  };
  const number = found === null ? "…" : count(found);
  const verb = move ? "Move" : "Close";
  return (
    <Dialog title={`${verb} connections`} act={`${verb} ${number}`} danger={!move} disabled={found === null} onAct={act}>
      <Touches>
        <b>{found === null ? "…" : connections(found)}</b> match: {what}. {move ? "Each gets another backend where its pool has resume; the others stay." : `Each is closed${about(found ?? 0, speed)}.`}
      </Touches>
      <Field label="Rate" hint="as in 50/s">
        {(id) => <input id={id} size={8} required value={speed} onInput={(event) => setSpeed(event.currentTarget.value)} />}
      </Field>
      {!move && <Goodbye close={close} set={setClose} />}
    </Dialog>
  );
}

export function CloseOne({ id, client, done }: { id: number; client: string; done: () => void }): JSX.Element {
  const act = async (): Promise<string> => {
    await send("DELETE", `/api/v1/connections/${id}`);
    done();
    live.note({ kind: "action", text: `connection ${id} of ${client} was closed` });
    return `connection ${id} was closed`;
  };
  return (
    <Dialog title={`Close connection ${id}`} act="Close 1" danger onAct={act}>
      <Touches><b>1 live connection</b>, of {client}.</Touches>
    </Dialog>
  );
}

export function Abort({ job }: { job: Job }): JSX.Element {
  useLive();
  const left = live.status?.jobs.find((one) => one.id === job.id)?.left ?? job.left;
  const act = (): Promise<string> => change("POST", `/api/v1/jobs/${job.id}/abort`, {}, () => `job ${job.id} was aborted`);
  return (
    <Dialog title={`Abort job ${job.id}`} act="Abort the job" danger onAct={act}>
      <Touches><b>{connections(left)}</b> of {job.target} stay. States of backends and listeners stay as well.</Touches>
    </Dialog>
  );
}

export function AcceptDiscovery({ pool }: { pool: Pool }): JSX.Element {
  useLive();
  const touched = sum(pool.backends, (backend) => backend.live);
  const path = `/api/v1/pools/${encodeURIComponent(pool.name)}/discover/accept`;
  const act = (): Promise<string> => change("POST", path, {}, () => `the held answer for ${pool.name} was accepted`);
  return (
    <Dialog title={`Believe ${pool.discovery?.source}`} act="Accept the answer" danger onAct={act}>
      <Touches>
        It lists {plural(pool.discovery?.held ?? 0, "backend")}; the pool has {count(pool.backends.length)} with <b>{connections(touched)}</b>.
        Backends that are missing in it get no new connections.
      </Touches>
    </Dialog>
  );
}
