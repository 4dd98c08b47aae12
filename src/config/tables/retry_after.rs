//! `retry_after = {...}`: when a client that was told 503 may come again.

use std::time::Duration;

use crate::config::reader::TableReader;
use crate::config::spec::{DAY, seconds, time};

table! {
    /// Range of the `Retry-After` of a 503, in whole seconds. Each is drawn anew, so that clients
    /// turned away together do not come back together.
    #[derive(Copy, Eq)]
    pub struct RetryAfter: Default {
        /// Shortest time.
        ///
        /// A single client that was turned away may come back at once.
        min: Duration = time(1_000, DAY), default(seconds(1));
        /// Longest time.
        ///
        /// Spreads a thousand clients to a hundred per second; as long as people wait for a page.
        max: Duration = time(1_000, DAY), default(seconds(10));
    }
    then refuse_unordered;
}

fn refuse_unordered(table: &TableReader<'_>, range: &mut RetryAfter) {
    if range.min > range.max {
        table.conflict(table.first_of(["min", "max"]), "`min` is longer than `max`");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, right};

    fn web(keys: &str) -> String {
        pool(keys).replace("\"tcp\"", "\"websocket\"")
    }

    #[test]
    fn each_wrong_value_is_refused() {
        let at = "pool.p.retry_after";
        each_refused([
            (web("retry_after = \"5s\""), at, ErrorKind::Type),
            (
                web("retry_after = { min = \"500ms\" }"),
                "pool.p.retry_after.min",
                ErrorKind::Value,
            ),
            (
                web("retry_after = { min = \"11s\" }"),
                "pool.p.retry_after.min",
                ErrorKind::Conflict,
            ),
            (
                web("retry_after = { min = \"5s\", max = \"4s\" }"),
                "pool.p.retry_after.min",
                ErrorKind::Conflict,
            ),
            (
                pool("retry_after = { max = \"4s\" }"),
                at,
                ErrorKind::Conflict,
            ),
        ]);
    }

    #[test]
    fn one_duration_is_a_range_too() {
        let config = right(&web("retry_after = { min = \"7s\", max = \"7s\" }"));
        let range = config.pools["p"].retry_after;
        assert_eq!(
            (range.min, range.max),
            (Duration::from_secs(7), Duration::from_secs(7))
        );
    }
}
