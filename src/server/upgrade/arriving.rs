//! Live sessions that come from the old process. Their state is read and connected to what is here
//! first; no socket is touched before the old process has committed, or is gone.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use super::channel::{ChannelError, Received};
use super::message::FromOld;
use crate::net::read_sealed;
use crate::relay::{ArrivalError, ArrivingSession};
use crate::server::lock::lock;
use crate::server::state::Server;
use crate::wire::moved;

/// Reasons that are told above `debug`. Each names a listener, a pool or a backend.
const MAX_REASONS: usize = 16;

/// Sessions of one offer that can be taken.
#[derive(Default)]
pub(super) struct Arrivals {
    batch: u64,
    ready: Vec<Arrival>,
    /// Reasons that were told: declined sessions are offered again and again.
    told: BTreeSet<String>,
}

struct Arrival {
    /// Of its listener, pool and backend.
    names: [String; 3],
    session: ArrivingSession,
    client: OwnedFd,
    backend: Option<OwnedFd>,
}

/// The names of an offer.
pub(super) struct Offered {
    pub batch: u64,
    pub lengths: Vec<usize>,
    pub backends: Vec<bool>,
}

impl Arrivals {
    /// Reads an offer; says of each session whether it can be taken.
    ///
    /// # Errors
    /// The offer as a whole is not understood.
    pub(super) fn prepare(
        &mut self,
        server: &Server,
        offered: &Offered,
        received: Received<FromOld>,
    ) -> Result<Vec<bool>, ChannelError> {
        let malformed = |what: &str| ChannelError::Malformed(what.to_owned());
        let mut descriptors = received.descriptors.into_iter();
        let states = descriptors.next().ok_or_else(|| malformed("no states"))?;
        let states = read_sealed(states).map_err(ChannelError::Io)?;
        self.batch = offered.batch;
        self.ready.clear();
        let (mut rest, mut taken) = (&states[..], Vec::new());
        for (length, has_backend) in offered.lengths.iter().zip(&offered.backends) {
            let parts = rest.split_at_checked(*length);
            let (state, behind) = parts.ok_or_else(|| malformed("states are cut off"))?;
            rest = behind;
            let client = descriptors.next();
            let client = client.ok_or_else(|| malformed("a socket is missing"))?;
            let backend = if *has_backend {
                Some(
                    descriptors
                        .next()
                        .ok_or_else(|| malformed("a socket is missing"))?,
                )
            } else {
                None
            };
            let session = server.arriving(state);
            taken.push(session.is_ok());
            match session {
                Ok((session, names)) => self.ready.push(Arrival {
                    names,
                    session,
                    client,
                    backend,
                }),
                Err(why) => self.tell_declined(why),
            }
        }
        Ok(taken)
    }

    fn tell_declined(&mut self, why: String) {
        if self.told.len() < MAX_REASONS && !self.told.contains(&why) {
            tracing::warn!(why, "upgrade: sessions stay in the process before");
            self.told.insert(why);
        } else {
            tracing::debug!(why, "upgrade: a session stays in the process before");
        }
    }

    /// Takes the sessions of the latest offer over: nobody else reads or writes them.
    pub(super) fn adopt(&mut self, server: &Server) {
        for arrival in std::mem::take(&mut self.ready) {
            let Arrival {
                names,
                session,
                client,
                backend,
            } = arrival;
            if let Err(error) = server.relay().adopt_moved(session, client, backend) {
                tracing::warn!(%error, "upgrade: a session could not be taken over");
            }
            server.moved_here(&names);
        }
    }

    /// Adopts the offer of that number.
    pub(super) fn commit(&mut self, server: &Server, batch: u64) {
        if batch == self.batch {
            self.adopt(server);
        }
    }

    /// Leaves the offer of that number to the old process.
    pub(super) fn abort(&mut self, batch: u64) {
        if batch == self.batch {
            self.ready.clear();
        }
    }
}

impl Server {
    /// Connects a session of the old process to its listener and its backend here.
    fn arriving(&self, state: &[u8]) -> Result<(ArrivingSession, [String; 3]), String> {
        let state = moved::decode(state).map_err(|error| error.to_string())?;
        let name = state.record.listener.clone();
        let listening = {
            let live = lock(&self.live);
            let mut listeners = live.listeners.iter();
            listeners.find(|one| *one.counters().name == *name).cloned()
        };
        let unknown = || ArrivalError::Listener(name.clone()).to_string();
        let listening = listening.ok_or_else(unknown)?;
        let name = state.record.pool.clone().unwrap_or_default();
        let pool = self.pool(&name);
        let pool = pool.ok_or_else(|| ArrivalError::Pool(name.clone()).to_string())?;
        // Between two backends it counts at none.
        let backend = state.record.backend.clone();
        let backend = backend.filter(|_| state.gap.is_none()).unwrap_or_default();
        let names = [state.record.listener.clone(), name, backend];
        let arriving = listening.arrive(state, &pool);
        let arriving = arriving.map_err(|error| error.to_string())?;
        Ok((arriving, names))
    }
}
