//! Permits of one endpoint's connections. Once all are taken, a silent connection is closed for the
//! next one: silence must lock out neither a probe nor the operator.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::base::silence_queue::{SilenceQueue, SilentId};
use crate::base::source_prefix::SourcePrefix;
use crate::net::Peer;

/// Prefix lengths of a source, for IPv4 and IPv6.
const PREFIXES: (u8, u8) = (32, 64);

/// Connections of one endpoint.
pub(super) struct EndpointConnections {
    permits: Arc<Semaphore>,
    /// Connections without a request under way.
    silent: Mutex<SilenceQueue<CancellationToken>>,
    /// Notified when a connection falls silent, or one that should close has spoken after all.
    changed: Notify,
}

/// Connection of an endpoint. It is silent until a request's head is there, and after its answer.
pub(super) struct EndpointConnection {
    connections: Arc<EndpointConnections>,
    pub peer: Peer,
    /// Network of its client.
    pub source: SourcePrefix,
    has_spoken: AtomicBool,
    /// Entry among the silent ones; `None` while a request is under way.
    silent: Mutex<Option<SilentId>>,
    /// Cancelled when its permit is needed.
    pub leave: CancellationToken,
    /// `None`: it views events, and holds the permit of a viewer.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl EndpointConnections {
    pub(super) fn new(most: usize) -> Arc<EndpointConnections> {
        Arc::new(EndpointConnections {
            permits: Arc::new(Semaphore::new(most)),
            silent: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Returns the permit of the next connection. While there is none, the oldest silent connection
    /// of the source that has most of them is told to close.
    ///
    /// # Cancel safety
    /// A permit that was acquired is returned.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        let mut permit = pin!(Arc::clone(&self.permits).acquire_owned());
        loop {
            let changed = self.changed.notified();
            if let Some(leave) = lock(&self.silent).pop() {
                leave.cancel();
            }
            tokio::select! {
                permit = &mut permit => return permit.ok(),
                () = changed => {}
            }
        }
    }

    pub(super) fn enter(
        self: &Arc<EndpointConnections>,
        peer: Peer,
        permit: OwnedSemaphorePermit,
    ) -> EndpointConnection {
        let connection = EndpointConnection {
            connections: Arc::clone(self),
            peer,
            source: SourcePrefix::of(peer.ip(), PREFIXES.0, PREFIXES.1),
            has_spoken: AtomicBool::new(false),
            silent: Mutex::new(None),
            leave: CancellationToken::new(),
            permit: Mutex::new(Some(permit)),
        };
        connection.fall_silent();
        connection
    }
}

impl EndpointConnection {
    /// Marks it as silent, unless it views events: those come until its stream ends.
    pub(super) fn fall_silent(&self) {
        if lock(&self.permit).is_none() {
            return;
        }
        let silent = lock(&self.connections.silent).push(self.source, self.leave.clone());
        *lock(&self.silent) = Some(silent);
        self.connections.changed.notify_waiters();
    }

    /// Gives its permit back: its next request is its last.
    pub(super) fn become_viewer(&self) {
        drop(lock(&self.permit).take());
    }

    pub(super) fn speak(&self) {
        self.has_spoken.store(true, Ordering::Relaxed);
        self.end_silence();
    }

    fn end_silence(&self) {
        let silent = lock(&self.silent).take();
        let found = silent.map(|silent| lock(&self.connections.silent).remove(silent));
        if found.is_some_and(|connection| connection.is_none()) {
            self.connections.changed.notify_waiters();
        }
    }

    /// True once a request's head has come: its answer may still be under way.
    pub(super) fn has_spoken(&self) -> bool {
        self.has_spoken.load(Ordering::Relaxed)
    }

    pub(super) fn is_silent(&self) -> bool {
        lock(&self.silent).is_some()
    }
}

impl Drop for EndpointConnection {
    fn drop(&mut self) {
        self.end_silence();
    }
}

/// Locks a mutex; nothing panics while it is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use std::net::IpAddr;

    async fn connect(connections: &Arc<EndpointConnections>, client: &str) -> EndpointConnection {
        let permit = connections.permit().await.expect("a permit");
        let ip: IpAddr = client.parse().expect("an address");
        connections.enter(Peer::tcp((ip, 1).into()), permit)
    }

    fn leaving(clients: &[EndpointConnection]) -> Vec<bool> {
        let leaving = clients.iter().map(|client| client.leave.is_cancelled());
        leaving.collect()
    }

    #[tokio::test]
    async fn the_oldest_silent_one_of_the_source_with_most_leaves() {
        let connections = EndpointConnections::new(4);
        let mut clients = Vec::new();
        for client in ["192.0.2.9", "192.0.2.1", "192.0.2.1", "192.0.2.1"] {
            clients.push(connect(&connections, client).await);
        }
        clients[1].speak();
        assert!(connections.permit().now_or_never().is_none());
        assert_eq!(leaving(&clients), [false, false, true, false]);
        drop(clients.remove(2));
        clients.push(connect(&connections, "192.0.2.9").await);
        assert!(connections.permit().now_or_never().is_none());
        assert_eq!(leaving(&clients), [true, false, false, false]);
    }

    #[tokio::test]
    async fn one_that_falls_silent_leaves_for_one_that_waits() {
        let connections = EndpointConnections::new(1);
        let busy = connect(&connections, "::1").await;
        busy.speak();
        let mut waiting = pin!(connections.permit());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(!busy.leave.is_cancelled());
        busy.fall_silent();
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(busy.leave.is_cancelled());
        drop(busy);
        assert!(waiting.await.is_some());
    }
}
