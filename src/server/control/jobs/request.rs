//! Requests for jobs: target, action, end and rate.

use std::sync::Arc;
use std::time::Duration;

use super::guard::{EndReason, FailoverGuard};
use super::rebalance_plan::RebalancePlan;
use super::target::JobTarget;
use crate::base::rate::Rate;
use crate::config;
use crate::relay::{CloseFrame, Filter, Relay, SessionInfo, SessionState};

/// Request for a job.
#[derive(Debug, Clone)]
pub(crate) struct JobRequest {
    pub target: JobTarget,
    pub action: JobAction,
    pub(super) until: JobEnd,
    pub pace: DrainRate,
}

/// Action on each session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobAction {
    Close,
    /// Moves the session to another backend where it can be resumed; closes it otherwise.
    MoveOrClose,
    /// Moves the session to another backend; one that cannot be resumed stays.
    Move,
}

/// Condition that ends a job.
#[derive(Debug, Clone)]
pub(super) enum JobEnd {
    /// The target has no connections.
    Empty,
    /// Each session that was there at the start was ended.
    AllEnded,
    /// No backend that could take connections lacks any, or no other one has some to give.
    Balanced(Arc<RebalancePlan>),
}

/// Rate at which connections are ended.
#[derive(Debug, Clone)]
pub(crate) struct DrainRate {
    /// At least one of `rate` and `deadline` is there.
    pub rate: Option<Rate>,
    pub deadline: Option<Duration>,
    /// Time for connections to end by themselves first.
    pub after: Duration,
    pub close_frame: Arc<CloseFrame>,
    /// The rate is this balancer's alone. Else it is of all balancers of its cluster, and each ends
    /// its part.
    pub is_local: bool,
}

/// Origin of a job.
#[derive(Debug, Clone)]
pub(crate) enum JobOrigin {
    /// The operator, or a rebalance.
    Operator,
    /// A backend that discovery drains, or does not list any more.
    Discovery,
    /// Failover of a pool, whose guard grants each portion.
    Health(Arc<FailoverGuard>, EndReason),
}

impl JobRequest {
    /// Empties a backend or a listener; ends each session that is there of a pool or a filter.
    pub(crate) fn drain(target: JobTarget, pace: DrainRate) -> JobRequest {
        let (action, until) = match &target {
            JobTarget::Backend(_) => (JobAction::MoveOrClose, JobEnd::Empty),
            JobTarget::Listener(_) => (JobAction::Close, JobEnd::Empty),
            JobTarget::Pool(_) | JobTarget::Filter(_) => (JobAction::Close, JobEnd::AllEnded),
        };
        JobRequest {
            target,
            action,
            until,
            pace,
        }
    }

    /// Closes or moves each session that matches now.
    pub(crate) fn matching(filter: Filter, action: JobAction, pace: DrainRate) -> JobRequest {
        JobRequest {
            target: JobTarget::Filter(Box::new(filter)),
            action,
            until: JobEnd::AllEnded,
            pace,
        }
    }

    /// Moves connections to the backends that are below their share.
    pub(in crate::server) fn rebalance(plan: RebalancePlan, pace: DrainRate) -> JobRequest {
        JobRequest {
            target: JobTarget::Pool(Arc::clone(&plan.pool)),
            action: JobAction::MoveOrClose,
            until: JobEnd::Balanced(Arc::new(plan)),
            pace,
        }
    }
}

impl JobAction {
    /// Whether the action is for `session`. A session that changes its backend goes on with the
    /// next one, unless it is closed; one that is closing needs nothing.
    pub(super) fn applies_to(self, session: &SessionInfo) -> bool {
        match self {
            JobAction::Close => session.state != SessionState::Closing,
            JobAction::MoveOrClose => session.state == SessionState::Relaying,
            JobAction::Move => session.is_resumable && session.state == SessionState::Relaying,
        }
    }

    pub(super) fn apply(self, relay: &Relay, session: &SessionInfo, close: &Arc<CloseFrame>) {
        match self {
            JobAction::Close => relay.close_one(session.handle, close),
            JobAction::MoveOrClose | JobAction::Move => relay.migrate(session.handle, close),
        }
    }
}

impl JobOrigin {
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            JobOrigin::Operator => "operator",
            JobOrigin::Discovery => "discovery",
            JobOrigin::Health(..) => "health",
        }
    }

    pub(super) fn is_operator(&self) -> bool {
        matches!(self, JobOrigin::Operator)
    }

    pub(super) fn is_health(&self) -> bool {
        matches!(self, JobOrigin::Health(..))
    }
}

impl From<&config::Drain> for DrainRate {
    fn from(drain: &config::Drain) -> DrainRate {
        let config::Drain {
            rate,
            deadline,
            after,
            close,
        } = drain;
        DrainRate {
            rate: *rate,
            deadline: *deadline,
            after: *after,
            close_frame: Arc::new(CloseFrame::new(close.code, &close.reason)),
            is_local: false,
        }
    }
}
