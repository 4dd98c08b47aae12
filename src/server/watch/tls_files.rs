//! Watches the files that TLS is made of, and those of pools.
//!
//! An event makes it look at all of them, and so does a poll where events may be lost.

use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch::Receiver;

use super::pool_files::PoolFiles;
use super::watched_files::WatchedFiles;
use super::watcher::Watcher;
use crate::server::lock::lock;
use crate::server::state::Server;
use crate::tls::{RefreshOutcome, TlsAcceptor};

/// Time until the look that follows one that panicked.
const AFTER_PANIC: Duration = Duration::from_secs(2);

/// The TLS files of listeners and endpoints, and the files of pools.
pub(super) struct TlsFiles {
    state: FilesState,
    committed: Receiver<()>,
}

/// State that a look takes to a thread that may block.
#[derive(Default)]
struct FilesState {
    watched: WatchedFiles,
    pools: PoolFiles,
}

impl TlsFiles {
    /// `committed` is notified of reloads.
    pub(super) fn new(committed: Receiver<()>) -> TlsFiles {
        TlsFiles {
            state: FilesState::default(),
            committed,
        }
    }
}

impl Watcher for TlsFiles {
    const NAME: &str = "watch of TLS files";

    async fn look(&mut self, server: &Arc<Server>) -> Option<Duration> {
        if !*server.watching.borrow() {
            self.state = FilesState::default();
            return None;
        }
        let (running, mut state) = (Arc::clone(server), mem::take(&mut self.state));
        let look = server.control_runtime().spawn_blocking(move || {
            let wait = running.look_at_files(&mut state);
            (wait, state)
        });
        // A look that panicked is made again.
        let again = |_| (Some(AFTER_PANIC), FilesState::default());
        let (wait, state) = look.await.unwrap_or_else(again);
        self.state = state;
        wait
    }

    /// Returns after a change, and after a reload: there may be other files. Fails when the server
    /// is gone.
    async fn event(&mut self) {
        tokio::select! {
            () = self.state.watched.event() => {}
            _ = self.committed.changed() => {}
        }
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
    fn look_at_files(&self, state: &mut FilesState) -> Option<Duration> {
        let acceptors = self.tls_acceptors();
        let mut files: Vec<PathBuf> = acceptors
            .iter()
            .flat_map(|one| one.files())
            .cloned()
            .collect();
        files.extend(PoolFiles::named(&lock(&self.live).config));
        // Before the files are read, so that a write in between is told.
        let poll = state.watched.watch(&files);
        let now = Instant::now();
        let rest = |acceptor: &Arc<TlsAcceptor>| match acceptor.refresh(now) {
            RefreshOutcome::Unsettled(rest) => Some(rest),
            RefreshOutcome::Same | RefreshOutcome::Reloaded => None,
        };
        // Each is looked at, whatever the others say.
        let unsettled = acceptors.iter().filter_map(rest);
        let unsettled = unsettled.chain(state.pools.look(self, now)).min();
        unsettled.or_else(|| (!files.is_empty()).then_some(poll))
    }
}
