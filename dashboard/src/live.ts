// The state that the page shows, kept up to date: by server-sent events, and by polling where they do not come.

import { useEffect, useState } from "preact/hooks";
import type { Status } from "./api";
import { Refused, readSession, send, whenLoginIsNeeded } from "./client";
import { apply, tell, type Events, type Kind, type Note, type RatesEvent } from "./events";
import { History } from "./history";
import { NO_RATES, RateMeter, added, backendKey, listenerKey, poolKey, type Rates } from "./rates";

export type Link = "starting" | "live" | "polling" | "lost" | "login";

export interface LogLine extends Required<Note> {
  id: number;
  at: Date;
}

// Between two polls, where events do not come.
const POLL_MS = 1000;
// A tab that nobody sees asks less often.
const HIDDEN_MS = 10_000;
// Polls after which events are asked for again: as many as may view them did.
const POLLS_PER_TRY = 30;
// A stream without an event for so long has ended.
const SILENCE_MS = 10_000;
// Until the next try, after an answer failed.
const RETRY_MS = 2000;
// Totals that no event has are asked for this often.
const TOTALS_MS = 15_000;
// Events that ask for the state within this time ask once.
const GATHER_MS = 200;
// A line that comes again within this time is the same one.
const REPEAT_MS = 60_000;
const MAX_LOG = 500;
const KINDS: Kind[] = ["hello", "lost", "process", "backend", "check", "pool", "discovery", "listener", "gone", "reload", "job", "refusals", "cluster", "upgrade", "rates"];

class Live {
  link: Link = "starting";
  status: Status | null = null;
  log: LogLine[] = [];
  readonly history = new History();
  private rates = new Map<string, Rates>();
  private readonly meter = new RateMeter();
  private source: EventSource | null = null;
  private timer = 0;
  private asking = false;
  private heardAt = 0;
  private polls = 0;
  private lines = 0;
  private drawing = false;
  private readonly viewers = new Set<() => void>();

  start(): void {
    whenLoginIsNeeded(() => this.needLogin());
    void this.begin();
  }

  // Begins, also after a login and after a loss.
  async begin(): Promise<void> {
    this.stop();
    try {
      if (!(await readSession())) return this.needLogin();
      await this.load();
      if (this.link === "lost") this.note({ kind: "page", text: "the balancer answers again", tone: "good" });
      this.link = "polling";
      this.listen();
    } catch (error) {
      this.failed(error);
    }
    this.tell();
  }

  subscribe(viewer: () => void): () => void {
    this.viewers.add(viewer);
    return () => this.viewers.delete(viewer);
  }

  rate(key: string): Rates {
    return this.rates.get(key) ?? NO_RATES;
  }

  // Adds a line to the log. One that only repeats a line of the last minute is counted there.
  note({ kind, text, tone = "plain", times = 1 }: Note): void {
    const at = new Date();
    const before = this.log.find((line) => line.kind === kind && line.text === text && at.getTime() - line.at.getTime() < REPEAT_MS);
    if (before) {
      this.log = [{ ...before, at, times: before.times + times }, ...this.log.filter((line) => line !== before)];
      return;
    }
    this.lines += 1;
    this.log = [{ id: this.lines, at, kind, text, tone, times }, ...this.log].slice(0, MAX_LOG);
  }

  // Asks at once, after a change of ours.
  async refresh(): Promise<void> {
    try {
      await this.load();
    } catch (error) {
      this.failed(error);
    }
    this.tell();
  }

  private listen(): void {
    const source = new EventSource("/api/v1/events");
    this.source = source;
    for (const kind of KINDS) source.addEventListener(kind, (event) => this.heard(kind, JSON.parse((event as MessageEvent<string>).data)));
    source.onopen = () => {
      this.link = "live";
      this.heardAt = performance.now();
      this.later(TOTALS_MS);
      this.tell();
    };
    // Whether the balancer is gone, has no events or wants a login, an ordinary request finds out.
    source.onerror = () => {
      const isRefused = source.readyState === EventSource.CLOSED && this.link === "polling";
      source.close();
      if (this.source !== source) return;
      this.source = null;
      if (isRefused) this.later(POLL_MS);
      else void this.begin();
    };
  }

