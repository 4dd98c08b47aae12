//! Rows of the views of `evenkeel top`: what stands in each cell, and by what it is sorted.

use std::cmp::Ordering;
use std::fmt;

use super::model::View;
use super::rates::{Counted, RateTable, refused, short};
use crate::admin::view::{BackendView, JobView, ListenerView, PoolView, StatusView};
use crate::cli::client::jobs;
use crate::cli::client::layout::clean;

/// The object of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Backend(String, String),
    Pool(String),
    Listener(String),
    Job(u64),
}

impl Subject {
    pub(super) fn can_be_drained(&self) -> bool {
        matches!(self, Subject::Backend(..) | Subject::Listener(_))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Backend(pool, name) => write!(f, "{}/{}", clean(pool), clean(name)),
            Subject::Pool(name) => write!(f, "pool {}", clean(name)),
            Subject::Listener(name) => write!(f, "listener {}", clean(name)),
            Subject::Job(id) => write!(f, "job {id}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Text(String),
    /// A word with a colour of its own.
    State(String),
    Number(f64),
    Percent(Option<f64>),
    /// Sorted by the number, shown as the text.
    Amount(f64, String),
}

impl Cell {
    fn text(text: &str) -> Cell {
        Cell::Text(clean(text))
    }

    fn count(count: u64) -> Cell {
        // Beyond 2^53 nobody counts connections.
        Cell::Amount(count as f64, count.to_string())
    }

    pub(super) fn is_number(&self) -> bool {
        !matches!(self, Cell::Text(_) | Cell::State(_))
    }

    pub(super) fn shown(&self) -> String {
        match self {
            Cell::Text(text) | Cell::State(text) | Cell::Amount(_, text) => text.clone(),
            Cell::Number(number) => short(*number),
            Cell::Percent(None) => "-".to_owned(),
            Cell::Percent(Some(percent)) => format!("{percent:.0}%"),
        }
    }

    fn order(&self, other: &Cell) -> Ordering {
        match (self.value(), other.value()) {
            (Some(one), Some(other)) => one.total_cmp(&other),
            _ => self.shown().cmp(&other.shown()),
        }
    }

    fn value(&self) -> Option<f64> {
        match self {
            Cell::Text(_) | Cell::State(_) => None,
            Cell::Number(number) | Cell::Amount(number, _) => Some(*number),
            Cell::Percent(percent) => Some(percent.unwrap_or(-1.0)),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub subject: Subject,
    /// Connections that a command would be about.
    pub live: u64,
    pub cells: Vec<Cell>,
}

/// The rows of a view under their head.
#[derive(Debug)]
pub(super) struct Rows {
    pub head: &'static [&'static str],
    pub rows: Vec<Row>,
}

const BACKENDS: &[&str] = &[
    "BACKEND", "STATE", "WEIGHT", "LIVE", "BALANCE", "CONN/s", "FAIL/s", "IN/s", "OUT/s", "REASON",
];
const POOLS: &[&str] = &[
    "POOL", "UP", "LIVE", "QUEUED", "CONN/s", "REF/s", "RETRY/s", "IN/s", "OUT/s", "REMARK",
];
const LISTENERS: &[&str] = &[
    "LISTENER", "STATE", "LIVE", "CONN/s", "REQ/s", "REF/s", "IN/s", "OUT/s", "REFUSED", "MOSTLY",
];
const JOBS: &[&str] = &["JOB", "BY", "ON", "PHASE", "DONE", "LEFT", "ETA", "PACE"];

impl Rows {
    pub(super) fn none(view: View) -> Rows {
        let head = match view {
            View::Backends => BACKENDS,
            View::Pools => POOLS,
            View::Listeners => LISTENERS,
            View::Jobs => JOBS,
        };
        Rows {
            head,
            rows: Vec::new(),
        }
    }

    pub(super) fn of(view: View, status: &StatusView, rates: &RateTable) -> Rows {
        let rows = match view {
            View::Backends => {
                let pools = status.pools.iter();
                pools.flat_map(|pool| backends(pool, rates)).collect()
            }
            View::Pools => status.pools.iter().map(|one| pool(one, rates)).collect(),
            View::Listeners => {
                let listeners = status.listeners.iter();
                listeners.map(|one| listener(one, rates)).collect()
            }
            View::Jobs => status.jobs.iter().map(job).collect(),
        };
        Rows {
            rows,
            ..Rows::none(view)
        }
    }

    /// Keeps the rows with this text in a word of theirs, whatever its case.
    pub(super) fn filter(&mut self, text: &str) {
        let text = text.to_lowercase();
        let fits = |cell: &Cell| !cell.is_number() && cell.shown().to_lowercase().contains(&text);
        self.rows
            .retain(|row| text.is_empty() || row.cells.iter().any(fits));
    }

    /// Sorts by a column. Rows that are as large stay in the order of the file.
    pub(super) fn sort(&mut self, column: usize, is_reversed: bool) {
        self.rows.sort_by(|one, other| {
            let (Some(one), Some(other)) = (one.cells.get(column), other.cells.get(column)) else {
                return Ordering::Equal;
            };
            if is_reversed {
                other.order(one)
            } else {
                one.order(other)
            }
        });
    }
}

fn backends(pool: &PoolView, rates: &RateTable) -> Vec<Row> {
    let takes = |one: &&BackendView| one.state == "up" && !one.removed;
    let (mut weights, mut live) = (0, 0);
    for one in pool.backends.iter().filter(takes) {
        weights += u64::from(one.weight);
        live += one.live;
    }
    let row = |one: &BackendView| {
        let rates = rates.of(&Counted::Backend(one.pool.clone(), one.name.clone()));
        let subject = Subject::Backend(one.pool.clone(), one.name.clone());
        let share = takes(&one).then(|| balance(one, live, weights)).flatten();
        Row {
            live: one.live,
            cells: vec![
                Cell::Text(subject.to_string()),
                Cell::State(clean(&one.state)),
                Cell::count(one.weight.into()),
                Cell::count(one.live),
                Cell::Percent(share),
                Cell::Number(rates.connections),
                Cell::Number(rates.failures),
                Cell::Number(rates.bytes_from_client),
                Cell::Number(rates.bytes_from_backend),
                Cell::text(&one.reason),
            ],
            subject,
        }
    };
    pool.backends.iter().map(row).collect()
}

/// Connections of a backend in percent of what its weight would give it among all that are up.
fn balance(backend: &BackendView, live: u64, weights: u64) -> Option<f64> {
    let due = live as f64 * f64::from(backend.weight) / weights as f64;
    (due > 0.0).then(|| backend.live as f64 * 100.0 / due)
}

fn pool(pool: &PoolView, rates: &RateTable) -> Row {
    let per_second = rates.of(&Counted::Pool(pool.name.clone()));
    let backends = || pool.backends.iter().filter(|one| !one.removed);
    let up = backends().filter(|one| one.state == "up").count();
    let live = pool.backends.iter().map(|one| one.live).sum();
    Row {
        subject: Subject::Pool(pool.name.clone()),
        live,
        cells: vec![
            Cell::text(&pool.name),
            Cell::Amount(up as f64, format!("{up}/{}", backends().count())),
            Cell::count(live),
            Cell::count(pool.queued),
            Cell::Number(per_second.connections),
            Cell::Number(per_second.failures),
            Cell::Number(per_second.requests),
            Cell::Number(per_second.bytes_from_client),
            Cell::Number(per_second.bytes_from_backend),
            Cell::text(&remark(pool)),
        ],
    }
}

/// Words for all that is special about a pool.
fn remark(pool: &PoolView) -> String {
    let held = pool.discovery.iter().map(|set| set.state.as_str());
    let held = held.filter(|state| *state != "good").map(str::to_owned);
    let panic = pool.panic.iter().map(|why| format!("panic: {why}"));
    let removed = pool.removed.then(|| "removed".to_owned());
    let refused = Some(refused(pool)).filter(|count| *count > 0);
    let refused = refused.map(|count| format!("{} refused", short(count as f64)));
    let all = panic.chain(removed).chain(held).chain(refused);
    all.collect::<Vec<_>>().join(", ")
}

fn listener(listener: &ListenerView, rates: &RateTable) -> Row {
    let per_second = rates.of(&Counted::Listener(listener.name.clone()));
    let most = listener.refusals.iter().max_by_key(|one| one.count);
    let most = most
        .filter(|one| one.count > 0)
        .map(|one| one.reason.as_str());
    Row {
        subject: Subject::Listener(listener.name.clone()),
        live: listener.counters.live,
        cells: vec![
            Cell::text(&listener.name),
            Cell::State(clean(&listener.state)),
            Cell::count(listener.counters.live),
            Cell::Number(per_second.connections),
            Cell::Number(per_second.requests),
            Cell::Number(per_second.failures),
            Cell::Number(per_second.bytes_from_client),
            Cell::Number(per_second.bytes_from_backend),
            Cell::Number(listener.refused as f64),
            Cell::text(most.unwrap_or_default()),
        ],
    }
}

fn job(job: &JobView) -> Row {
    let eta = jobs::eta(job).unwrap_or_else(|| "-".to_owned());
    Row {
        subject: Subject::Job(job.id),
        live: job.left,
        cells: vec![
            Cell::count(job.id),
            Cell::text(&job.by),
            Cell::text(&job.target),
            Cell::text(&job.phase),
            Cell::count(job.ended),
            Cell::count(job.left),
            Cell::Amount(job.left_seconds.map_or(f64::MAX, |left| left as f64), eta),
            Cell::text(&job.pace),
        ],
    }
}
