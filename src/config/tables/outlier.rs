//! `outlier = {...}`: passive ejection after repeated connect failures.

use std::time::Duration;

use crate::config::declare::Declared;
use crate::config::reader::TableReader;
use crate::config::spec::{DAY, number, seconds, time};

table! {
    /// Ejection after repeated connect failures; never more than half of a pool, never the last
    /// backend.
    pub struct Outlier: Default {
        /// Connect failures within `window` that eject; 0 = never.
        ///
        /// One failure is chance, two are bad luck.
        connect_failures: u32 = number(0, 1_000), default(3);
        /// Time in which failures count.
        ///
        /// Long enough that a quiet pool gathers three failures, short enough that old ones are
        /// forgotten.
        window: Duration = time(100, DAY), default(seconds(10));
        /// First ejection; then one connection probes the backend, and each failed probe doubles
        /// the time.
        ///
        /// The probe goes elsewhere if it fails: an early probe costs little.
        base_ejection_time: Duration = time(100, DAY), default(Duration::from_millis(500));
        /// Longest ejection; never below `base_ejection_time` where only that is given.
        ///
        /// A node that has come back serves again within two seconds, the gap to the next
        /// connection included.
        max_ejection_time: Duration = time(100, DAY), default(seconds(1));
    }
    then settle_times;
}

fn settle_times(table: &TableReader<'_>, outlier: &mut Outlier) {
    if outlier.connect_failures == 0 {
        // The default says nothing: a file may show every key.
        let own = outlier.differing(&Outlier::default());
        let others: Vec<_> = own
            .into_iter()
            .filter(|key| *key != "connect_failures")
            .collect();
        table.conflicts(
            &others,
            "with `connect_failures = 0` nothing is ever ejected; it needs `connect_failures` \
             above 0",
        );
        return;
    }
    if !table.has("max_ejection_time") {
        outlier.max_ejection_time = outlier.max_ejection_time.max(outlier.base_ejection_time);
    }
    if outlier.base_ejection_time > outlier.max_ejection_time {
        table.conflict(
            table.first_of(["base_ejection_time", "max_ejection_time"]),
            "`base_ejection_time` is longer than `max_ejection_time`",
        );
    }
}
