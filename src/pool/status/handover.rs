//! A backend's status on its way to the next process of an upgrade.

use std::time::Instant;

use super::{BackendStatus, OperatorSettings, PublishedStatus, SlowStart};
use crate::config::Address;
use crate::net::Endpoint;
use crate::pool::handed_state::{BackendStateRecord, CheckRecord};
use crate::pool::outlier::OutlierDetector;

impl BackendStatus {
    /// Writes what the next process has to know.
    pub(in crate::pool) fn hand_over(&self, record: &mut BackendStateRecord, now: Instant) {
        let OperatorSettings {
            state,
            weight,
            emptying,
        } = self.operator;
        record.operator = state.as_str().to_owned();
        record.weight = weight;
        record.emptying = emptying;
        record.check = CheckRecord {
            up: self.check.up,
            checked: self.check.checked,
            proven: self.check.proven,
            reason: self.check.reason.clone(),
        };
        record.outlier = self.outlier.hand_over(now);
        record.ejection.clone_from(&self.ejection);
        record.last_error.clone_from(&self.last_error);
        record.since = Some(self.published.since);
        record.reason.clone_from(&self.published.reason);
        let growing = self.slow_start.from;
        record.slow_start = growing.map(|from| now.saturating_duration_since(from));
        record.is_slow_start_armed = self.slow_start.is_armed;
    }

    /// Takes over what the process before has learned of this address. A verdict of checks holds
    /// only where there are checks.
    pub(in crate::pool) fn take_over(
        &mut self,
        record: &BackendStateRecord,
        endpoint: Option<Endpoint>,
        now: Instant,
    ) {
        if matches!(self.settings.address, Address::Name(..)) {
            self.endpoint = endpoint;
        }
        if self.published.unchecked && record.check.checked {
            self.check.up = record.check.up;
            self.check.checked = true;
            self.check.proven = record.check.proven;
            self.check.reason.clone_from(&record.check.reason);
        }
        self.outlier = OutlierDetector::take_over(&record.outlier, now);
        self.ejection.clone_from(&record.ejection);
        self.last_error.clone_from(&record.last_error);
        self.slow_start = SlowStart {
            from: record.slow_start.and_then(|age| now.checked_sub(age)),
            is_armed: record.is_slow_start_armed,
        };
        // Not a change: the state, its reason and its time are those of the process before.
        let (state, reason) = self.effective();
        self.published = PublishedStatus {
            state,
            unchecked: self.published.unchecked && !self.check.checked,
            was_unchecked: false,
            reason: reason.unwrap_or_else(|| record.reason.clone()),
            since: record.since.unwrap_or(self.published.since),
        };
    }
}
