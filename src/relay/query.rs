//! Looking at the connection table from outside, and ending what it shows: the operator's questions, answered by the
//! workers in between their events, a bounded number of slots at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Relay;
use super::clock::Tick;
use super::filter::Filter;
use super::frames::CloseFrame;
use super::inbox::WorkerCommand;
use super::session::Session;
use super::table::{SessionKey, SessionTable};
use crate::observe::Summary;

/// Slots a worker looks at for one question: well below a millisecond of its time.
const SLOTS_PER_LOOK: usize = 2048;
/// Connections of one page, at most.
pub const MAX_PAGE: usize = 1000;

/// One live connection of the table.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    pub summary: Summary,
    /// Since the last byte either way.
    pub idle: Duration,
    /// TLS ends here on the client's side.
    pub tls: bool,
}

/// Names a live connection without a search for it. One that is gone is not taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle {
    pub(super) worker: u32,
    pub(super) key: SessionKey,
}

/// Where a listing goes on. Opaque to its holder; connections that come or go in between are listed or not, but none
/// that stays is listed twice or left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    worker: u32,
    slot: u32,
}

/// One live connection, as somebody needs it who may end it.
#[derive(Debug, Clone, Copy)]
pub struct SessionInfo {
    pub handle: Handle,
    /// Since the last byte either way.
    pub idle: Duration,
    /// It is being ended already.
    pub is_parting: bool,
    /// It is between two backends: it goes on with the next one, unless it is ended.
    pub is_changing: bool,
    /// Since accept.
    pub age: Duration,
    /// It can be told why it is ended.
    pub is_told: bool,
    /// Another backend can take it.
    pub is_resumable: bool,
}

/// A part of the table.
#[derive(Debug, Default)]
pub struct TablePage {
    pub connections: Vec<ConnectionInfo>,
    standing: Vec<SessionInfo>,
    /// `None`: that was all.
    pub next: Option<Cursor>,
}

/// A question to one worker.
pub(super) struct Query {
    filter: Arc<Filter>,
    from: u32,
    limit: usize,
    worker: u32,
    wanted: QueryScope,
    answer: oneshot::Sender<QueryReply>,
}

/// What is to become of what is found.
#[derive(Debug, Clone)]
enum QueryScope {
    Described,
    Named,
    /// Its bytes brought into the counters.
    Tallied,
    /// Ended, and named.
    Ended(Arc<CloseFrame>),
}

#[derive(Debug, Default)]
pub(super) struct QueryReply {
    found: Vec<ConnectionInfo>,
    named: Vec<SessionInfo>,
    /// The first slot not looked at; `None`: the table ends here.
    next: Option<u32>,
}

impl Relay {
    /// The next connections that match, at most `limit` (and at most [`MAX_PAGE`]).
    pub async fn list(&self, filter: Filter, from: Cursor, limit: usize) -> TablePage {
        self.inquire(filter, from, limit, QueryScope::Described)
            .await
    }

    /// Brings the byte counters of listeners and backends up to date: what live connections have moved since the latest
    /// sweep is in their entries only.
    pub async fn tally(&self) {
        self.inquire_all(Filter::default(), QueryScope::Tallied)
            .await;
    }

    /// Names every connection that matches.
    pub async fn list_all(&self, filter: Filter) -> Vec<SessionInfo> {
        self.inquire_all(filter, QueryScope::Named).await
    }

    /// Ends every connection that matches; how many there were. WebSockets are told why.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the rest open.
    pub async fn close(&self, filter: Filter, goodbye: &Arc<CloseFrame>) -> u64 {
        let wanted = QueryScope::Ended(Arc::clone(goodbye));
        self.inquire_all(filter, wanted).await.len() as u64
    }

    async fn inquire_all(&self, filter: Filter, wanted: QueryScope) -> Vec<SessionInfo> {
        let mut found = Vec::new();
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let page = self.inquire(filter.clone(), cursor, MAX_PAGE, wanted.clone());
            let page = page.await;
            found.extend(page.standing);
            from = page.next;
        }
        found
    }

    async fn inquire(
        &self,
        filter: Filter,
        from: Cursor,
        limit: usize,
        wanted: QueryScope,
    ) -> TablePage {
        let limit = limit.clamp(1, MAX_PAGE);
        let filter = Arc::new(filter);
        let mut page = TablePage::default();
        let mut at = from;
        while let Some(inbox) = self.plane.inboxes.get(at.worker as usize) {
            let (answer, answered) = oneshot::channel();
            inbox.send(WorkerCommand::Inquire(Query {
                filter: Arc::clone(&filter),
                from: at.slot,
                limit: limit - page.len(),
                worker: at.worker,
                wanted: wanted.clone(),
                answer,
            }));
            // A worker that has stopped has no connections.
            let answer = answered.await.unwrap_or_default();
            page.connections.extend(answer.found);
            page.standing.extend(answer.named);
            at = match answer.next {
                Some(slot) => Cursor { slot, ..at },
                None => Cursor {
                    worker: at.worker + 1,
                    slot: 0,
                },
            };
            if page.len() >= limit {
                break;
            }
        }
        let more = (at.worker as usize) < self.plane.inboxes.len();
        page.next = more.then_some(at);
        page
    }
}

impl TablePage {
    fn len(&self) -> usize {
        self.connections.len() + self.standing.len()
    }
}

impl Query {
    pub fn goodbye(&self) -> Option<Arc<CloseFrame>> {
        match &self.wanted {
            QueryScope::Ended(goodbye) => Some(Arc::clone(goodbye)),
            QueryScope::Described | QueryScope::Named | QueryScope::Tallied => None,
        }
    }

    /// Looks at the next slots. The keys are those of the entries to end.
    pub fn ask(self, table: &mut SessionTable, now: Tick) -> Vec<SessionKey> {
        let mut answer = QueryReply::default();
        let mut closing = Vec::new();
        // Inclusive: a cursor comes from outside, and may be the last number there is.
        for slot in (self.from..=u32::MAX).take(SLOTS_PER_LOOK) {
            if answer.found.len() + answer.named.len() == self.limit {
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
                let handle = Handle { worker, key };
                match &self.wanted {
                    QueryScope::Described => answer.found.push(entry.describe(now)),
                    QueryScope::Tallied => entry.tally(),
                    QueryScope::Named => answer.named.push(entry.standing(handle, now)),
                    QueryScope::Ended(_) => {
                        answer.named.push(entry.standing(handle, now));
                        closing.push(key);
                    }
                }
            }
        }
        // Whoever asked may have left.
        let _ = self.answer.send(answer);
        closing
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

impl Session {
    fn matches(&self, filter: &Filter, now: Tick) -> bool {
        self.is_established() && filter.fits(self.record(), self.idle(now))
    }
}
