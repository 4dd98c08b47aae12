// Backends of all pools.

import type { JSX } from "preact";
import type { Status } from "../api";
import { Backends } from "../backends";
import { Card } from "../ui";

export function BackendsPage({ status }: { status: Status }): JSX.Element {
  return (
    <>
      <h1>Backends</h1>
      <Card title="All pools" flush><Backends pools={status.pools} caption="Backends of all pools" /></Card>
    </>
  );
}
