//! The latest answer of a source, as it is published to the pools that follow it.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::entry::Listing;
use super::fault::{Fault, FaultKind};

/// Latest answer and fault of a source. A follower that is late sees the latest of each.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceState {
    pub listing: Option<Arc<Listing>>,
    /// The source's own mark of that answer; empty where it has none.
    pub revision: String,
    /// Answers so far.
    pub answers: u64,
    /// Fault of the latest request, or of a part of the latest answer.
    pub fault: Option<Fault>,
    /// Faults by kind, in the order of [`FaultKind::ALL`].
    pub faults: [u64; FaultKind::ALL.len()],
}

/// The side that asks the source.
#[derive(Debug)]
pub(super) struct SourcePublisher {
    states: watch::Sender<SourceState>,
    asked: Arc<Notify>,
}

/// The side that follows it.
#[derive(Debug, Clone)]
pub(super) struct SourceFollower {
    pub states: watch::Receiver<SourceState>,
    asked: Arc<Notify>,
}

/// A source's two sides.
pub(super) fn source() -> (SourcePublisher, SourceFollower) {
    let (states, receiver) = watch::channel(SourceState::default());
    let asked = Arc::new(Notify::new());
    let publisher = SourcePublisher {
        states,
        asked: Arc::clone(&asked),
    };
    let follower = SourceFollower {
        states: receiver,
        asked,
    };
    (publisher, follower)
}

impl SourcePublisher {
    /// Publishes an answer; `part_failed`: a part of it is an earlier one's.
    pub(super) fn answered(&self, listing: Listing, revision: &str, part_failed: Option<Fault>) {
        self.states.send_modify(|state| {
            state.answers += 1;
            state.listing = Some(Arc::new(listing));
            revision.clone_into(&mut state.revision);
            state.fault = part_failed;
        });
    }

    /// Publishes that a request failed.
    pub(super) fn failed(&self, fault: Fault) {
        self.states.send_modify(|state| {
            state.faults[fault.kind as usize] += 1;
            state.fault = Some(fault);
        });
    }

    /// Answers so far.
    pub(super) fn answers(&self) -> u64 {
        self.states.borrow().answers
    }

    /// Returns when a follower wants the source to be asked before its time.
    ///
    /// # Cancel safety
    /// A notice stays until it is taken.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }
}

impl SourceFollower {
    /// Has the source asked before its time.
    pub(super) fn ask(&self) {
        self.asked.notify_one();
    }
}
