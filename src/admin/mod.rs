//! Admin and metrics endpoints: floor 7, above the server.
//!
//! A request passes `rules` (who may ask), `route` (what is asked) and `api`, which answers it.
//! `operate`, `jobs`, `connections` and `plan` do what is asked; `drain` and `filter` decode it.
//! `caller` and `sessions` say by which right, `events` tells viewers what changes, `embedded` has
//! the page of the endpoint, `directory` the list of routes, of which OpenAPI is made.
//! `snapshot` fills the JSON of `view`, and `metrics` writes it as Prometheus text. The endpoints
//! follow reloads: a new address is bound before the old one is closed, rules and tokens change in
//! place.

mod api;
mod body;
mod caller;
mod cluster;
mod configuration;
mod connections;
mod directory;
mod drain;
mod embedded;
mod endpoint;
mod endpoint_connections;
mod endpoints;
mod events;
mod filter;
mod filter_names;
mod guard;
mod jobs;
mod login;
mod metrics;
#[cfg(test)]
mod openapi;
mod operate;
mod page_body;
mod plan;
mod process;
mod query;
mod refusals;
mod reply;
mod route;
mod rules;
mod sessions;
mod snapshot;
mod stall;
mod tokens;
mod upgrade;
pub(crate) mod view;

pub(crate) use drain::MAX_TIME;
pub(crate) use endpoints::AdminServer;
pub(crate) use filter::{CONDITIONS, network};
pub(crate) use operate::{MAX_WAIT, MAX_WEIGHT};
pub(crate) use query::DEFAULT_LIMIT;
pub(crate) use rules::is_local;
