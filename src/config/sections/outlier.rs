//! `outlier = {...}`: passive ejection after repeated connect failures.

use super::super::defaults;
use super::super::keys::{Absent, DAY, Section, key, number, time};
use super::super::model::Outlier;
use super::super::table::Table;

pub static OUTLIER: Section = Section {
    doc: "Ejection after repeated connect failures; never more than half of a pool, never the last backend.",
    keys: &[
        key(
            "connect_failures",
            number(0, 1_000),
            Absent::Number(defaults::CONNECT_FAILURES),
            "Connect failures within `window` that eject; 0 = never.",
        ),
        key(
            "window",
            time(100, DAY),
            Absent::Time(defaults::WINDOW),
            "Time in which they count.",
        ),
        key(
            "base_ejection_time",
            time(100, DAY),
            Absent::Time(defaults::BASE_EJECTION_TIME),
            "The first ejection; then one connection probes the backend, and each failed probe doubles it.",
        ),
        key(
            "max_ejection_time",
            time(100, DAY),
            Absent::Time(defaults::MAX_EJECTION_TIME),
            "The longest ejection; never below `base_ejection_time` where only that is given.",
        ),
    ],
};

pub fn decode(table: &Table<'_>) -> Outlier {
    let mut outlier = Outlier {
        connect_failures: table.number("connect_failures"),
        window: table.time("window"),
        base_ejection_time: table.time("base_ejection_time"),
        max_ejection_time: table.time("max_ejection_time"),
    };
    if outlier.connect_failures == 0 {
        let times = [
            ("window", outlier.window, defaults::WINDOW),
            (
                "base_ejection_time",
                outlier.base_ejection_time,
                defaults::BASE_EJECTION_TIME,
            ),
            (
                "max_ejection_time",
                outlier.max_ejection_time,
                defaults::MAX_EJECTION_TIME,
            ),
        ];
        // The default says nothing: a file may show every key.
        for (key, _, _) in times.iter().filter(|(_, time, default)| time != default) {
            table.conflict(
                key,
                "with `connect_failures = 0` nothing is ever ejected; it needs `connect_failures` above 0",
            );
        }
        return outlier;
    }
    if !table.has("max_ejection_time") {
        outlier.max_ejection_time = outlier.max_ejection_time.max(outlier.base_ejection_time);
    }
    if outlier.base_ejection_time > outlier.max_ejection_time {
        let key = if table.has("base_ejection_time") {
            "base_ejection_time"
        } else {
            "max_ejection_time"
        };
        table.conflict(
            key,
            "`base_ejection_time` is longer than `max_ejection_time`",
        );
    }
    outlier
}
