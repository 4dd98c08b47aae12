//! A session that comes from another relay, with what it is connected to here.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::config;
use crate::observe::{BackendCounters, Cause, ConnectionRecord, ListenerCounters};
use crate::relay::clock::Tick;
use crate::relay::handoff::SessionGuards;
use crate::relay::inbox::Inbox;
use crate::relay::resume_policy::Migrator;
use crate::relay::session::Session;
use crate::relay::side::ended_by_us;
use crate::relay::workers::Workers;
use crate::wire::moved::MovedSession;

/// Reason for which a session is not taken in.
#[allow(dead_code, reason = "the live upgrade finds listeners and pools")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArrivalError {
    #[error("no listener {0:?}")]
    Listener(String),
    #[error("no pool {0:?}")]
    Pool(String),
    #[error("no backend {backend:?} in pool {pool:?}")]
    Backend { pool: String, backend: String },
    /// A value of the state means nothing here.
    #[error("{0} of the session cannot be read")]
    Value(&'static str),
    /// The session is resumable, and no means for that were given; or the other way round.
    #[error("no means to find another backend")]
    Resume,
    /// There are more or fewer sockets than legs.
    #[error("sockets do not fit the session")]
    Sockets,
}

/// Objects of this process that an arriving session is connected to.
pub(crate) struct ArrivingParts {
    /// Those of `state.record.listener`.
    pub listener: Arc<ListenerCounters>,
    /// Those of `state.record.backend`; `None` where it has none.
    pub backend: Option<Arc<BackendCounters>>,
    /// Counts taken without a refusal: [`Lease::enter_anyway`](crate::pool::Lease::enter_anyway),
    /// [`admit_anyway`](crate::admission::ListenerAdmission::admit_anyway). No lease for a session
    /// between two backends.
    pub guards: SessionGuards,
    /// Present for a state with `frames.resume`.
    pub resume: Option<ArrivingResume>,
}

/// Means by which an arriving session finds another backend.
pub(crate) struct ArrivingResume {
    pub migrator: Arc<dyn Migrator>,
    /// Settings of its pool here: shared where they are equal to the session's own.
    pub settings: Option<Arc<config::Resume>>,
}

/// A session that can be taken in: nothing of it can fail any more but its sockets. Dropping it
/// gives its counts back, and writes no line.
pub(crate) struct ArrivingSession {
    pub(in crate::relay) state: MovedSession,
    pub(in crate::relay) parts: ArrivingParts,
}

impl ArrivingSession {
    /// Checks a state against what it is connected to here. Touches no socket.
    ///
    /// # Errors
    /// A value means nothing here.
    pub(crate) fn new(
        state: MovedSession,
        parts: ArrivingParts,
    ) -> Result<ArrivingSession, ArrivalError> {
        super::import::check(&state, &parts)?;
        Ok(ArrivingSession { state, parts })
    }

    /// Whether it comes with a backend's socket.
    pub(crate) fn has_backend(&self) -> bool {
        self.state.backend.is_some()
    }
}

/// An arriving session on its way to its worker, which counts it already.
pub(in crate::relay) struct Adoption {
    /// Absent once the worker has it.
    arriving: Option<ArrivingSession>,
    sockets: Option<(OwnedFd, Option<OwnedFd>)>,
    inbox: Arc<Inbox>,
    workers: Arc<Workers>,
}

impl Adoption {
    /// # Errors
    /// The sockets do not fit the session.
    pub(in crate::relay) fn new(
        arriving: ArrivingSession,
        sockets: (OwnedFd, Option<OwnedFd>),
        inbox: &Arc<Inbox>,
        workers: &Arc<Workers>,
    ) -> Result<Adoption, ArrivalError> {
        if sockets.1.is_some() != arriving.has_backend() {
            return Err(ArrivalError::Sockets);
        }
        workers.count(inbox);
        Ok(Adoption {
            arriving: Some(arriving),
            sockets: Some(sockets),
            inbox: Arc::clone(inbox),
            workers: Arc::clone(workers),
        })
    }

    /// The session, for which the worker cares from here on. `None` only where it was taken.
    pub(in crate::relay) fn into_session(mut self, now: Tick) -> Option<Session> {
        let (arriving, sockets) = (self.arriving.take()?, self.sockets.take()?);
        let session = Session::import(arriving, sockets, now);
        if session.is_none() {
            self.workers.uncount(&self.inbox);
        }
        session
    }
}

/// Ends the session where its worker has ended.
impl Drop for Adoption {
    fn drop(&mut self) {
        if let Some(ArrivingSession { state, parts }) = self.arriving.take() {
            self.sockets = None;
            let backend = parts.backend.as_ref();
            let record = ConnectionRecord::import(&state.record, &parts.listener, backend);
            record.finish(ended_by_us(Cause::Stop));
            self.workers.uncount(&self.inbox);
        }
    }
}
