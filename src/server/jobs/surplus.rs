//! The job that moves connections from backends above their share to those below: the quiet ones are ended, and their
//! clients reconnect to where there is room.
//!
//! What was planned is the most that is done: nobody is brought below what it is to keep, whoever leaves by itself
//! meanwhile, and nothing is ended any more once nobody is left who lacks connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::quota::Quota;
use super::{Job, PORTION_SPACING};
use crate::pool::{Backend, Pool};
use crate::proxy::Relay;
use crate::relay::{Filter, SessionInfo};

/// A look at the table is used for so long: it says how many of those that were told are still counted.
const LOOK_GOOD_FOR: Duration = Duration::from_secs(1);
/// Clients take up to 5 s to come back (RFC 6455 section 7.2.3): so long they still find the way.
const RETURN_WAIT: Duration = Duration::from_secs(5);

/// Whose connections are moved.
#[derive(Debug, Clone)]
pub struct RebalancePlan {
    pub pool: Arc<Pool>,
    pub donors: Vec<OverloadedBackend>,
    /// Who lacks connections, and how many each is to have.
    pub takers: Vec<(Arc<Backend>, u64)>,
    pub min_age: Duration,
    /// Sessions that cannot be told are moved, too.
    pub untold: bool,
}

/// A backend above its share.
#[derive(Debug, Clone)]
pub struct OverloadedBackend {
    pub backend: Arc<Backend>,
    /// Its share.
    pub keep: u64,
    /// Connections to be moved, at most.
    pub count: u64,
}

impl RebalancePlan {
    /// Connections to be moved, at most.
    pub fn count(&self) -> u64 {
        self.donors.iter().map(|donor| donor.count).sum()
    }

    /// Those of a backend that may be moved, the quietest last; and how many are on their way out.
    pub async fn movable(&self, backend: &Backend, relay: &Relay) -> (Vec<SessionInfo>, u64) {
        let of_backend = Filter {
            pool: Some(backend.pool().to_string()),
            backend: Some(backend.name().to_string()),
            ..Filter::default()
        };
        let is_going = |one: &SessionInfo| one.is_parting || one.is_changing;
        let mut standing = relay.list_all(of_backend).await;
        let parting = standing.iter().filter(|one| is_going(one)).count() as u64;
        standing.retain(|one| {
            !is_going(one) && one.age >= self.min_age && (one.is_told || self.untold)
        });
        standing.sort_by_key(|one| one.idle);
        (standing, parting)
    }

    /// Somebody who can take connections lacks some.
    fn helps(&self) -> bool {
        let lacks =
            |(backend, share): &(Arc<Backend>, u64)| backend.takes_new() && backend.live() < *share;
        self.takers.iter().any(lacks)
    }

    pub(super) async fn work(&self, job: &Job, relay: &Relay) {
        let relieved = self.donors.iter().map(|donor| Arc::clone(&donor.backend));
        let _relief = self.pool.shift_traffic_from(relieved.collect());
        let began = Instant::now();
        let mut quota = Quota::new(job.pace.rate, job.pace.deadline);
        let mut progress = vec![DonorProgress::default(); self.donors.len()];
        while self.helps() {
            let looked = Instant::now();
            let mut turns = self.look(relay, &mut progress).await;
            if turns.is_empty() {
                break;
            }
            while looked.elapsed() < LOOK_GOOD_FOR && self.helps() {
                let now = began.elapsed();
                let due = quota.take(turns.len() as u64, now);
                self.move_some(job, relay, &mut turns, &mut progress, due);
                let given: u64 = progress.iter().map(|of| of.given).sum();
                let left = self.count() - given;
                job.tell(left, quota.left_in(left, now));
                sleep(PORTION_SPACING.mul_f64(0.5 + fastrand::f64())).await;
            }
        }
        let told_all = Instant::now();
        while self.helps() && told_all.elapsed() < RETURN_WAIT {
            sleep(PORTION_SPACING).await;
        }
    }

    /// Who may be moved now, the quietest last.
    async fn look(&self, relay: &Relay, progress: &mut [DonorProgress]) -> Vec<NextMove> {
        let mut turns = Vec::new();
        for (at, donor) in self.donors.iter().enumerate() {
            let left = donor.count - progress[at].given;
            if left == 0 || !donor.backend.takes_new() {
                continue;
            }
            let (standing, parting) = self.movable(&donor.backend, relay).await;
            progress[at].leaving = parting;
            let above = donor.above(&progress[at]).min(left);
            let most = usize::try_from(above).unwrap_or(usize::MAX);
            let quiet = standing.into_iter().rev().take(most);
            turns.extend(quiet.map(|one| NextMove { donor: at, one }));
        }
        turns.sort_by_key(|turn| turn.one.idle);
        turns
    }

    fn move_some(
        &self,
        job: &Job,
        relay: &Relay,
        turns: &mut Vec<NextMove>,
        progress: &mut [DonorProgress],
        due: u64,
    ) {
        for _ in 0..due {
            let Some(NextMove { donor: at, one }) = turns.pop() else {
                return;
            };
            let of = &mut progress[at];
            // Who has left by itself leaves the fewer to be moved.
            if self.donors[at].above(of) > 0 {
                of.given += 1;
                of.leaving += 1;
                send_away(job, relay, &one);
            }
        }
    }
}

/// The one place where a connection is moved: to another backend where it can outlive its own, or else by its end, which makes
/// the client come back, to where there is room.
fn send_away(job: &Job, relay: &Relay, one: &SessionInfo) {
    job.target.end(relay, one.handle, &job.pace.goodbye);
    job.count_one();
}

impl OverloadedBackend {
    /// Connections above its share, without those that leave. Who has left since the look is taken off twice: rather too
    /// few than one too many, until the next look.
    fn above(&self, progress: &DonorProgress) -> u64 {
        self.backend
            .live()
            .saturating_sub(self.keep + progress.leaving)
    }
}

/// How far it is with one donor.
#[derive(Debug, Clone, Copy, Default)]
struct DonorProgress {
    given: u64,
    /// On their way out: at the latest look, and told since then.
    leaving: u64,
}

/// One that may be moved.
struct NextMove {
    /// Its place among the donors.
    donor: usize,
    one: SessionInfo,
}
