// The balancers of a cluster, and the states that hold at all of them.

import type { JSX } from "preact";
import type { Cluster, Member, SharedState, Status } from "../api";
import { age, count, plural } from "../format";
import { sum } from "../rates";
import { link } from "../route";
import { Table, type Column } from "../table";
import { Card, Empty, Figure, State } from "../ui";

export function ClusterPage({ status }: { status: Status }): JSX.Element {
  const { cluster } = status;
  if (!cluster) return <><h1>Cluster</h1><Empty>This balancer is in no cluster.</Empty></>;
  const own = sum(status.pools, (pool) => sum(pool.backends, (backend) => backend.live));
  const others = sum(cluster.members, (member) => member.connections);
  return (
    <>
      <h1><span>Cluster</span> {cluster.name} <small>this is {cluster.id}</small></h1>
      <dl class="figures">
        <Figure label="Balancers" value={count(cluster.members.length + 1)} note="with this one" />
        <Figure label="Connections" value={count(own + others)} note={`${count(own)} of them here`} />
        <Figure label="Store" value={cluster.alone ? "away" : "answers"} note={cluster.store} tone={cluster.alone ? "bad" : undefined} />
        <Figure label="Latest exchange" value={cluster.age_seconds === null ? "none" : `${age(cluster.age_seconds)} ago`} note={`${count(cluster.failures)} of ${count(cluster.exchanges + cluster.failures)} failed`} />
      </dl>
      {cluster.last_error && <p class="bad">{cluster.last_error}</p>}
      <Card title="The other balancers" flush>
        <Table caption="Members" columns={memberColumns} rows={cluster.members} id={(one) => one.id} empty="No other balancer has been heard." />
      </Card>
      <Card title="States that hold at all" flush>
        <Table caption="Shared states" columns={stateColumns} rows={cluster.states} id={(one) => `${one.pool}/${one.backend}`} empty="None is set." />
      </Card>
    </>
  );
}

// What of it needs a look.
export function clusterConcerns(cluster: Cluster): string[] {
  const found: string[] = [];
  if (cluster.alone) found.push(`the store of the cluster does not answer: ${cluster.last_error ?? cluster.store}`);
  if (cluster.same_id) found.push(`another balancer of the cluster is called ${cluster.id}, too`);
  if (cluster.rejected > 0) found.push(`${plural(cluster.rejected, "value")} in the store of the cluster did not have its secret`);
  return found;
}

const memberColumns: Column<Member>[] = [
  { title: "Balancer", wide: true, order: (one) => one.id, cell: (one) => <b>{one.id}</b> },
  { title: "State", cell: (one) => <State state={one.up_to_date ? "up to date" : "behind"} /> },
  { title: "Connections", number: true, order: (one) => one.connections, cell: (one) => count(one.connections) },
  { title: "Heard", number: true, order: (one) => one.age_seconds, cell: (one) => `${age(one.age_seconds)} ago` },
];

const stateColumns: Column<SharedState>[] = [
  { title: "Backend", wide: true, order: (one) => `${one.pool}/${one.backend}`, cell: (one) => <b><a href={link("pools", one.pool)}>{one.pool}/</a>{one.backend}</b> },
  { title: "State", cell: (one) => <State state={one.state} /> },
  { title: "Set on", order: (one) => one.by, cell: (one) => one.by },
  { title: "Revision", number: true, order: (one) => one.revision, cell: (one) => count(one.revision) },
];
