// Events of the admin endpoint: their shapes, what each changes in the state, and how each is told.

import type { Backend, Cluster, Configuration, Discovery, Job, Listener, Pool, Process, Status } from "./api";
import { count, plural, words } from "./format";

export interface Events {
  hello: { process: number; version: string; configuration: number; resumed: boolean };
  lost: object;
  process: Pick<Process, "ready" | "about_to_stop" | "short_of_memory">;
  backend: Backend & { from: string | null; changes: number };
  check: { pool: string; backend: string; check: string; reason: string; failed: number };
  pool: Pool;
  discovery: { pool: string; discovery?: Discovery; failing_lookups: Pool["failing_lookups"] };
  listener: Listener & { from: string | null };
  gone: { part: "backend" | "pool" | "listener"; name: string };
  reload: { ok: boolean; error: string | null } & Pick<Configuration, "number" | "hash">;
  job: Job;
  refusals: { refusals: { listener: string; reason: string; count: number; total: number }[] };
  cluster: { cluster?: Cluster | null };
  upgrade: { handing_over: boolean; last_error: string[] };
  rates: RatesEvent;
}

export type Kind = keyof Events;

export interface RatesEvent {
  connections: number;
  relayed_sessions: number;
  listeners: { name: string; live: number; accepted: number; refused: number; bytes_from_client: number; bytes_from_backend: number }[];
  pools: {
    name: string;
    live: number;
    queued: number;
    backends: { name: string; live: number; connections: number; connect_failures: number; bytes_from_client: number; bytes_from_backend: number }[];
  }[];
}

export type Tone = "plain" | "good" | "warn" | "bad";

// A line of the log.
export interface Note {
  kind: string;
  text: string;
  tone?: Tone;
  // How often it happened.
  times?: number;
}

const RUNNING = ["waiting", "ending"];

// Puts what an event says into the state. True: the state does not know all that follows from it, and is to be asked for.
export function apply<K extends Kind>(status: Status, kind: K, data: Events[K]): boolean {
  const event = { kind, data } as { [Each in Kind]: { kind: Each; data: Events[Each] } }[Kind];
  switch (event.kind) {
    case "process":
      Object.assign(status.process, event.data);
      return false;
    case "backend":
      return !replace(status.pools.find((pool) => pool.name === event.data.pool)?.backends, event.data);
    case "pool":
      return !merge(status.pools, event.data);
    case "discovery": {
      const pool = status.pools.find((one) => one.name === event.data.pool);
      if (pool) Object.assign(pool, { discovery: event.data.discovery, failing_lookups: event.data.failing_lookups });
      return !pool;
    }
    case "listener":
      return !replace(status.listeners, event.data);
    case "job":
      status.jobs = status.jobs.filter((job) => job.id !== event.data.id);
      if (RUNNING.includes(event.data.phase)) status.jobs.push(event.data);
      status.jobs.sort((a, b) => a.id - b.id);
      return false;
    case "refusals":
      for (const { listener, reason, count, total } of event.data.refusals) {
        const found = status.listeners.find((one) => one.name === listener);
        if (!found) return true;
        const refusal = found.refusals.find((one) => one.reason === reason);
        if (refusal) refusal.count = total;
        else found.refusals.push({ reason, count: total });
        found.refused += count;
      }
      return false;
    case "cluster":
      status.cluster = event.data.cluster ?? null;
      return false;
    case "gone":
    case "reload":
    case "upgrade":
    case "lost":
      return true;
    case "hello":
      return !event.data.resumed;
    default:
      return false;
  }
}

function replace<Item extends { name: string }>(items: Item[] | undefined, item: Item): boolean {
  const at = items?.findIndex((one) => one.name === item.name) ?? -1;
  if (!items || at < 0) return false;
  items[at] = item;
  return true;
}

// A pool's event comes without its backends.
function merge(pools: Pool[], pool: Pool): boolean {
  const found = pools.find((one) => one.name === pool.name);
  if (!found) return false;
  Object.assign(found, { ...pool, backends: found.backends });
  return true;
}

