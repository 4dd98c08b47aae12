//! `failover = {...}`: what becomes of sessions as backends go down and come back.

use super::super::defaults;
use super::super::keys::{Absent, DAY, Kind, Section, key, time};
use super::super::model::{Backend, Discover, DiscoverSource, Failover, OnDown, OnUp};
use super::super::table::Table;
use super::super::words::words;

pub static FAILOVER: Section = Section {
    doc: "What becomes of live sessions as backends go down and come back. While no backend can be used, nothing is ended.",
    keys: &[
        key(
            "on_down",
            Kind::Word(words::<OnDown>),
            Absent::Text(defaults::ON_DOWN),
            "Sessions of a backend that its check has found down for `grace`: they stay, are ended at the pace of `drain`, or as soon as `max_close_rate` lets them.",
        ),
        key(
            "grace",
            time(0, DAY),
            Absent::Time(defaults::GRACE),
            "A backend is down, or primaries are back, for so long before a session is ended; what changes back before ends nothing.",
        ),
        key(
            "on_up",
            Kind::Word(words::<OnUp>),
            Absent::Text(defaults::ON_UP),
            "Sessions of backups once primaries have been back for `grace`: they stay, or are ended at the pace of `drain` and so return.",
        ),
        key(
            "max_close_rate",
            Kind::Percent { min: 1, max: 100 },
            Absent::Percent(defaults::MAX_CLOSE_RATE),
            "Part of the pool's sessions that is ended so per minute, at most, and at least one session.",
        ),
    ],
};

/// `has_backups`: a backend is one, or may be found to be one.
pub fn decode(table: &Table<'_>, has_check: bool, has_backups: bool) -> Option<Failover> {
    let failover = Failover {
        on_down: table.maybe_word("on_down")?,
        grace: table.time("grace"),
        on_up: table.maybe_word("on_up")?,
        max_close_rate: table.percent("max_close_rate"),
    };
    if failover.on_down != OnDown::Keep && !has_check {
        table.conflict(
            "on_down",
            "without `check` no backend of this pool is ever down (an ejection ends no sessions); it needs `check`",
        );
    }
    if failover.on_up == OnUp::Return && !has_backups {
        table.conflict(
            "on_up",
            "no backend of this pool has `backup = true`, so that there is nowhere to return from",
        );
    }
    if failover.keeps_all() {
        // The default says nothing: a file may show every key.
        let others = [
            ("grace", failover.grace != defaults::GRACE),
            (
                "max_close_rate",
                failover.max_close_rate != defaults::MAX_CLOSE_RATE,
            ),
        ];
        for (key, _) in others.iter().filter(|(_, is_set)| *is_set) {
            table.conflict(
                key,
                "all sessions are kept; it needs `on_down = \"drain\"` or \"close\", or `on_up = \"return\"`",
            );
        }
    }
    Some(failover)
}

/// Whether a backend is a backup. What is wrong says nothing.
pub fn has_backups(backends: Option<&[Backend]>, discover: Option<&Option<Discover>>) -> bool {
    let may_be_found = |found: &Option<Discover>| match found {
        Some(found) => matches!(found.source, DiscoverSource::Srv { .. }),
        None => true,
    };
    discover.is_some_and(may_be_found)
        || backends.is_none_or(|backends| backends.iter().any(|one| one.backup))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, pool, right};
    use super::*;

    const CHECK: &str = "check = { type = \"tcp\" }";

    fn failover(keys: &str) -> String {
        pool(&format!("{CHECK}\nfailover = {{ {keys} }}"))
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        let at = |key: &'static str, keys: &str, fault| (failover(keys), key, fault);
        each_refused([
            at(
                "pool.p.failover.on_down",
                "on_down = \"shut\"",
                Fault::Value,
            ),
            (
                pool("failover = { on_down = \"drain\" }"),
                "pool.p.failover.on_down",
                Fault::Conflict,
            ),
            at(
                "pool.p.failover.on_up",
                "on_up = \"return\"",
                Fault::Conflict,
            ),
            at("pool.p.failover.grace", "grace = \"9s\"", Fault::Conflict),
            at(
                "pool.p.failover.max_close_rate",
                "max_close_rate = \"9%\"",
                Fault::Conflict,
            ),
            at(
                "pool.p.failover.max_close_rate",
                "on_down = \"close\", max_close_rate = \"0%\"",
                Fault::Value,
            ),
            at(
                "pool.p.failover.max_close_rate",
                "on_down = \"close\", max_close_rate = \"101%\"",
                Fault::Value,
            ),
        ]);
    }

    #[test]
    fn everything_is_kept_unless_it_says_otherwise() {
        let of = |text: &str| right(text).pools["p"].failover;
        assert!(of(&pool("")).keeps_all());
        let shown =
            "on_down = \"keep\", grace = \"30s\", on_up = \"keep\", max_close_rate = \"25%\"";
        assert_eq!(of(&failover(shown)), of(&pool("")));
        let set = of(&failover("on_down = \"close\", grace = \"0s\""));
        assert_eq!((set.on_down, set.grace), (OnDown::Close, Duration::ZERO));
        assert_eq!(set.max_close_rate, 25);
    }

    #[test]
    fn a_backup_that_is_there_or_may_be_found_is_one_to_return_from() {
        let keys = "failover = { on_up = \"return\" }";
        right(&pool(keys).replace(" }]", ", backup = true }]"));
        right(&pool(&format!(
            "{keys}\ndiscover = {{ srv = \"_a._tcp.example.org\" }}"
        )));
    }
}
