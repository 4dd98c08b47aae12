//! Live sessions on their way to the new process: batch by batch, each in two steps. The new
//! process says which ones it can take, and touches no socket; then this one commits, and closes
//! its copies. Until the commit nobody reads or writes a session that is on its way.
//!
//! The new process adopts at the commit, or if this one ends behind its offer. An abort stands
//! before either in the channel: what it names goes on here.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::channel::ChannelError;
use super::message::{FromNew, FromOld};
use super::successor::NewProcess;
use crate::net::seal;
use crate::relay::{Cursor, FrozenSession, MAX_BATCH, StayReason};
use crate::server::state::Server;
use crate::wire::moved;

/// Time for the new process to say which sessions it takes. They stand still meanwhile.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the new process to answer an offer of nothing, while nobody stands still. One that is
/// starved by the machine answers within it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait after the first batch: a new process that cannot bear a live session ends with few of them.
const CANARY: Duration = Duration::from_millis(200);
/// Longest state of a batch, in bytes; more sessions wait for the next one.
const MAX_BATCH_BYTES: usize = 32 << 20;

/// Moves the sessions of a server.
#[derive(Default)]
pub(super) struct Departures {
    batch: u64,
    passes: u64,
    moved: u64,
    /// Sessions that the new process has declined: each is offered once, as it stands still for
    /// that. Ids of live sessions only.
    declined: Arc<HashSet<u64>>,
    /// Messages of other kinds that came while an answer was waited for.
    pub others: Vec<FromNew>,
}

/// The new process does not answer as it should; no session is on its way any more.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(super) struct MoveError {
    why: String,
    /// Set where it did not answer in time, or does not read.
    pub is_silent: bool,
}

/// Sessions of one batch with their state.
#[derive(Default)]
struct Offer {
    sessions: Vec<FrozenSession>,
    lengths: Vec<usize>,
    states: Vec<u8>,
}

