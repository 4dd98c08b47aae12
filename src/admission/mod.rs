//! Whether a client may come in, and what it counts for as long as it is there: access lists, the
//! limits of the process, a listener and a source, and the permits that count against them.

mod access;
mod limits;
mod listener;
mod memory;
mod silence;
mod sources;

pub use access::AccessList;
pub use limits::{ConnectionPermit, Limits, SetupPermit};
pub use listener::{AdmissionRules, ListenerAdmission, ListenerPermit, SourcePermit};
