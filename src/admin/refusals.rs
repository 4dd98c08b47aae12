//! Counts of the connections and requests that the endpoints refused.

use serde::{Deserialize, Serialize};

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