  private heard<K extends Kind>(kind: K, data: Events[K]): void {
    const { status } = this;
    if (!status) return;
    this.heardAt = performance.now();
    if (kind === "rates") this.takeRates(status, data as RatesEvent);
    for (const line of tell(status, kind, data)) this.note(line);
    if (apply(status, kind, data)) this.later(GATHER_MS);
    this.tell();
  }

  // Asks for the state after a while.
  private later(wait: number): void {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.look(), wait);
  }

  private async look(): Promise<void> {
    // Rates come every second: a stream without them has died unseen, as after a sleep of this machine.
    if (this.link === "live" && performance.now() - this.heardAt > SILENCE_MS) return this.begin();
    await this.refresh();
    if (this.link === "live") this.later(TOTALS_MS);
    if (this.link !== "polling") return;
    this.later(document.hidden ? HIDDEN_MS : POLL_MS);
    this.polls += 1;
    if (this.polls % POLLS_PER_TRY === 0 && !this.source) this.listen();
  }

  private async load(): Promise<void> {
    if (this.asking || this.link === "login") return;
    this.asking = true;
    try {
      const status = await send<Status>("GET", "/api/v1/status");
      const before = this.status?.process;
      if (before && (before.id !== status.process.id || before.started_at !== status.process.started_at)) {
        this.meter.forget();
        this.note({ kind: "page", text: `another process serves: ${status.process.id}, version ${status.version}`, tone: "warn" });
      }
      const rates = this.meter.measure(status, performance.now() / 1000);
      this.status = status;
      if (this.link === "live") return;
      this.rates = rates;
      this.sample(status);
    } finally {
      this.asking = false;
    }
  }

  private takeRates(status: Status, { connections, relayed_sessions, listeners, pools }: RatesEvent): void {
    Object.assign(status.process, { connections, relayed_sessions });
    for (const { name, live, accepted, refused, bytes_from_client, bytes_from_backend } of listeners) {
      const listener = status.listeners.find((one) => one.name === name);
      if (listener) listener.live = live;
      this.rates.set(listenerKey(name), { opened: accepted, refused, fromClients: bytes_from_client, fromBackends: bytes_from_backend });
    }
    for (const { name, queued, backends } of pools) {
      const pool = status.pools.find((one) => one.name === name);
      if (!pool) continue;
      pool.queued = queued;
      const known = new Map(pool.backends.map((backend) => [backend.name, backend]));
      for (const one of backends) {
        const backend = known.get(one.name);
        if (backend) backend.live = one.live;
        const rates = { opened: one.connections, refused: one.connect_failures, fromClients: one.bytes_from_client, fromBackends: one.bytes_from_backend };
        this.rates.set(backendKey({ pool: name, name: one.name }), rates);
      }
      this.rates.set(poolKey(name), added(pool.backends.map((backend) => this.rate(backendKey(backend)))));
    }
    this.sample(status);
  }

  private sample({ pools }: Status): void {
    const values = new Map<string, number>();
    for (const pool of pools) {
      let all = 0;
      for (const backend of pool.backends) {
        values.set(backendKey(backend), backend.live);
        all += backend.live;
      }
      values.set(poolKey(pool.name), all);
    }
    this.history.push(Date.now() / 1000, values);
  }

  private failed(error: unknown): void {
    if (this.link === "login") return;
    if (error instanceof Refused && error.status === 401) return this.needLogin();
    if (this.link !== "lost") {
      const why = error instanceof Error ? error.message : String(error);
      this.note({ kind: "page", text: `the connection is lost: ${why}`, tone: "bad" });
      this.history.gap(Date.now() / 1000);
    }
    this.stop();
    this.link = "lost";
    this.meter.forget();
    this.timer = window.setTimeout(() => void this.begin(), RETRY_MS);
  }

  private needLogin(): void {
    this.stop();
    this.link = "login";
    this.status = null;
    this.tell();
  }

  private stop(): void {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
    if (this.link === "login") this.link = "starting";
  }

  // Draws once, however much is heard before the next picture.
  private tell(): void {
    if (this.drawing) return;
    this.drawing = true;
    setTimeout(() => {
      this.drawing = false;
      for (const viewer of this.viewers) viewer();
    });
  }
}

export const live = new Live();

// Draws its component anew after each change of the state.
export function useLive(): Live {
  const [, redraw] = useState(0);
  useEffect(() => live.subscribe(() => redraw((times) => times + 1)), []);
  return live;
}
