// Jobs that end or move live connections.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Abort } from "../actions";
import type { Job, Status } from "../api";
import { mayAct, send } from "../client";
import { count, duration, moment } from "../format";
import { Table, type Column } from "../table";
import { Bar, Card, State, ask } from "../ui";

const RUNNING = ["waiting", "ending"];

export function JobsPage({ status }: { status: Status }): JSX.Element {
  const [jobs, setJobs] = useState<Job[]>([]);
  const key = status.jobs.map(({ id, phase }) => `${id} ${phase}`).join();
  useEffect(() => {
    send<{ jobs: Job[] }>("GET", "/api/v1/jobs").then((answer) => setJobs(answer.jobs), () => {});
  }, [key]);
  const newest = new Map([...jobs, ...status.jobs].map((job) => [job.id, job]));
  const running = status.jobs;
  const over = [...newest.values()].filter((job) => !running.some((one) => one.id === job.id)).sort((a, b) => b.id - a.id);
  return (
    <>
      <h1>Jobs</h1>
      <Card title="Under way" flush><JobTable jobs={running} /></Card>
      <Card title="Latest that are over" flush><JobTable jobs={over} /></Card>
    </>
  );
}

export function JobTable({ jobs }: { jobs: Job[] }): JSX.Element {
  return <Table caption="Jobs" columns={columns} rows={jobs} id={(job) => String(job.id)} empty="None." />;
}

const columns: Column<Job>[] = [
  {
    title: "Job",
    wide: true,
    order: (job) => job.id,
    cell: (job) => (
      <span class="name"><span>
        <b>{job.moves ? "move" : "end"} {job.target}</b>
        <small title={moment(job.started_at)}>job {job.id}, by {job.by}, {job.pace}{job.moves || `, Close ${job.code}`}</small>
      </span></span>
    ),
  },
  { title: "State", order: (job) => job.phase, cell: (job) => <State state={job.phase} /> },
  { title: "Progress", wide: true, cell: progress },
  { title: "Left", number: true, order: (job) => job.left, cell: (job) => count(job.left) },
  { title: "Over in", number: true, cell: (job) => (RUNNING.includes(job.phase) && job.left_seconds !== null ? duration(job.left_seconds) : "–") },
  { title: "Actions", wide: true, cell: (job) => (RUNNING.includes(job.phase) && maySee(job) ? <button type="button" aria-label={`Abort job ${job.id}`} onClick={() => ask(<Abort job={job} />)}>Abort</button> : null) },
];

function maySee({ target }: Job): boolean {
  const at = target.indexOf("/");
  return mayAct(target.slice(0, at), target.slice(at + 1));
}

function progress({ ended, left }: Job): JSX.Element {
  const all = ended + left;
  return (
    <span class="share">
      <Bar part={all > 0 ? ended / all : 1} tone="c0" />
      {count(ended)} of {count(all)}
    </span>
  );
}
