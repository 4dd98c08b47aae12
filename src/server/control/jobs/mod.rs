//! Jobs that close or move live connections at a limited rate.
//!
//! The operator starts them: drains of a backend or a listener, `close` and `move` of the sessions
//! that a filter matches. `rebalance` and `failover` start the others. A job asks the relay which
//! sessions are there, and ends a few at a time, quiet ones first. It belongs to the server, not to
//! a configuration: a reload does not touch it.

mod balanced;
mod budget;
mod guard;
mod handover;
mod job;
mod list;
mod quota;
mod rebalance_plan;
mod request;
mod rounds;
mod target;

pub(in crate::server) use guard::FailoverGuard;
pub(crate) use guard::{EndReason, Panic};
pub(in crate::server) use handover::{JobState, TargetName};
pub(crate) use job::{Job, JobPhase};
pub(crate) use list::{Jobs, TooMany};
pub(in crate::server) use rebalance_plan::{OverloadedBackend, RebalancePlan};
pub(crate) use request::{DrainRate, JobAction, JobRequest};
pub(crate) use target::JobTarget;
pub(in crate::server) use target::backend_filter;
