//! A running job as it goes to the next process in an upgrade, which goes on with it. Jobs of
//! failover and discovery, and rebalances, stay behind: the next process judges for itself.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::job::Job;
use super::request::{DrainRate, JobAction, JobEnd, JobRequest};
use super::target::JobTarget;
use crate::relay::{CloseFrame, Filter};

/// State of one job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::server) struct JobState {
    pub id: u64,
    pub target: TargetName,
    action: String,
    rate: Option<String>,
    /// What is left of it.
    deadline: Option<Duration>,
    /// What is left of the time for connections to end by themselves.
    after: Duration,
    close_code: u16,
    close_reason: String,
    #[serde(default)]
    is_local: bool,
    pub ended: u64,
    pub started_at: SystemTime,
}

/// Target by its names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::server) enum TargetName {
    Backend { pool: String, backend: String },
    Listener(String),
    Filter(Box<FilterState>),
}

/// Conditions of a filter.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::server) struct FilterState {
    id: Option<u64>,
    listener: Option<String>,
    pool: Option<String>,
    backend: Option<String>,
    client: Option<String>,
    tag: Option<String>,
    host: Option<String>,
    path: Option<String>,
    sni: Option<String>,
    subject: Option<String>,
    min_age: Duration,
    min_idle: Duration,
}

impl Job {
    /// `None`: the job is over, or another's than the operator's.
    pub(in crate::server) fn hand_over(&self) -> Option<JobState> {
        if !self.is_running() || !self.origin.is_operator() {
            return None;
        }
        let target = match &self.target {
            JobTarget::Backend(backend) => TargetName::Backend {
                pool: backend.pool().to_string(),
                backend: backend.name().to_string(),
            },
            JobTarget::Listener(listener) => TargetName::Listener(listener.name.to_string()),
            JobTarget::Filter(filter) => TargetName::Filter(Box::new(FilterState::of(filter))),
            // Only a rebalance has this one.
            JobTarget::Pool(_) => return None,
        };
        let age = self.started_at.elapsed().unwrap_or_default();
        let after = self.pace.after.saturating_sub(age);
        let worked = age.saturating_sub(self.pace.after);
        let deadline = self.pace.deadline;
        Some(JobState {
            id: self.id,
            target,
            action: action_word(self.action).to_owned(),
            rate: self.pace.rate.map(|rate| rate.to_string()),
            deadline: deadline.map(|deadline| deadline.saturating_sub(worked)),
            after,
            close_code: self.pace.close_frame.code,
            close_reason: self.pace.close_frame.reason.to_string(),
            is_local: self.pace.is_local,
            ended: self.ended(),
            started_at: self.started_at,
        })
    }
}

impl JobState {
    /// The request of a job that goes on with it. `None`: it names an action of a newer version.
    pub(in crate::server) fn request(&self, target: JobTarget) -> Option<JobRequest> {
        let action = match self.action.as_str() {
            "close" => JobAction::Close,
            "move_or_close" => JobAction::MoveOrClose,
            "move" => JobAction::Move,
            _ => return None,
        };
        let until = match &target {
            JobTarget::Backend(_) | JobTarget::Listener(_) => JobEnd::Empty,
            JobTarget::Pool(_) | JobTarget::Filter(_) => JobEnd::AllEnded,
        };
        let rate = self.rate.as_ref().map(|rate| rate.parse());
        let close_frame = CloseFrame::new(self.close_code, &self.close_reason);
        Some(JobRequest {
            target,
            action,
            until,
            pace: DrainRate {
                rate: rate.transpose().ok()?,
                deadline: self.deadline,
                after: self.after,
                close_frame: std::sync::Arc::new(close_frame),
                is_local: self.is_local,
            },
        })
    }
}

fn action_word(action: JobAction) -> &'static str {
    match action {
        JobAction::Close => "close",
        JobAction::MoveOrClose => "move_or_close",
        JobAction::Move => "move",
    }
}

impl FilterState {
    fn of(filter: &Filter) -> FilterState {
        let filter = filter.clone();
        FilterState {
            id: filter.id,
            listener: filter.listener,
            pool: filter.pool,
            backend: filter.backend,
            client: filter.client.map(|client| client.to_string()),
            tag: filter.tag,
            host: filter.host,
            path: filter.path,
            sni: filter.sni,
            subject: filter.subject,
            min_age: filter.min_age,
            min_idle: filter.min_idle,
        }
    }

    /// `None`: it cannot be read, and a filter without one of its conditions would be another.
    pub(in crate::server) fn filter(&self) -> Option<Filter> {
        let state = self.clone();
        let client = state.client.map(|client| client.parse());
        Some(Filter {
            id: state.id,
            listener: state.listener,
            pool: state.pool,
            backend: state.backend,
            client: client.transpose().ok()?,
            tag: state.tag,
            host: state.host,
            path: state.path,
            sni: state.sni,
            subject: state.subject,
            min_age: state.min_age,
            min_idle: state.min_idle,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::control::jobs::request::JobOrigin;

    #[test]
    fn the_operator_s_jobs_are_handed_over_and_no_others() {
        let job = |origin| {
            let pace = DrainRate {
                rate: None,
                deadline: None,
                after: Duration::ZERO,
                close_frame: std::sync::Arc::new(CloseFrame::new(1001, "")),
                is_local: false,
            };
            let target = JobTarget::Filter(Box::default());
            Job::new(1, origin, JobRequest::drain(target, pace))
        };
        assert!(job(JobOrigin::Operator).hand_over().is_some());
        assert!(job(JobOrigin::Discovery).hand_over().is_none());
    }
}
