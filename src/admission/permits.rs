//! The three permits of a client, each given up by dropping it:
//!
//! - [`SetupPermit`]: a connection that is accepted and not yet routed.
//! - [`ConnectionPermit`]: a connection that its listener has let in, to its end.
//! - [`SourcePermit`]: a session of a client behind a balancer, whose connection is not its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::counts::SourceCount;
use super::limits::Limits;
use crate::base::silence_queue::SilentId;
use crate::base::source_prefix::SourcePrefix;

/// Permit of an accepted connection until it is routed. It counts for `max_setup_connections`, and
/// for `max_connections` until a [`ConnectionPermit`] takes that over.
#[derive(Debug)]
pub struct SetupPermit {
    limits: Arc<Limits>,
    /// The connection is not routed.
    in_setup: AtomicBool,
    /// The connection is not admitted: this permit is all that counts it.
    counts_connection: AtomicBool,
    /// Present while set-up waits for the client to send something.
    silent: Mutex<Option<SilentId>>,
    /// Cancelled when the connection has to make room for another one.
    evict: CancellationToken,
}

impl SetupPermit {
    /// Counts an accepted connection, once there is room.
    ///
    /// # Cancel safety
    /// Takes nothing until it is done.
    pub async fn acquire(limits: &Arc<Limits>) -> SetupPermit {
        let try_enter = || limits.try_enter().then(|| Self::counted(limits));
        limits.until(try_enter).await
    }

    /// Counts an accepted connection, whether there is room or not.
    pub fn acquire_anyway(limits: &Arc<Limits>) -> SetupPermit {
        limits.enter();
        Self::counted(limits)
    }

    /// The permit of a connection that [`Limits::try_enter`] or [`Limits::enter`] has counted.
    pub(crate) fn of_entered(limits: &Arc<Limits>) -> SetupPermit {
        Self::counted(limits)
    }

    fn counted(limits: &Arc<Limits>) -> SetupPermit {
        SetupPermit {
            limits: Arc::clone(limits),
            in_setup: AtomicBool::new(true),
            counts_connection: AtomicBool::new(true),
            silent: Mutex::new(None),
            evict: CancellationToken::new(),
        }
    }

    /// Ends set-up. What waits from here on waits for one pool, and must not keep other pools'
    /// clients out. What a pool lets wait is bounded by its `max_queue`. Connect attempts need no
    /// bound of their own: each holds a lease, which counts for its backend's `max_connections`,
    /// and no more descriptors than the session that it is to become; it ends within
    /// `connect_timeout` for each attempt.
    pub fn routed(&self) {
        if self.in_setup.swap(false, Ordering::Relaxed) {
            self.speak();
            self.limits.leave_setup();
        }
    }

    /// Leaves the count of the connection to the caller.
    pub(super) fn hand_over(&self) {
        self.counts_connection.store(false, Ordering::Relaxed);
    }

    /// Notes that set-up waits for the client, which counts for `source`.
    pub(crate) fn fall_silent(&self, source: SourcePrefix) {
        self.speak();
        let silents = &self.limits.silent;
        *self.silent() = Some(silents.enter(source, &self.evict, Instant::now()));
    }

    /// Notes that set-up does not wait for the client, for now or for good.
    pub(crate) fn speak(&self) {
        if let Some(silent) = self.silent().take() {
            self.limits.silent.leave(silent);
        }
    }

    /// Waits until the connection has to make room for another one.
    ///
    /// # Cancel safety
    /// Takes nothing.
    pub(crate) async fn evicted(&self) {
        self.evict.cancelled().await;
        // It was routed meanwhile.
        if !self.in_setup.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    fn silent(&self) -> MutexGuard<'_, Option<SilentId>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SetupPermit {
    fn drop(&mut self) {
        self.routed();
        if *self.counts_connection.get_mut() {
            self.limits.release();
        }
    }
}

/// Permit of one session, counted at its client's source.
#[derive(Debug)]
pub struct SourcePermit(Arc<SourceCount>);

impl SourcePermit {
    pub(super) fn counted(source: Arc<SourceCount>) -> SourcePermit {
        SourcePermit(source)
    }
}

impl Drop for SourcePermit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Permit of one connection for the hours it lasts, counted by the process, its listener and its
/// source.
#[derive(Debug)]
pub struct ConnectionPermit(SourcePermit);

// A live connection holds one for hours.
const _: () = assert!(size_of::<ConnectionPermit>() == size_of::<usize>());

impl ConnectionPermit {
    /// Stands for a connection that all three have counted.
    pub(super) fn counted(source: SourcePermit) -> ConnectionPermit {
        ConnectionPermit(source)
    }

    /// Counts a connection of no listener.
    #[cfg(any(test, fuzzing))]
    pub fn unlisted(limits: &Arc<Limits>) -> ConnectionPermit {
        limits.reserve_anyway();
        ConnectionPermit(SourcePermit(SourceCount::unlisted(limits)))
    }

    /// Counts the connection at another source of its listener: that of the client whose session it
    /// has become.
    pub(crate) fn at_source(mut self, source: SourcePermit) -> ConnectionPermit {
        self.0 = source;
        self
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let listener = &self.0.0.listener;
        listener.leave();
        listener.limits.release();
    }
}
