// A table with sorting and paging; a list of cards on a phone.

import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import { count } from "./format";
import { Empty } from "./ui";

export interface Column<Row> {
  title: string;
  cell: (row: Row) => ComponentChildren;
  // Value to sort by; the column cannot be sorted without.
  order?: (row: Row) => string | number;
  number?: boolean;
  // Left out where the page is narrow.
  minor?: boolean;
  // Takes a line of its own on a phone.
  wide?: boolean;
}

const PAGE = 50;
const names = new Intl.Collator("en", { numeric: true });

interface Props<Row> {
  caption: string;
  columns: Column<Row>[];
  rows: Row[];
  id: (row: Row) => string;
  empty: ComponentChildren;
  tone?: (row: Row) => string;
}

interface Order {
  title: string;
  down: boolean;
}

export function Table<Row>({ caption, columns, rows, id, empty, tone }: Props<Row>): JSX.Element {
  const [order, setOrder] = useState<Order | null>(null);
  const [page, setPage] = useState(0);
  const last = Math.max(0, Math.ceil(rows.length / PAGE) - 1);
  const at = Math.min(page, last);
  const shown = sorted(rows, columns, order).slice(at * PAGE, (at + 1) * PAGE);
  if (rows.length === 0) return <Empty>{empty}</Empty>;
  return (
    <>
      <table role="table">
        <caption>{caption}</caption>
        <thead role="rowgroup">
          <tr role="row">{columns.map((column) => <Head key={column.title} column={column} order={order} set={setOrder} />)}</tr>
        </thead>
        <tbody role="rowgroup">
          {shown.map((row) => (
            <tr role="row" key={id(row)} data-id={id(row)} class={tone?.(row)}>
              {columns.map((column) => (
                <td role="cell" key={column.title} data-label={column.title} class={classes(column)}>{column.cell(row)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {last > 0 && (
        <nav class="pages" aria-label={`Pages of ${caption}`}>
          <button type="button" disabled={at === 0} onClick={() => setPage(at - 1)}>Previous</button>
          <span>{count(at * PAGE + 1)} to {count(at * PAGE + shown.length)} of {count(rows.length)}</span>
          <button type="button" disabled={at === last} onClick={() => setPage(at + 1)}>Next</button>
        </nav>
      )}
    </>
  );
}

function Head<Row>({ column, order, set }: { column: Column<Row>; order: Order | null; set: (order: Order) => void }): JSX.Element {
  const mine = order?.title === column.title ? order : null;
  const sorts = mine ? (mine.down ? "descending" : "ascending") : "none";
  // Numbers begin with the largest.
  const next = { title: column.title, down: mine ? !mine.down : column.number === true };
  return (
    <th role="columnheader" scope="col" class={classes(column)} aria-sort={column.order ? sorts : undefined}>
      {column.order ? <button type="button" onClick={() => set(next)}>{column.title}</button> : column.title}
    </th>
  );
}

function classes<Row>({ title, number, minor, wide }: Column<Row>): string {
  return [number && "number", minor && "minor", wide && "wide", title === "Actions" && "actions"].filter(Boolean).join(" ");
}

function sorted<Row>(rows: Row[], columns: Column<Row>[], order: Order | null): Row[] {
  const value = columns.find((column) => column.title === order?.title)?.order;
  if (!value || !order) return rows;
  const compare = (a: Row, b: Row): number => {
    const [left, right] = [value(a), value(b)];
    return typeof left === "number" && typeof right === "number" ? left - right : names.compare(String(left), String(right));
  };
  return rows.toSorted((a, b) => (order.down ? compare(b, a) : compare(a, b)));
}
