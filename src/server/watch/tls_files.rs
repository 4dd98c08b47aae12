//! Watches the files that TLS is made of, and those of pools.
//!
//! Only a poll: a link that is swapped in another folder, a network file system or a write within a
//! mapped file raise no event.

use std::mem;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch::Receiver;

use super::pool_files::PoolFiles;
use super::watcher::Watcher;
use crate::server::lock::lock;
use crate::server::state::Server;
use crate::tls::{RefreshOutcome, SETTLE_TIME, TlsAcceptor};

/// Between two looks; two seconds are nothing to a certificate.
const POLL: Duration = Duration::from_secs(2);

/// The TLS files of listeners and endpoints, and the files of pools.
pub(super) struct TlsFiles {
    pools: PoolFiles,
    committed: Receiver<()>,
}

impl TlsFiles {
    /// `committed` is notified of reloads.
    pub(super) fn new(committed: Receiver<()>) -> TlsFiles {
        TlsFiles {
            pools: PoolFiles::default(),
            committed,
        }
    }
}

impl Watcher for TlsFiles {
    const NAME: &str = "watch of TLS files";

    async fn look(&mut self, server: &Arc<Server>) -> Option<Duration> {
        if !*server.watching.borrow() {
            return None;
        }
        let (running, mut pools) = (Arc::clone(server), mem::take(&mut self.pools));
        let look = server.control_runtime().spawn_blocking(move || {
            let wait = running.look_at_files(&mut pools);
            (wait, pools)
        });
        // A look that panicked is made again.
        let (wait, pools) = look.await.unwrap_or((Some(POLL), PoolFiles::default()));
        self.pools = pools;
        wait
    }

    /// Returns after a reload: there may be other files. Fails when the server is gone.
    async fn event(&mut self) {
        let _ = self.committed.changed().await;
    }
}

impl Server {
    /// Watches the files of an acceptor above the listeners, that of the admin endpoint, for as
    /// long as it lives.
    pub(crate) fn watch_tls(&self, acceptor: &Arc<TlsAcceptor>) {
        let mut endpoints = lock(&self.endpoint_tls);
        endpoints.retain(|known| known.strong_count() > 0);
        endpoints.push(Arc::downgrade(acceptor));
    }

    /// The acceptors that were passed to [`Server::watch_tls`] and that still live.
    pub(crate) fn endpoint_tls(&self) -> Vec<Arc<TlsAcceptor>> {
        let endpoints = lock(&self.endpoint_tls);
        endpoints.iter().filter_map(Weak::upgrade).collect()
    }

    /// The acceptors of the listeners and of the endpoints.
    pub(super) fn tls_acceptors(&self) -> Vec<Arc<TlsAcceptor>> {
        let listeners = lock(&self.live).listeners.clone();
        let own = listeners.iter().filter_map(|one| one.rules().tls.clone());
        own.chain(self.endpoint_tls()).collect()
    }

    /// Time until the next look; `None`: there are no files. Blocks on file I/O.
    fn look_at_files(&self, pools: &mut PoolFiles) -> Option<Duration> {
        let acceptors = self.tls_acceptors();
        let unsettled = acceptors
            .iter()
            .filter(|one| one.refresh() == RefreshOutcome::Unsettled);
        let unsettled = unsettled.count();
        if pools.look(self) || unsettled > 0 {
            Some(SETTLE_TIME)
        } else if acceptors.is_empty() && pools.is_empty() {
            None
        } else {
            Some(POLL)
        }
    }
}