// Lines of the log for an event; `before` is the state without it.
export function tell<K extends Kind>(before: Status, kind: K, data: Events[K]): Note[] {
  const event = { kind, data } as { [Each in Kind]: { kind: Each; data: Events[Each] } }[Kind];
  const line = (text: string, tone: Tone = "plain"): Note[] => [{ kind: event.kind, text, tone }];
  switch (event.kind) {
    case "backend":
      return line(...ofBackend(event.data));
    case "check": {
      const { pool, backend, check, reason } = event.data;
      return line(`check of ${pool}/${backend}: ${check}${reason && `, ${reason}`}`, check === "down" ? "warn" : "plain");
    }
    case "discovery":
      return line(`discovery of ${event.data.pool} is ${event.data.discovery?.state ?? (event.data.failing_lookups.length ? "failing" : "good")}`);
    case "listener":
      return event.data.from === event.data.state ? [] : line(`listener ${event.data.name} is ${event.data.state}`, event.data.state === "listening" ? "good" : "warn");
    case "gone":
      return line(`${event.data.part} ${event.data.name} is gone`);
    case "reload":
      return event.data.ok ? line(`the configuration was loaded: version ${event.data.number}`, "good") : line(`a reload was refused: ${event.data.error}`, "bad");
    case "job":
      return ofJob(before, event.data, line);
    case "refusals":
      return event.data.refusals.map(({ listener, reason, count: times }) => ({ kind: event.kind, text: `${listener} refuses: ${words(reason)}`, tone: "warn", times }));
    case "process":
      return event.data.short_of_memory ? line("new connections are refused for lack of memory", "bad") : event.data.about_to_stop || !event.data.ready ? line("the process is about to stop", "warn") : [];
    case "cluster":
      return ofCluster(before.cluster, event.data.cluster).flatMap(([text, tone]) => line(text, tone));
    case "upgrade":
      return event.data.handing_over ? line("an upgrade hands over to a new process", "warn") : event.data.last_error.length ? line(`an upgrade failed: ${event.data.last_error.join("; ")}`, "bad") : [];
    case "lost":
      return line("this page was too slow and has missed events");
    default:
      return [];
  }
}

function ofBackend({ pool, name, from, state, reason, changes }: Events["backend"]): [string, Tone] {
  const tone: Tone = state === "up" ? "good" : state === "down" ? "bad" : "warn";
  const why = reason && `, ${reason}`;
  if (from === null) return [`${pool}/${name} is new: ${state}${why}`, tone];
  if (from === state) return [`${pool}/${name} is ${state}${why}`, "plain"];
  return [`${pool}/${name}: from ${from} to ${state}${why}${changes > 1 ? `; ${changes} changes` : ""}`, tone];
}

function ofCluster(before: Cluster | null | undefined, now: Cluster | null | undefined): [string, Tone][] {
  if (!now) return [["this balancer is in no cluster any more", "warn"]];
  const [old, members] = [before?.members ?? [], now.members].map((some) => some.map((member) => member.id)) as [string[], string[]];
  const told: [string, Tone][] = [];
  for (const id of members) if (!old.includes(id)) told.push([`balancer ${id} is in the cluster`, "good"]);
  for (const id of old) if (!members.includes(id)) told.push([`balancer ${id} is not heard any more`, "warn"]);
  if (now.alone !== before?.alone) told.push(now.alone ? ["the store of the cluster is lost", "bad"] : ["the store of the cluster answers", "good"]);
  return told;
}

function ofJob(before: Status, job: Job, line: (text: string, tone?: Tone) => Note[]): Note[] {
  const known = before.jobs.some((one) => one.id === job.id);
  const runs = RUNNING.includes(job.phase);
  const verb = job.moves ? "moves" : "ends";
  if (runs && !known) return line(`job ${job.id} ${verb} ${plural(job.left, "connection")} of ${job.target} at ${job.pace}`);
  if (!runs) return line(`job ${job.id} of ${job.target} is ${job.phase}: ${count(job.ended)} ${job.moves ? "moved" : "ended"}, ${count(job.left)} left`, job.phase === "done" ? "good" : "warn");
  return [];
}
