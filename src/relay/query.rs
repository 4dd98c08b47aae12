//! Queries of the connection table from outside, answered by the workers in between their events, a
//! bounded number of slots at a time.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::clock::Tick;
use super::filter::Filter;
use super::info::{ConnectionInfo, SessionInfo};
use super::key::{Handle, SessionKey};
use super::session::Session;
use super::table::SessionTable;
use super::websocket::close_frame::CloseFrame;

/// Slots a worker looks at for one query: well below a millisecond of its time.
pub(super) const SLOTS_PER_LOOK: usize = 2048;
/// Connections of one page, at most.
pub(crate) const MAX_PAGE: usize = 1000;

/// Position at which a listing goes on. Opaque to its holder; connections that come or go in
/// between are listed or not, but none that stays is listed twice or left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cursor {
    pub(super) worker: u32,
    pub(super) slot: u32,
}

/// A part of the table.
#[derive(Debug, Default)]
pub(crate) struct TablePage {
    pub connections: Vec<ConnectionInfo>,
    pub(super) sessions: Vec<SessionInfo>,
    /// `None`: that was all.
    pub next: Option<Cursor>,
}

/// A query of one worker.
pub(super) struct Query {
    pub filter: Arc<Filter>,
    /// The first slot to look at.
    pub from: u32,
    pub limit: usize,
    pub worker: u32,
    pub action: QueryAction,
    pub reply: oneshot::Sender<QueryReply>,
}

/// Action on the sessions that match.
#[derive(Debug, Clone)]
pub(super) enum QueryAction {
    /// They are described to an operator.
    Describe,
    /// They are named for a job.
    Name,
    /// Their bytes are brought into the counters.
    Tally,
    /// They are ended, and named.
    Close(Arc<CloseFrame>),
}

#[derive(Debug, Default)]
pub(super) struct QueryReply {
    pub connections: Vec<ConnectionInfo>,
    pub sessions: Vec<SessionInfo>,
    /// The first slot not looked at; `None`: the table ends here.
    pub next: Option<u32>,
}

impl TablePage {
    pub(super) fn len(&self) -> usize {
        self.connections.len() + self.sessions.len()
    }
}

impl Query {
    /// The Close for the sessions that are to be ended.
    pub(super) fn close_frame(&self) -> Option<Arc<CloseFrame>> {
        match &self.action {
            QueryAction::Close(frame) => Some(Arc::clone(frame)),
            QueryAction::Describe | QueryAction::Name | QueryAction::Tally => None,
        }
    }

    /// Looks at the next slots. The keys are those of the sessions to end.
    pub(super) fn run(self, table: &mut SessionTable, now: Tick) -> Vec<SessionKey> {
        let mut reply = QueryReply::default();
        let mut closing = Vec::new();
        // Inclusive: a cursor comes from outside, and may be the last number there is.
        for slot in (self.from..=u32::MAX).take(SLOTS_PER_LOOK) {
            if reply.connections.len() + reply.sessions.len() == self.limit {
                reply.next = Some(slot);
                break;
            }
            let Some(found) = table.slot(slot) else {
                reply.next = None;
                break;
            };
            reply.next = Some(slot + 1);
            if let Some((key, session)) = found
                && session.matches(&self.filter, now)
            {
                let worker = self.worker;
                let handle = Handle { worker, key };
                match &self.action {
                    QueryAction::Describe => reply.connections.push(session.connection_info(now)),
                    QueryAction::Tally => session.tally(),
                    QueryAction::Name => reply.sessions.push(session.session_info(handle, now)),
                    QueryAction::Close(_) => {
                        reply.sessions.push(session.session_info(handle, now));
                        closing.push(key);
                    }
                }
            }
        }
        // Whoever asked may have left.
        let _ = self.reply.send(reply);
        closing
    }
}

impl Cursor {
    /// The first slot of the worker behind this one.
    pub(super) fn next_worker(self) -> Cursor {
        Cursor {
            worker: self.worker + 1,
            slot: 0,
        }
    }

    /// A number for a URL.
    pub(crate) fn to_number(self) -> u64 {
        u64::from(self.worker) << 32 | u64::from(self.slot)
    }

    pub(crate) fn from_number(number: u64) -> Self {
        Self {
            worker: (number >> 32) as u32,
            slot: number as u32,
        }
    }
}

impl Session {
    fn matches(&self, filter: &Filter, now: Tick) -> bool {
        !self.phase.is_connecting() && filter.fits(self.record(), self.idle(now))
    }
}
