//! Places of one endpoint's connections. Once all are taken, a silent connection gives its place
//! up: silence must lock neither a probe nor the operator out.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::base::silence_queue::{SilenceQueue, SilentId};
use crate::base::source_prefix::SourcePrefix;
use crate::net::Peer;

/// Bits of an address that make a source, of IPv4 and IPv6.
const PREFIXES: (u8, u8) = (32, 64);

pub(super) struct EndpointConnections {
    places: Arc<Semaphore>,
    /// Connections without a request under way.
    silent: Mutex<SilenceQueue<CancellationToken>>,
    /// Told when a connection falls silent, or one that should leave has not been silent after all.
    changed: Notify,
}

/// One connection. It is silent until a request's head is there, and again after its answer.
pub(super) struct EndpointConnection {
    room: Arc<EndpointConnections>,
    pub peer: Peer,
    source: SourcePrefix,
    has_spoken: AtomicBool,
    /// Its place among the silent ones; `None` while a request is under way.
    silent: Mutex<Option<SilentId>>,
    /// Cancelled when its place is needed.
    pub leave: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl EndpointConnections {
    pub fn new(places: usize) -> Arc<EndpointConnections> {
        Arc::new(EndpointConnections {
            places: Arc::new(Semaphore::new(places)),
            silent: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// A place for the next connection. Where there is none, the oldest silent connection of the
    /// source that has most of them is told to leave.
    ///
    /// # Cancel safety
    /// A place that was found is given back.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        let mut place = pin!(Arc::clone(&self.places).acquire_owned());
        loop {
            let changed = self.changed.notified();
            if let Some(leave) = lock(&self.silent).pop() {
                leave.cancel();
            }
            tokio::select! {
                place = &mut place => return place.ok(),
                () = changed => {}
            }
        }
    }

    pub fn enter(
        self: &Arc<EndpointConnections>,
        peer: Peer,
        place: OwnedSemaphorePermit,
    ) -> EndpointConnection {
        let guest = EndpointConnection {
            room: Arc::clone(self),
            peer,
            source: SourcePrefix::of(peer.ip(), PREFIXES.0, PREFIXES.1),
            has_spoken: AtomicBool::new(false),
            silent: Mutex::new(None),
            leave: CancellationToken::new(),
            _place: place,
        };
        guest.fall_silent();
        guest
    }
}

impl EndpointConnection {
    pub fn fall_silent(&self) {
        let silent = lock(&self.room.silent).push(self.source, self.leave.clone());
        *lock(&self.silent) = Some(silent);
        self.room.changed.notify_waiters();
    }

    pub fn speak(&self) {
        self.has_spoken.store(true, Ordering::Relaxed);
        self.end_silence();
    }

    fn end_silence(&self) {
        let silent = lock(&self.silent).take();
        let found = silent.map(|silent| lock(&self.room.silent).remove(silent));
        if found.is_some_and(|connection| connection.is_none()) {
            self.room.changed.notify_waiters();
        }
    }

    /// True once a request's head has come: an answer may be under way yet.
    pub fn has_spoken(&self) -> bool {
        self.has_spoken.load(Ordering::Relaxed)
    }

    pub fn is_silent(&self) -> bool {
        lock(&self.silent).is_some()
    }
}

impl Drop for EndpointConnection {
    fn drop(&mut self) {
        self.end_silence();
    }
}

/// Nothing panics while it is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use std::net::IpAddr;

    async fn guest(room: &Arc<EndpointConnections>, client: &str) -> EndpointConnection {
        let place = room.place().await.expect("a place");
        let ip: IpAddr = client.parse().expect("an address");
        room.enter(Peer::tcp((ip, 1).into()), place)
    }

    fn leaving(guests: &[EndpointConnection]) -> Vec<bool> {
        let told = guests.iter().map(|guest| guest.leave.is_cancelled());
        told.collect()
    }

    #[tokio::test]
    async fn the_oldest_silent_one_of_the_source_with_most_leaves() {
        let room = EndpointConnections::new(4);
        let mut guests = Vec::new();
        for client in ["192.0.2.9", "192.0.2.1", "192.0.2.1", "192.0.2.1"] {
            guests.push(guest(&room, client).await);
        }
        guests[1].speak();
        assert!(room.place().now_or_never().is_none());
        assert_eq!(leaving(&guests), [false, false, true, false]);
        drop(guests.remove(2));
        guests.push(guest(&room, "192.0.2.9").await);
        assert!(room.place().now_or_never().is_none());
        assert_eq!(leaving(&guests), [true, false, false, false]);
    }

    #[tokio::test]
    async fn one_that_falls_silent_leaves_for_one_that_waits() {
        let room = EndpointConnections::new(1);
        let busy = guest(&room, "::1").await;
        busy.speak();
        let mut waiting = pin!(room.place());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(!busy.leave.is_cancelled());
        busy.fall_silent();
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(busy.leave.is_cancelled());
        drop(busy);
        assert!(waiting.await.is_some());
    }
}
