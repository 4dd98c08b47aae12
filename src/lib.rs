//! Evenkeel: a Layer-4 load balancer and TCP/WebSocket proxy for connections that last.
//!
//! The floors of the crate (ARCHITECTURE.md): a module imports only from lower floors, and rooms on
//! one floor do not know each other:
//!
//! ```text
//!  8  main.rs  cli                               process: command line, runtime, exit code
//!  7  admin                                      HTTP API, /metrics
//!  6  server                                     owns everything: build, reload, stop, signals
//!  5  proxy | health | discovery | cluster       data path | checks | endpoints | shared state
//!  4b relay                                      moving bytes
//!  4a pool  | admission                          choosing and counting | permits and limits
//!  3b remote                                     services beside the data path
//!  3a tls   | observe                            certificates, handshakes | records, counters
//!  2  net                                        sockets, DNS, fds: the only `unsafe`
//!  1  wire  | balance | config                   pure: parsers | pick algorithms | configuration
//!  0  base                                       pure: back-off, names, units
//! ```
#![deny(unsafe_code)]
#![cfg_attr(
    any(test, fuzzing),
    allow(
        clippy::expect_used,
        clippy::match_bool,
        clippy::panic,
        clippy::struct_excessive_bools,
        clippy::too_many_arguments,
        clippy::too_many_lines,
        clippy::unwrap_used,
        unreachable_pub,
        reason = "a test fails by a panic, and says a whole story in one function"
    )
)]

mod base;

pub mod balance;
pub mod config;
pub mod wire;

mod net;

mod observe;
mod tls;

mod remote;

mod admission;
mod pool;

mod relay;

mod cluster;
mod discovery;
mod health;
mod proxy;

mod server;

mod admin;

pub mod cli;

/// Parts that are driven from beside the crate: by its tests, benches and fuzz targets.
#[doc(hidden)]
pub mod parts {
    pub use crate::admission::ConnectionPermit;
    pub use crate::admission::Limits;
    pub use crate::admission::ListenerAdmission;
    pub use crate::observe::Journal;
    pub use crate::observe::ListenerCounters;
    pub use crate::proxy::ListenerSnapshot;
    #[cfg(fuzzing)]
    pub use crate::relay::model;
    pub use crate::tls::record;
}
