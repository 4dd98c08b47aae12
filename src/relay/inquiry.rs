//! Looking at the connection table from outside, and ending what it shows: the operator's questions, answered by the
//! workers in between their events, a bounded number of slots at a time.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::oneshot;

use super::Relay;
use super::clock::Tick;
use super::entry::Entry;
use super::frames::Goodbye;
use super::inbox::Command;
use super::table::{Key, Table};
use crate::observe::{Record, Summary};

/// Slots a worker looks at for one question: well below a millisecond of its time.
const SLOTS_PER_LOOK: usize = 2048;
/// Connections of one page, at most.
pub const MAX_PAGE: usize = 1000;

/// Which connections are meant; every condition that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub id: Option<u64>,
    pub listener: Option<String>,
    pub pool: Option<String>,
    pub backend: Option<String>,
    /// The client's network. A unix client is in none.
    pub client: Option<IpNet>,
    /// Since accept, at least.
    pub min_age: Duration,
    /// Without a byte either way, at least.
    pub min_idle: Duration,
}

/// One live connection of the table.
#[derive(Debug, Clone)]
pub struct Connection {
    pub summary: Summary,
    /// Since the last byte either way.
    pub idle: Duration,
    /// TLS ends here on the client's side.
    pub tls: bool,
    pub handle: Handle,
}

/// Names a live connection without a search for it. One that is gone is not taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    pub(super) worker: u32,
    pub(super) key: Key,
}

/// Where a listing goes on. Opaque to its holder; connections that come or go in between are listed or not, but none
/// that stays is listed twice or left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    worker: u32,
    slot: u32,
}

/// A part of the table.
#[derive(Debug, Default)]
pub struct Page {
    pub connections: Vec<Connection>,
    /// `None`: that was all.
    pub next: Option<Cursor>,
}

/// A question to one worker.
pub(super) struct Question {
    filter: Arc<Filter>,
    from: u32,
    limit: usize,
    worker: u32,
    /// What is found is ended with it.
    goodbye: Option<Arc<Goodbye>>,
    answer: oneshot::Sender<Answer>,
}

#[derive(Debug, Default)]
pub(super) struct Answer {
    found: Vec<Connection>,
    /// The first slot not looked at; `None`: the table ends here.
    next: Option<u32>,
}

impl<L: Send + 'static> Relay<L> {
    /// The next connections that match, at most `limit` (and at most [`MAX_PAGE`]).
    pub async fn list(&self, filter: Filter, from: Cursor, limit: usize) -> Page {
        self.inquire(filter, from, limit, None).await
    }

    /// Ends every connection that matches; how many there were. WebSockets are told why.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the rest open.
    pub async fn close(&self, filter: Filter, goodbye: &Arc<Goodbye>) -> u64 {
        let mut closed = 0;
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let goodbye = Some(Arc::clone(goodbye));
            let page = self
                .inquire(filter.clone(), cursor, MAX_PAGE, goodbye)
                .await;
            closed += page.connections.len() as u64;
            from = page.next;
        }
        closed
    }

    async fn inquire(
        &self,
        filter: Filter,
        from: Cursor,
        limit: usize,
        goodbye: Option<Arc<Goodbye>>,
    ) -> Page {
        let limit = limit.clamp(1, MAX_PAGE);
        let filter = Arc::new(filter);
        let mut page = Page::default();
        let mut at = from;
        while let Some(inbox) = self.plane.inboxes.get(at.worker as usize) {
            let (answer, answered) = oneshot::channel();
            inbox.send(Command::Inquire(Question {
                filter: Arc::clone(&filter),
                from: at.slot,
                limit: limit - page.connections.len(),
                worker: at.worker,
                goodbye: goodbye.clone(),
                answer,
            }));
            // A worker that has stopped has no connections.
            let answer = answered.await.unwrap_or_default();
            page.connections.extend(answer.found);
            at = match answer.next {
                Some(slot) => Cursor { slot, ..at },
                None => Cursor {
                    worker: at.worker + 1,
                    slot: 0,
                },
            };
            if page.connections.len() >= limit {
                break;
            }
        }
        let more = (at.worker as usize) < self.plane.inboxes.len();
        page.next = more.then_some(at);
        page
    }
}

impl Question {
    pub fn goodbye(&self) -> Option<Arc<Goodbye>> {
        self.goodbye.clone()
    }

    /// Looks at the next slots. The keys are those of the entries to end.
    pub fn ask<L>(self, table: &mut Table<L>, now: Tick) -> Vec<Key> {
        let mut answer = Answer::default();
        let mut closing = Vec::new();
        // Inclusive: a cursor comes from outside, and may be the last number there is.
        for slot in (self.from..=u32::MAX).take(SLOTS_PER_LOOK) {
            if answer.found.len() == self.limit {
                answer.next = Some(slot);
                break;
            }
            let Some(found) = table.slot(slot) else {
                answer.next = None;
                break;
            };
            answer.next = Some(slot + 1);
            if let Some((key, entry)) = found
                && entry.matches(&self.filter, now)
            {
                let worker = self.worker;
                answer
                    .found
                    .push(entry.describe(Handle { worker, key }, now));
                closing.extend(self.goodbye.is_some().then_some(key));
            }
        }
        // Whoever asked may have left.
        let _ = self.answer.send(answer);
        closing
    }
}

impl Filter {
    pub(super) fn fits(&self, record: &Record, idle: Duration) -> bool {
        let Self {
            id,
            listener,
            pool,
            backend,
            client,
            min_age,
            min_idle,
        } = self;
        let named = |wanted: &Option<String>, name: Option<&Arc<str>>| {
            wanted
                .as_deref()
                .is_none_or(|wanted| name.is_some_and(|name| **name == *wanted))
        };
        let assignment = record.assignment();
        id.is_none_or(|id| id == record.id)
            && named(listener, Some(record.listener()))
            && named(pool, assignment.map(|(pool, _)| pool))
            && named(backend, assignment.map(|(_, backend)| backend))
            && client
                .is_none_or(|network| record.client.ip().is_some_and(|ip| network.contains(&ip)))
            && idle >= *min_idle
            && (min_age.is_zero() || record.age() >= *min_age)
    }
}

impl Cursor {
    /// As a number for a URL.
    pub fn to_number(self) -> u64 {
        u64::from(self.worker) << 32 | u64::from(self.slot)
    }

    pub fn from_number(number: u64) -> Self {
        Self {
            worker: (number >> 32) as u32,
            slot: number as u32,
        }
    }
}

impl<L> Entry<L> {
    fn matches(&self, filter: &Filter, now: Tick) -> bool {
        self.is_established() && filter.fits(self.record(), self.idle(now))
    }
}
