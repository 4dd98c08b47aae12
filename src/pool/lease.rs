//! The count of one connection on one backend.

use std::sync::Arc;

use super::backend::Backend;

/// Counts one connection on one backend, from before its connect. Dropping it frees the place,
/// serves the queue and wakes tasks that wait in `emptied`.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
}

impl Lease {
    /// Counts a new connection. `None` when the backend is closed or full.
    pub(super) fn take(backend: &Arc<Backend>) -> Option<Lease> {
        backend.enter_picked().then(|| Lease {
            backend: backend.clone(),
        })
    }

    /// Counts a connection of a returning client, which a draining backend may admit.
    pub(super) fn take_returning(backend: &Arc<Backend>) -> Option<Lease> {
        backend.enter_returning().then(|| Lease {
            backend: backend.clone(),
        })
    }

    /// Counts a connection that another process has let in, whatever the backend's state and
    /// limit.
    pub(crate) fn enter_anyway(backend: &Arc<Backend>) -> Lease {
        backend.enter_anyway();
        Lease {
            backend: backend.clone(),
        }
    }

    /// Leaves the connection to the next process. Its place stays taken here, so that the two
    /// processes together keep the backend's limit.
    pub(crate) fn hand_over(self) {
        self.backend.note_handed_over();
    }

    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.backend.released();
    }
}
