//! Rounds of a rebalance: moves quiet sessions from backends above their share, by another backend
//! that resumes them, or else by a close, which makes the client come back to where there is room.
//!
//! No backend is brought below its share, however many sessions leave by themselves meanwhile, and
//! nothing is ended any more once no backend lacks connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::rebalance_plan::{OverloadedBackend, RebalancePlan};
use super::rounds::Rounds;
use crate::pool::TrafficShift;
use crate::relay::{Handle, Relay, SessionInfo};

/// Clients take up to 5 s to come back (RFC 6455 section 7.2.3): so long the traffic shift lasts.
const RETURN_WAIT: Duration = Duration::from_secs(5);
/// Between two looks whether backends still lack connections.
const LOOK_SPACING: Duration = Duration::from_millis(100);

/// Moves sessions until no backend lacks connections.
pub(super) struct UntilBalanced<'a> {
    plan: &'a RebalancePlan,
    relay: &'a Relay,
    /// Progress by backend of `plan.overloaded`.
    progress: Vec<MoveProgress>,
    /// Index of the backend of each listed session.
    backends: HashMap<Handle, usize>,
    /// Leads new connections away from the overloaded backends.
    _shift: TrafficShift,
}

/// Progress with one overloaded backend.
#[derive(Debug, Clone, Copy, Default)]
struct MoveProgress {
    moved: u64,
    /// Sessions that are leaving: as of the latest list, and moved since then.
    leaving: u64,
}

impl<'a> UntilBalanced<'a> {
    pub(super) fn new(plan: &'a RebalancePlan, relay: &'a Relay) -> UntilBalanced<'a> {
        let overloaded = plan.overloaded.iter();
        let backends = overloaded.map(|one| Arc::clone(&one.backend)).collect();
        UntilBalanced {
            plan,
            relay,
            progress: vec![MoveProgress::default(); plan.overloaded.len()],
            backends: HashMap::new(),
            _shift: plan.pool.shift_traffic_from(backends),
        }
    }

    /// Sessions that may be moved now, the quietest last.
    async fn list(&mut self) -> Vec<SessionInfo> {
        let mut list = Vec::new();
        self.backends.clear();
        for (index, one) in self.plan.overloaded.iter().enumerate() {
            let left = one.count - self.progress[index].moved;
            if left == 0 || !one.backend.takes_new() {
                continue;
            }
            let (sessions, leaving) = self.plan.movable(&one.backend, self.relay).await;
            self.progress[index].leaving = leaving;
            let above = above(one, &self.progress[index]).min(left);
            let most = usize::try_from(above).unwrap_or(usize::MAX);
            for session in sessions.into_iter().rev().take(most) {
                self.backends.insert(session.handle, index);
                list.push(session);
            }
        }
        list.sort_by_key(|one| one.idle);
        list
    }
}

impl Rounds for UntilBalanced<'_> {
    /// Short: a list says how many of the sessions that were moved are still counted.
    const LIST_AGE: Duration = Duration::from_secs(1);

    async fn next(&mut self, _left: Option<Vec<SessionInfo>>) -> Option<Vec<SessionInfo>> {
        if self.plan.helps() {
            let list = self.list().await;
            if !list.is_empty() {
                return Some(list);
            }
        }
        let moved_all = Instant::now();
        while self.plan.helps() && moved_all.elapsed() < RETURN_WAIT {
            sleep(LOOK_SPACING).await;
        }
        None
    }

    fn lasts(&self, _list: &[SessionInfo]) -> bool {
        self.plan.helps()
    }

    /// False for a session of a backend that others have left by themselves: the fewer are moved.
    fn take(&mut self, session: &SessionInfo) -> bool {
        let Some(&index) = self.backends.get(&session.handle) else {
            return false;
        };
        let progress = &mut self.progress[index];
        let takes = above(&self.plan.overloaded[index], progress) > 0;
        progress.moved += u64::from(takes);
        progress.leaving += u64::from(takes);
        takes
    }

    fn left(&self, _listed: u64) -> u64 {
        let moved: u64 = self.progress.iter().map(|one| one.moved).sum();
        self.plan.count() - moved
    }
}

/// Connections above the share, without those that are leaving. A connection that has left since
/// the list is taken off twice: rather too few than one too many, until the next list.
fn above(one: &OverloadedBackend, progress: &MoveProgress) -> u64 {
    let live = one.backend.live();
    live.saturating_sub(one.share + progress.leaving)
}
