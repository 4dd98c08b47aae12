//! Floor 6: the server. Owns everything that runs: relay threads, pools, listeners and watchers.
//!
//! - `start` builds a server and lets it serve its first configuration.
//! - `reload` swaps in the next configuration, all or nothing: `prepare`, then `commit`.
//! - `watch` looks at files and pools again and again.
//! - `control` closes and moves live connections: drains, failover, rebalance.
//! - `shutdown` answers signals and ends the server.
//! - `cluster` shares states and loads with other balancers.
//! - `upgrade` hands over to a new binary.
//! - `traces` sends finished spans to a collector.
//!
//! Checks, discovery, watchers and the admin endpoint run on a runtime of their own
//! (`control_runtime`), so that a storm of handshakes cannot starve them.

mod cluster;
mod control;
mod control_runtime;
mod inherited;
mod lifecycle;
mod listeners;
mod live;
mod lock;
mod pool_file;
mod pools;
mod reload;
mod shutdown;
mod signals;
mod start;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod traces;
mod upgrade;
mod watch;

pub(crate) use cluster::SharedAs;
pub(crate) use control::drain::DrainRequest;
pub(crate) use control::jobs;
pub(crate) use inherited::keep_inherited;
pub(crate) use lifecycle::{Lifecycle, StopStage};
pub(crate) use reload::condition::Condition;
pub(crate) use reload::participant::{Commit, ReloadParticipant};
pub(crate) use reload::plan::{PlanTotals, PreviewPart, ReloadPreview};
pub(crate) use reload::source::{ConfigSource, SourceError};
pub(crate) use reload::verify::verify;
pub(crate) use reload::warnings::{warn_of_binds, warn_of_files};
pub(crate) use signals::Signals;
pub(crate) use start::StartError;
pub(crate) use state::Server;
pub(crate) use status::{ListenerState, ListenerStatus, PoolFileStatus};
pub(crate) use upgrade::status::UpgradeTotals;
pub(crate) use upgrade::{CommandLine, OldProcess, SuccessorError, UpgradeError};
