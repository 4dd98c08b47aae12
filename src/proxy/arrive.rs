//! A session that comes from another process: what it is connected to here, by name.

use std::sync::Arc;

use super::http::resume::kept::PoolMigrator;
use super::listening::Listening;
use crate::pool::{Lease, Pool};
use crate::relay::{
    ArrivalError, ArrivingParts, ArrivingResume, ArrivingSession, Migrator, SessionGuards,
};
use crate::wire::moved::{MovedResume, MovedSession};

impl Listening {
    /// Connects a session of this listener to its backend and its counts, which it enters whatever
    /// their limits. `pool` is the one of `state.record.pool`. Touches no socket: it is the relay's
    /// ([`Relay::adopt_moved`](crate::relay::Relay::adopt_moved)), or declined.
    ///
    /// # Errors
    /// Its backend is not here, or a value means nothing here.
    pub(crate) fn arrive(
        &self,
        state: MovedSession,
        pool: &Arc<Pool>,
    ) -> Result<ArrivingSession, ArrivalError> {
        let record = &state.record;
        let name = record.backend.as_deref();
        let name = name.ok_or(ArrivalError::Value("backend"))?;
        let backend = pool.backend(name).ok_or_else(|| ArrivalError::Backend {
            pool: pool.name().to_string(),
            backend: name.to_owned(),
        })?;
        let frames = state.frames.as_deref();
        let resume = match frames.and_then(|frames| frames.resume.as_deref()) {
            Some(resume) => Some(self.resume(resume, pool, record.id)?),
            None => None,
        };
        let client = record.client_ip();
        // Between two backends it counts at none.
        let lease = state.gap.is_none().then(|| Lease::enter_anyway(&backend));
        let rules = self.rules();
        let permit = self.admission().admit_anyway(rules.admission(), client);
        let parts = ArrivingParts {
            listener: Arc::clone(self.counters()),
            backend: Some(Arc::clone(backend.counters())),
            guards: SessionGuards { lease, permit },
            resume,
        };
        ArrivingSession::new(state, parts)
    }

    fn resume(
        &self,
        moved: &MovedResume,
        pool: &Arc<Pool>,
        id: u64,
    ) -> Result<ArrivingResume, ArrivalError> {
        let proxy = self.proxy();
        let migrator = PoolMigrator::of_moved(&moved.migrator, proxy, Arc::downgrade(pool), id);
        let migrator = migrator.ok_or(ArrivalError::Value("kept handshake"))?;
        let migrator: Arc<dyn Migrator> = Arc::new(migrator);
        Ok(ArrivingResume {
            migrator,
            settings: pool.settings().resume.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
