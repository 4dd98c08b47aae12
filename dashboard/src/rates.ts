// Rates from counters: what has been added between two looks.

import type { Backend, Listener, Pool, Status } from "./api";

export interface Rates {
  // Connections a second.
  opened: number;
  refused: number;
  // Bytes a second.
  fromClients: number;
  fromBackends: number;
}

export const NO_RATES: Rates = { opened: 0, refused: 0, fromClients: 0, fromBackends: 0 };

// Keys of what has rates and a history.
export const listenerKey = (name: string): string => `listener ${name}`;
export const poolKey = (name: string): string => `pool ${name}`;
export const backendKey = ({ pool, name }: { pool: string; name: string }): string => `backend ${pool}/${name}`;

export function sum<Item>(items: Item[], value: (item: Item) => number): number {
  return items.reduce((all, item) => all + value(item), 0);
}

// Rates of a pool, which are those of its backends.
export function added(all: Rates[]): Rates {
  const of = (name: keyof Rates): number => sum(all, (one) => one[name]);
  return { opened: of("opened"), refused: of("refused"), fromClients: of("fromClients"), fromBackends: of("fromBackends") };
}

export class RateMeter {
  private at = 0;
  private totals = new Map<string, Rates>();

  // Forgets the totals: those of another process say nothing.
  forget(): void {
    this.totals.clear();
  }

  measure(status: Status, seconds: number): Map<string, Rates> {
    const totals = totalsOf(status);
    const past = seconds - this.at;
    const rates = new Map([...totals].map(([key, now]) => [key, between(this.totals.get(key), now, past)]));
    this.at = seconds;
    this.totals = totals;
    return rates;
  }
}

function between(before: Rates | undefined, now: Rates, seconds: number): Rates {
  if (!before || seconds <= 0) return NO_RATES;
  const of = (name: keyof Rates): number => Math.max(0, now[name] - before[name]) / seconds;
  return { opened: of("opened"), refused: of("refused"), fromClients: of("fromClients"), fromBackends: of("fromBackends") };
}

function totalsOf({ listeners, pools }: Status): Map<string, Rates> {
  const totals = new Map<string, Rates>();
  for (const one of listeners) totals.set(listenerKey(one.name), ofListener(one));
  for (const pool of pools) {
    totals.set(poolKey(pool.name), ofPool(pool));
    for (const backend of pool.backends) totals.set(backendKey(backend), ofBackend(backend));
  }
  return totals;
}

function ofListener(one: Listener): Rates {
  return { opened: one.accepted, refused: one.refused, fromClients: one.bytes_from_client, fromBackends: one.bytes_from_backend };
}

function ofBackend(one: Backend): Rates {
  return { opened: one.connections, refused: one.connect_failures, fromClients: one.bytes_from_client, fromBackends: one.bytes_from_backend };
}

function ofPool(pool: Pool): Rates {
  return { ...added(pool.backends.map(ofBackend)), refused: refusedBy(pool) };
}

// Connections that found no backend.
export function refusedBy(pool: Pool): number {
  return pool.refused_no_backend + pool.refused_full + pool.refused_queue_full + pool.queue_timeouts;
}

// Connections of the busiest backend beside its share by weight; null where there is none. 1 is even.
export function busiest(pool: Pool): number | null {
  const up = pool.backends.filter((one) => one.state === "up" && one.weight > 0 && !one.backup);
  const all = sum(up, (one) => one.live);
  const weights = sum(up, (one) => one.weight);
  if (all === 0) return null;
  return up.reduce((most, one) => Math.max(most, (one.live * weights) / (all * one.weight)), 0);
}
