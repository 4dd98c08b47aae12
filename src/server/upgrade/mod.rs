//! Upgrade: hands the listening sockets, the state and the counters of this process to a new one,
//! which was started from the binary at the same path.
//!
//! `old` and `remainder` are the part of the process that hands over, `new` that of the one that
//! takes over. `departing` and `arriving` move live sessions. `message` and `document` are what
//! goes between them over the `channel`. `progress` is what a server keeps of all this.

mod arriving;
mod channel;
mod departing;
mod document;
mod init;
mod launch;
pub(super) mod message;
mod new;
mod old;
pub(super) mod progress;
mod remainder;
pub(super) mod status;
mod successor;
mod takeover;
mod totals;

pub(super) use document::Totals;
pub(super) use init::is_init;
pub(crate) use launch::CommandLine;
pub(crate) use new::OldProcess;
pub(crate) use old::UpgradeError;
pub(crate) use progress::SuccessorError;
