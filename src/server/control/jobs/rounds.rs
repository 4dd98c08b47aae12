//! Rounds of a job: which sessions it ends next, and when it is done. One implementation for each
//! `JobEnd`; that of rebalances is in `balanced`.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::request::JobAction;
use super::target::JobTarget;
use crate::relay::{Handle, Relay, SessionInfo};

/// A list of sessions is used for so long: idle times change.
const LIST_AGE: Duration = Duration::from_secs(5);
/// Between two lists when no session is there to be ended: connections that are left are in set-up,
/// or are HTTP requests.
const LIST_SPACING: Duration = Duration::from_secs(1);
/// A listener without established sessions for so long is empty: clients that had been routed have
/// had `upgrade_timeout`. Refused clients are counted for a moment, too: a storm of them would keep
/// the job for ever.
const SETTLED: Duration = Duration::from_secs(15);

/// The sessions that a job ends, list by list.
pub(super) trait Rounds {
    /// Longest time that a list is used.
    const LIST_AGE: Duration = LIST_AGE;

    /// Lists the sessions to end, the quietest last. `left`: those of the list before that were not
    /// ended. `None`: the job is done.
    async fn next(&mut self, left: Option<Vec<SessionInfo>>) -> Option<Vec<SessionInfo>>;

    /// Whether to go on with this list.
    fn lasts(&self, list: &[SessionInfo]) -> bool {
        !list.is_empty()
    }

    /// Whether `session` is still to be ended; counts it as ended.
    fn take(&mut self, _session: &SessionInfo) -> bool {
        true
    }

    /// Sessions still to end, of which `listed` are on the list.
    fn left(&self, listed: u64) -> u64 {
        listed
    }
}

/// Sessions of a target that an action is for.
pub(super) struct Sessions<'a> {
    pub relay: &'a Relay,
    pub target: &'a JobTarget,
    pub action: JobAction,
}

impl Sessions<'_> {
    /// The quietest last.
    pub(super) async fn list(&self) -> Vec<SessionInfo> {
        let mut sessions = self.relay.list_all(self.target.filter()).await;
        sessions.retain(|session| self.action.applies_to(session));
        sessions.sort_by_key(|session| session.idle);
        sessions
    }
}

/// Ends whatever is there, until the target has no connections.
pub(super) struct UntilEmpty<'a> {
    sessions: &'a Sessions<'a>,
    /// When a list had sessions last.
    seen_at: Instant,
}

impl<'a> UntilEmpty<'a> {
    pub(super) fn new(sessions: &'a Sessions<'a>) -> UntilEmpty<'a> {
        UntilEmpty {
            sessions,
            seen_at: Instant::now(),
        }
    }

    fn is_done(&self) -> bool {
        let target = self.sessions.target;
        let is_listener = matches!(target, JobTarget::Listener(_));
        target.live() == Some(0) || is_listener && self.seen_at.elapsed() >= SETTLED
    }
}

impl Rounds for UntilEmpty<'_> {
    async fn next(&mut self, left: Option<Vec<SessionInfo>>) -> Option<Vec<SessionInfo>> {
        if let Some(left) = left {
            if left.is_empty() {
                let _ = timeout(LIST_SPACING, self.sessions.target.emptied()).await;
            }
            if self.is_done() {
                return None;
            }
        }
        let list = self.sessions.list().await;
        if !list.is_empty() {
            self.seen_at = Instant::now();
        }
        Some(list)
    }
}

/// Ends each session that was there at the start.
pub(super) struct UntilAllEnded<'a>(pub &'a Sessions<'a>);

impl Rounds for UntilAllEnded<'_> {
    async fn next(&mut self, left: Option<Vec<SessionInfo>>) -> Option<Vec<SessionInfo>> {
        let Some(left) = left else {
            return Some(self.0.list().await);
        };
        if left.is_empty() {
            return None;
        }
        // The same sessions, in the present order.
        let left: HashSet<Handle> = left.iter().map(|session| session.handle).collect();
        let mut list = self.0.list().await;
        list.retain(|session| left.contains(&session.handle));
        Some(list)
    }
}
