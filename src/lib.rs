//! Evenkeel: a Layer-4 load balancer and TCP/WebSocket proxy for connections that last.
//!
//! The floors of the crate; a module imports only from lower floors, and rooms on one floor do not know each other:
//!
//! ```text
//!  8  main.rs  cli                               process: command line, runtime, exit code
//!  7  admin                                      HTTP API, /metrics
//!  6  server                                     owns everything: build, reload, stop, signals
//!  5  proxy | health | discovery                 data path | checks | endpoints
//!  4b relay                                      moving bytes
//!  4a pool  | admission                          choosing and counting | permits and limits
//!  3  tls   | observe                            certificates, handshakes | records, logs, counters
//!  2  net                                        sockets, DNS, fds: the only `unsafe`
//!  1  wire  | balance | config                   pure: parsers | pick algorithms | typed configuration
//!  0  base                                       pure: back-off, names, units
//! ```
#![deny(unsafe_code)]

pub mod base;

pub mod balance;
pub mod config;
pub mod wire;

pub mod net;

pub mod observe;
pub mod tls;

pub mod admission;
pub mod pool;

pub mod relay;

pub mod discovery;
pub mod health;
pub mod proxy;

pub(crate) mod server;

pub mod admin;

pub mod cli;
