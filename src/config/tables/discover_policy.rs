//! Keys of `discover` that say what an answer may change.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::spec::{DAY, HOUR, YEAR, percent, seconds, text, time};

table! {
    /// Handling of backends that are not found any more.
    #[derive(Eq)]
    pub struct DiscoverPolicy: Default {
        /// Time that the sessions of a backend stay that is not listed any more, while its check
        /// passes or it has none. It gets no new ones. After it they are ended at the pace of
        /// `drain`; at once if its check fails.
        ///
        /// Longer than a registry takes to come back, and than a node takes to register again.
        remove_after: Duration = time(0, YEAR), default(seconds(120));
        /// Part of the set that one answer may take away; one that takes more waits for `confirm`.
        ///
        /// A registry that lost its data fills up again one by one. A roll-out keeps the number.
        max_shrink: u8 = percent(0, 100), default(50);
        /// Time after which an answer that takes more than `max_shrink` is believed. At once where
        /// the checks of the pool find the missing backends down.
        ///
        /// Long enough that all nodes have registered again.
        confirm: Duration = time(0, DAY), default(seconds(120));
        /// Time without a good answer after which the last good set gets no new connections; "0s" =
        /// never. At least twice the longest time between two answers: `interval`, `max_ttl` of
        /// DNS, 66 s of a registry without `interval`.
        ///
        /// A registry that is gone says nothing about the backends.
        max_stale: Duration = time(0, YEAR), default(Duration::ZERO);
        /// File that keeps the last good set over a restart. Without it there is none.
        snapshot_file: Option<PathBuf> = text("the path of a file that may be written"), optional;
        /// Longest wait of a start, or of a reload that adds the pool, for the first answer.
        ///
        /// A registry answers within milliseconds; one that is gone must not hold up a start.
        start_timeout: Duration = time(0, HOUR), default(seconds(5));
    }
}
