//! Counts of the connections and requests that the endpoints refused.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::AUTHORIZATION;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::reply::ApiError;
use crate::base::log_throttle::LogThrottle;
use crate::net::Peer;
use crate::observe::{Metric, counters};

/// Refusals of both endpoints: each of them shows all.
#[derive(Debug, Default)]
pub(super) struct RefusalTotals {
    pub admin: EndpointRefusals,
    pub metrics: EndpointRefusals,
}

counters! {
    /// Refusals of one endpoint.
    pub(crate) struct EndpointRefusals {}

    /// Values of [`EndpointRefusals`] at one moment.
    pub(crate) struct EndpointValues {
        /// Connections refused by `allow` or `deny`
        denied = Metric::counter("endpoint_refused_connections")
            .label("reason", "denied")
            .help("Connections and requests to [admin] and [metrics] that were refused"),
        /// Silent connections closed in favour of others
        silent = Metric::counter("endpoint_refused_connections").label("reason", "silent"),
        /// Requests whose token does not permit them
        forbidden = Metric::counter("endpoint_refused_connections").label("reason", "forbidden"),
        /// Requests with a wrong token
        wrong_token = Metric::counter("endpoint_refused_connections")
            .label("reason", "wrong_token"),
    }
}

impl Default for EndpointRefusals {
    fn default() -> EndpointRefusals {
        EndpointRefusals::zero()
    }
}

/// Values of both endpoints, for the next process.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct RefusalValues {
    admin: EndpointValues,
    metrics: EndpointValues,
}

impl RefusalValues {
    pub(super) fn of(totals: &RefusalTotals) -> RefusalValues {
        RefusalValues {
            admin: totals.admin.values(),
            metrics: totals.metrics.values(),
        }
    }

    /// Adds what has grown in another process.
    pub(super) fn add_growth(&self, before: &RefusalValues, totals: &RefusalTotals) {
        totals.admin.grow(&before.admin, &self.admin);
        totals.metrics.grow(&before.metrics, &self.metrics);
    }
}

impl RefusalTotals {
    /// Reads the counters of each endpoint, by its name.
    pub(super) fn values(&self) -> [(&'static str, EndpointValues); 2] {
        [
            ("admin", self.admin.values()),
            ("metrics", self.metrics.values()),
        ]
    }
}

/// Throttle of the warnings of wrong tokens: who guesses sends many. All of them are counted.
static WRONG_TOKENS: LogThrottle = LogThrottle::new(Duration::from_secs(10));

impl EndpointRefusals {
    /// Counts a wrong token, if `error` refuses one. A request without any guesses nothing.
    pub(super) fn note_guess(&self, peer: Peer, head: &Parts, error: &ApiError) {
        let has_token = head.headers.contains_key(AUTHORIZATION) || head.uri.path() == "/login";
        if error.status != StatusCode::UNAUTHORIZED || !has_token {
            return;
        }
        self.wrong_token.fetch_add(1, Relaxed);
        if WRONG_TOKENS.is_due(Instant::now()) {
            warn!(%peer, reason = "wrong_token", "admin request refused");
        }
    }
}
