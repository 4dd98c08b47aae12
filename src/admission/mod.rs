//! Admission: whether a client may come in, and what it counts for while it is there.
//!
//! [`Limits`] are the process's, [`ListenerAdmission`] is a listener's: its access list, its limits
//! and those of each source. A connection that comes in holds a [`SetupPermit`] until it is routed,
//! then a [`ConnectionPermit`] to its end. A balancer's connection carries sessions of many
//! clients; each of these holds a [`SourcePermit`].

mod access;
mod counts;
mod limits;
mod listener;
mod memory;
mod permits;
mod shared_sources;
mod silence;
mod sources;

pub(crate) use access::AccessList;
pub use limits::Limits;
pub(crate) use listener::AdmissionRules;
pub use listener::ListenerAdmission;
pub use permits::ConnectionPermit;
pub(crate) use permits::SetupPermit;
pub(crate) use permits::SourcePermit;
pub(crate) use shared_sources::{SharedSources, SourceGauge, SourceKey, keep_most};
