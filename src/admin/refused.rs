//! Counts of the connections and requests that an endpoint turned away.

use std::sync::atomic::{AtomicU64, Ordering};

/// Of both endpoints: whichever is asked shows them all.
#[derive(Debug, Default)]
pub(super) struct RefusalTotals {
    pub admin: EndpointRefusals,
    pub metrics: EndpointRefusals,
}

#[derive(Debug, Default)]
pub(super) struct EndpointRefusals {
    /// By `allow` or `deny`.
    denied: AtomicU64,
    /// Told to leave, while places ran short.
    silent: AtomicU64,
    /// Requests whose token may not do what they ask for.
    forbidden: AtomicU64,
}

/// Number of connections or requests that one endpoint turned away for one reason.
#[derive(Debug, Clone, Copy)]
pub(super) struct RefusalRow {
    pub endpoint: &'static str,
    pub reason: &'static str,
    pub count: u64,
}

impl RefusalTotals {
    pub fn rows(&self) -> Vec<RefusalRow> {
        let both = [("admin", &self.admin), ("metrics", &self.metrics)];
        let rows = both.into_iter().flat_map(|(endpoint, counts)| {
            let reasons = [
                ("denied", &counts.denied),
                ("silent", &counts.silent),
                ("forbidden", &counts.forbidden),
            ];
            reasons.map(|(reason, count)| RefusalRow {
                endpoint,
                reason,
                count: count.load(Ordering::Relaxed),
            })
        });
        rows.collect()
    }
}

impl EndpointRefusals {
    pub fn denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    pub fn silent(&self) {
        self.silent.fetch_add(1, Ordering::Relaxed);
    }

    pub fn forbidden(&self) {
        self.forbidden.fetch_add(1, Ordering::Relaxed);
    }
}
