//! Tests from outside: the built binary, real sockets, real peers. One binary, because each test binary is linked anew.
//!
//! `harness` starts and watches the balancer, `nodes` are backends, `clients` are clients, `wires` are both by hand,
//! `certificates` and `authority` make keys, `threads` counts what a process does.
//! Every other file is a list of behaviours. Nothing here sleeps to let something happen: tests wait for log events,
//! for answers of the admin endpoint and for bytes.

#![expect(
    clippy::expect_used,
    clippy::match_bool,
    clippy::panic,
    clippy::too_many_lines,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by a panic, and says a whole story in one function"
)]

mod authority;
mod certificates;
mod clients;
mod harness;
mod nodes;
mod redis_servers;
mod settings;
mod threads;
mod tls_nodes;
mod wires;
mod zookeeper_writer;

mod access_log;
mod addresses;
mod admin;
mod admin_tokens;
mod admission;
mod algorithms;
mod api_description;
mod asked;
mod backend_tls;
mod badinput;
mod check_requests;
mod checks;
mod close;
mod cluster;
mod cluster_clients;
mod cluster_stores;
mod commands;
mod connections;
mod dashboard;
mod departed;
mod descriptors;
mod discovery;
mod dns;
mod documentation;
mod drain;
mod events;
mod exchange;
mod exchange_forms;
mod exchange_idle;
mod exchange_limits;
mod exchange_memory;
mod exchange_reuse;
mod exchange_smuggling;
mod exchange_stale;
mod exchange_strict;
mod exchange_times;
mod failover;
mod frames;
mod goodbye;
mod handover;
mod health_policy;
mod hosts_file;
mod http;
mod idle;
mod inherited;
mod life;
mod limits;
mod listener_drain;
mod log_readers;
mod logs;
mod losses;
mod memory;
mod metrics;
mod notify;
mod peers;
mod pem_files;
mod plan;
mod pool_files;
mod proxy_protocol;
mod real_client;
mod rebalance;
mod rebind;
mod registries;
mod registry_stand_ins;
mod reload;
mod repeat;
mod resume;
mod server_names;
mod silence;
mod silent_nodes;
mod socket_files;
mod sockets;
mod spelling;
mod sticky;
mod storm;
mod tags;
mod tls;
#[cfg(feature = "top")]
mod top;
#[cfg(feature = "traces")]
mod traces;
mod upgrade;
mod upgrade_live;
mod upgrade_refused;
mod wakes;
mod websocket;
