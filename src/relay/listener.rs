//! Handle of a listening socket from which a worker accepts.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::inbox::{Inbox, WorkerCommand};

/// A listening socket from which a worker accepts.
pub(crate) struct RelayListener {
    number: u32,
    inbox: Arc<Inbox>,
}

impl RelayListener {
    pub(super) fn new(number: u32, inbox: Arc<Inbox>) -> RelayListener {
        RelayListener { number, inbox }
    }

    /// Goes on accepting after [`OnAccept::paused`](super::OnAccept::paused).
    pub(crate) fn resume(&self) {
        self.inbox.send(WorkerCommand::ResumeAccept(self.number));
    }

    /// Serves connections that the kernel has queued, at most `queued` of them whether there is
    /// room or not, and accepts no more.
    pub(crate) async fn close(self, queued: u32) {
        let (done, closed) = oneshot::channel();
        self.inbox.send(WorkerCommand::Unlisten {
            listener: self.number,
            queued,
            done,
        });
        // A worker that has ended accepts nothing.
        let _ = closed.await;
    }
}
