//! Means of a WebSocket to outlive its backend, and whether it may.

mod moved;

use std::sync::Arc;
use std::time::Duration;

use super::message_times::MessageTimes;
use crate::base::rate::Bucket;
use crate::config;
use crate::relay::clock::Tick;
use crate::relay::resume_policy::{LostMessages, Migrator, ResumePolicy};

/// A backend that goes without an answer after less time than this has not served the session,
/// whose gap goes on and is bounded as one: a backend that takes a connection and closes it again
/// would otherwise be asked for ever.
const SHORT_SERVICE: Duration = Duration::from_secs(1);

/// Data of a session that may outlive its backend.
pub(in crate::relay) struct ResumeState {
    pub migrator: Arc<dyn Migrator>,
    pub settings: Arc<config::Resume>,
    /// Changes that its backends have caused.
    changes: Bucket,
    pub times: MessageTimes,
    /// How its present backend took it over; `None`: it is the first one.
    pub takeover: Option<Takeover>,
}

/// How a session came to its backend.
#[derive(Debug, Clone, Copy)]
pub(in crate::relay) struct Takeover {
    /// When it had lost the backend before.
    pub since: Tick,
    /// When the present backend took its place.
    pub from: Tick,
    /// Messages that went with the backend before. Whether the present one has made anything of
    /// them is not known before it answers a Close of ours.
    pub lost: LostMessages,
}

impl Takeover {
    pub(crate) fn is_short(self, now: Tick) -> bool {
        Duration::from(now.since(self.from)) < SHORT_SERVICE
    }
}

impl ResumeState {
    pub(crate) fn new(policy: ResumePolicy, has_sent: bool, now: Tick) -> ResumeState {
        let ResumePolicy { settings, migrator } = policy;
        ResumeState {
            migrator,
            settings,
            changes: Bucket::default(),
            times: MessageTimes::new(has_sent, now),
            takeover: None,
        }
    }

    /// Counts one more change that a backend has caused; false: there were too many.
    pub(crate) fn may_change(&self, now: Tick) -> bool {
        self.changes.take(self.settings.max, now.since_origin())
    }

    /// The backend was sent nothing for `settle`.
    pub(crate) fn is_quiet(&self, now: Tick) -> bool {
        self.times.is_quiet(self.settings.settle, now)
    }
}
