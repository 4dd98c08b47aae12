// One pool: its balance over time, its backends, where they come from.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { AcceptDiscovery } from "../actions";
import type { Pool, Status } from "../api";
import { Backends } from "../backends";
import { BalanceChart, MAX_DRAWN } from "../chart";
import { mayAct } from "../client";
import { age, bytes, count, plural, rate } from "../format";
import { live } from "../live";
import { busiest, refusedBy, sum } from "../rates";
import { link } from "../route";
import { Card, Empty, Figure, State, ask } from "../ui";

export function PoolPage({ status, name }: { status: Status; name: string }): JSX.Element {
  const [share, setShare] = useState(true);
  const pool = status.pools.find((one) => one.name === name);
  if (!pool) return <><h1>No pool {name}</h1><Empty><a href={link("overview")}>All pools</a></Empty></>;
  const drawn = pool.backends.length <= MAX_DRAWN;
  return (
    <>
      <h1><span>Pool</span> {pool.name} <small>{pool.balance}</small></h1>
      <Figures pool={pool} />
      <Card
        title={drawn ? "Balance" : "Balance: connections of a backend"}
        side={drawn && (
          <span class="switch" role="group" aria-label="Show">
            <button type="button" aria-pressed={share} onClick={() => setShare(true)}>share</button>
            <button type="button" aria-pressed={!share} onClick={() => setShare(false)}>connections</button>
          </span>
        )}
      >
        <BalanceChart pool={pool} share={share} />
      </Card>
      <Card title="Backends" flush><Backends pools={[pool]} caption={`Backends of ${pool.name}`} /></Card>
      {pool.discovery && <Discovery pool={pool} />}
    </>
  );
}

function Figures({ pool }: { pool: Pool }): JSX.Element {
  const all = sum(pool.backends, (backend) => backend.live);
  const up = pool.backends.filter((backend) => backend.state === "up");
  const most = busiest(pool);
  const rates = live.rate(`pool ${pool.name}`);
  return (
    <dl class="figures">
      <Figure label="Live" value={count(all)} note={`on ${plural(pool.backends.length, "backend")}`} />
      <Figure label="Up" value={count(up.length)} note={`of ${count(pool.backends.length)}`} tone={up.length === 0 ? "bad" : up.length < pool.backends.length ? "warn" : undefined} />
      <Figure label="Busiest" value={most === null ? "–" : `${most.toFixed(2)} ×`} note="its share by weight" />
      <Figure label="New" value={`${rate(rates.opened)}/s`} />
      <Figure label="From clients" value={`${bytes(rates.fromClients)}/s`} />
      <Figure label="From backends" value={`${bytes(rates.fromBackends)}/s`} />
      <Figure label="Queued" value={count(pool.queued)} tone={pool.queued > 0 ? "warn" : undefined} />
      <Figure label="No backend for" value={count(refusedBy(pool))} note={`${count(pool.retries)} retries`} />
    </dl>
  );
}

function Discovery({ pool }: { pool: Pool }): JSX.Element | null {
  const found = pool.discovery;
  if (!found) return null;
  const side = found.held !== null && mayAct() && <button type="button" onClick={() => ask(<AcceptDiscovery pool={pool} />)}>Accept the held answer</button>;
  return (
    <Card title="Discovery" side={side}>
      <dl class="facts">
        <dt>source</dt><dd>{found.source}</dd>
        <dt>state</dt><dd><State state={found.state} /></dd>
        <dt>last good answer</dt><dd>{found.age_seconds === null ? "none yet" : `${age(found.age_seconds)} ago`}{found.revision && `, revision ${found.revision}`}</dd>
        <dt>lists</dt><dd>{count(found.ready)} ready, {count(found.drain)} draining, {count(found.absent)} absent</dd>
        {found.skipped > 0 && <><dt>skipped</dt><dd>{count(found.skipped)}: {found.first_skipped}</dd></>}
        {found.held !== null && <><dt>held</dt><dd>an answer of {plural(found.held, "backend")}, as it takes too much away</dd></>}
      </dl>
    </Card>
  );
}
