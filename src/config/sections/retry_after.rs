//! `retry_after = {...}`: when a client that was told 503 may come again.

use super::super::defaults;
use super::super::keys::{Absent, DAY, Section, key, time};
use super::super::model::RetryAfter;
use super::super::table::Table;

pub static RETRY_AFTER: Section = Section {
    doc: "The range of the `Retry-After` of a 503, in whole seconds. Each is drawn anew, so that clients turned away together do not come back together.",
    keys: &[
        key(
            "min",
            time(1_000, DAY),
            Absent::Time(defaults::RETRY_AFTER_MIN),
            "The shortest.",
        ),
        key(
            "max",
            time(1_000, DAY),
            Absent::Time(defaults::RETRY_AFTER_MAX),
            "The longest.",
        ),
    ],
};

pub fn decode(table: &Table<'_>) -> RetryAfter {
    let range = RetryAfter {
        min: table.time("min"),
        max: table.time("max"),
    };
    if range.min > range.max {
        let key = if table.has("min") { "min" } else { "max" };
        table.conflict(key, "`min` is longer than `max`");
    }
    range
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, pool, right};

    fn web(keys: &str) -> String {
        pool(keys).replace("\"tcp\"", "\"websocket\"")
    }

    #[test]
    fn each_wrong_value_is_refused() {
        let at = "pool.p.retry_after";
        each_refused([
            (web("retry_after = \"5s\""), at, Fault::Type),
            (
                web("retry_after = { min = \"500ms\" }"),
                "pool.p.retry_after.min",
                Fault::Value,
            ),
            (
                web("retry_after = { min = \"11s\" }"),
                "pool.p.retry_after.min",
                Fault::Conflict,
            ),
            (
                web("retry_after = { min = \"5s\", max = \"4s\" }"),
                "pool.p.retry_after.min",
                Fault::Conflict,
            ),
            (pool("retry_after = { max = \"4s\" }"), at, Fault::Conflict),
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
