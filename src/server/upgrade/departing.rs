//! Live sessions on their way to the new process: batch by batch, each in two steps. The new
//! process says which ones it can take, and touches no socket; then this one commits, and closes
//! its copies. Until the commit nobody reads or writes a session that is on its way.
//!
//! The new process adopts at the commit, or if this one ends behind its offer. An abort stands
//! before either in the channel: what it names goes on here.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::channel::ChannelError;
use super::message::{FromNew, FromOld};
use super::successor::NewProcess;
use crate::net::seal;
use crate::relay::{Cursor, FrozenSession, MAX_BATCH};
use crate::server::state::Server;
use crate::wire::moved;

/// Time for the new process to say which sessions it takes. They stand still meanwhile.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
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
    declined: u64,
    /// Messages of other kinds that came while an answer was waited for.
    pub others: Vec<FromNew>,
}

/// The new process does not answer as it should; no session is on its way any more.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct MoveError(String);

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
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let begun = Instant::now();
            let batch = runtime.block_on(server.relay().freeze(cursor, MAX_BATCH));
            from = batch.next;
            for (_, reason) in &batch.stayed {
                *stayed.entry(reason.word()).or_default() += 1;
            }
            let offer = Offer::of(batch.sessions);
            if offer.sessions.is_empty() {
                continue;
            }
            self.offer(server, new, offer)?;
            server.upgrade.froze_for(begun.elapsed());
            if self.batch == 1 {
                runtime.block_on(async { tokio::time::sleep(CANARY).await });
            }
        }
        if self.passes == 0 {
            let (moved, declined, longest_freeze) =
                (self.moved, self.declined, server.upgrade.longest_freeze());
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

    fn offer(
        &mut self,
        server: &Server,
        new: &mut NewProcess,
        offer: Offer,
    ) -> Result<(), MoveError> {
        self.batch += 1;
        let message = FromOld::Sessions {
            batch: self.batch,
            lengths: offer.lengths.clone(),
            backends: offer.sessions.iter().map(has_backend).collect(),
        };
        let sealed = seal(&offer.states).map_err(|error| MoveError(error.to_string()))?;
        let mut descriptors = vec![sealed.as_fd()];
        descriptors.extend(offer.sessions.iter().flat_map(sockets));
        let sent = new.channel.send_with(&message, &descriptors);
        drop(descriptors);
        let taken = match sent.and_then(|()| self.ready(new)) {
            Ok(taken) => taken,
            Err(error) => return Err(self.abort(new, &error)),
        };
        if new
            .channel
            .send(&FromOld::Commit { batch: self.batch })
            .is_err()
        {
            // Nobody has adopted them: one that is alive reads the commit or nothing.
            new.end();
            return Err(MoveError("the new process has ended".to_owned()));
        }
        let mut moved = 0_u64;
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
                session.thaw();
            }
        }
        self.moved += moved;
        self.declined += all - moved;
        server.upgrade.moved(moved, all - moved, self.passes > 0);
        Ok(())
    }

    /// Waits for the word which sessions of the batch are taken.
    fn ready(&mut self, new: &NewProcess) -> Result<Vec<bool>, ChannelError> {
        let until = Instant::now() + READY_TIMEOUT;
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
        if told.is_err() {
            // One that cannot be told could adopt them as soon as this process ends.
            new.end();
        }
        MoveError(error.to_string())
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