impl Departures {
    /// Moves all sessions that can move now. Blocks the thread.
    ///
    /// # Errors
    /// The new process is not to be offered sessions for now; those that did not move go on here.
    pub(super) fn pass(
        &mut self,
        server: &Arc<Server>,
        new: &mut NewProcess,
    ) -> Result<(), MoveError> {
        let runtime = server.control_runtime();
        let mut stayed = BTreeMap::<_, u64>::new();
        let (mut passed_over, mut declined) = (HashSet::new(), Vec::new());
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let begun = Instant::now();
            let batch = runtime.block_on(server.relay().freeze_others(
                cursor,
                MAX_BATCH,
                &self.declined,
            ));
            from = batch.next;
            for (id, reason) in &batch.stayed {
                if *reason == StayReason::Declined {
                    passed_over.insert(*id);
                }
                *stayed.entry(reason.word()).or_default() += 1;
            }
            let offer = Offer::of(batch.sessions);
            if offer.sessions.is_empty() {
                continue;
            }
            declined.extend(self.offer(server, new, offer)?);
            server.upgrade.froze_for(begun.elapsed());
            if self.batch == 1 {
                runtime.block_on(async { tokio::time::sleep(CANARY).await });
            }
        }
        passed_over.extend(declined);
        self.declined = Arc::new(passed_over);
        if self.passes == 0 {
            let (moved, declined, longest_freeze) = (
                self.moved,
                self.declined.len(),
                server.upgrade.longest_freeze(),
            );
            tracing::info!(
                moved,
                declined,
                ?stayed,
                ?longest_freeze,
                "upgrade: sessions have moved"
            );
        }
        self.passes += 1;
        Ok(())
    }

    /// Gives the ids of those that the new process declined.
    fn offer(
        &mut self,
        server: &Server,
        new: &mut NewProcess,
        offer: Offer,
    ) -> Result<Vec<u64>, MoveError> {
        self.batch += 1;
        let message = FromOld::Sessions {
            batch: self.batch,
            lengths: offer.lengths.clone(),
            backends: offer.sessions.iter().map(has_backend).collect(),
        };
        let sealed = seal(&offer.states).map_err(ChannelError::Io);
        let sealed = sealed.map_err(|error| MoveError::of(&error))?;
        let mut descriptors = vec![sealed.as_fd()];
        descriptors.extend(offer.sessions.iter().flat_map(sockets));
        let sent = new.channel.send_with(&message, &descriptors);
        drop(descriptors);
        let taken = match sent.and_then(|()| self.ready(new, READY_TIMEOUT)) {
            Ok(taken) => taken,
            Err(error) => return Err(self.abort(new, &error)),
        };
        let commit = FromOld::Commit { batch: self.batch };
        if let Err(error) = new.channel.send(&commit) {
            end_unless_gone(new, &error);
            return Err(MoveError::of(&error));
        }
        let (mut moved, mut declined) = (0_u64, Vec::new());
        let mut taken = taken.into_iter();
        let all = offer.sessions.len() as u64;
        for session in offer.sessions {
            if taken.next().unwrap_or(false) {
                // Its counts are the new process's from here on, but for its place at the backend.
                if let Some(ghost) = session.commit() {
                    ghost.keep_place();
                }
                moved += 1;
            } else {
                tracing::debug!(id = session.id(), "upgrade: a session was declined");
                declined.push(session.id());
                session.thaw();
            }
        }
        self.moved += moved;
        server.upgrade.moved(moved, all - moved, self.passes > 0);
        Ok(declined)
    }

    /// Waits for the word which sessions of the batch are taken.
    fn ready(&mut self, new: &NewProcess, timeout: Duration) -> Result<Vec<bool>, ChannelError> {
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match new.channel.receive(left)?.message {
                FromNew::Ready { batch, taken } if batch == self.batch => return Ok(taken),
                // The answer to an offer that was aborted.
                FromNew::Ready { .. } => {}
                other => self.others.push(other),
            }
        }
    }

    /// Takes an offer back. Dropping the frozen sessions lets them go on.
    fn abort(&self, new: &mut NewProcess, error: &ChannelError) -> MoveError {
        let told = new.channel.send(&FromOld::Abort { batch: self.batch });
        if let Err(error) = told {
            end_unless_gone(new, &error);
        }
        MoveError::of(error)
    }

    /// Offers nothing, and says whether the new process answers in time. Nobody stands still for
    /// it. One that is gone is no silent one.
    pub(super) fn is_answered(&mut self, new: &NewProcess) -> bool {
        // Without memory for an empty file this process is the one that fails.
        let Ok(nothing) = seal(&[]) else {
            return true;
        };
        self.batch += 1;
        let message = FromOld::Sessions {
            batch: self.batch,
            lengths: Vec::new(),
            backends: Vec::new(),
        };
        let sent = new.channel.send_with(&message, &[nothing.as_fd()]);
        let answer = sent.and_then(|()| self.ready(new, ANSWER_TIMEOUT));
        !answer.is_err_and(|error| error.is_silence())
    }
}

impl MoveError {
    fn of(error: &ChannelError) -> MoveError {
        MoveError {
            why: error.to_string(),
            is_silent: error.is_silence(),
        }
    }
}

/// Ends a new process that could not be told to leave an offer: it would adopt the sessions as soon
/// as this process ends. One that has closed its channel has let go of them before.
fn end_unless_gone(new: &mut NewProcess, error: &ChannelError) {
    if !matches!(error, ChannelError::Gone) {
        new.end();
    }
}

impl Offer {
    /// Sessions that cannot be written after all, or are too much for one batch, go on here.
    fn of(frozen: Vec<FrozenSession>) -> Offer {
        let mut offer = Offer::default();
        for session in frozen {
            let Ok(state) = session.export() else {
                session.thaw();
                continue;
            };
            let before = offer.states.len();
            moved::encode(&state, &mut offer.states);
            if offer.states.len() > MAX_BATCH_BYTES && before > 0 {
                offer.states.truncate(before);
                session.thaw();
                continue;
            }
            offer.lengths.push(offer.states.len() - before);
            offer.sessions.push(session);
        }
        offer
    }
}

fn has_backend(session: &FrozenSession) -> bool {
    session.sockets().1.is_some()
}

fn sockets(session: &FrozenSession) -> impl Iterator<Item = BorrowedFd<'_>> {
    let (client, backend) = session.sockets();
    client.into_iter().chain(backend)
}
