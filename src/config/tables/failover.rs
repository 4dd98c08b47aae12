//! `failover = {...}`: live sessions as backends go down and come back.

use std::time::Duration;

use super::backend::Backend;
use super::discover::{Discover, DiscoverSource};
use crate::config::declare::Declared;
use crate::config::reader::TableReader;
use crate::config::spec::{DAY, percent, seconds, time};

table! {
    /// Live sessions as backends go down and come back. While no backend can be used, none is
    /// ended.
    #[derive(Copy, Eq)]
    pub struct Failover: Default {
        /// Sessions of a backend whose check has been down for `grace`: they stay (`keep`), are
        /// ended at the pace of `drain`, or `close` as soon as `max_close_rate` allows.
        ///
        /// Sessions that work must not be cut by a check that does not.
        on_down: OnDown, default(OnDown::Keep);
        /// Time that a backend is down, or primaries are back, before a session is ended. If the
        /// state changes back before, none is ended.
        ///
        /// A node that restarts, or a network that hiccups, is back by then.
        grace: Duration = time(0, DAY), default(seconds(30));
        /// Sessions of backups once primaries have been back for `grace`: they stay (`keep`), or
        /// are ended at the pace of `drain` and so `return`.
        ///
        /// A session that works should not be made to move.
        on_up: OnUp, default(OnUp::Keep);
        /// Largest part of the pool's sessions that is ended so per minute, and at least one
        /// session.
        ///
        /// One node of four may go at once. Of a wider failure, which is more often one of the
        /// checks than of the nodes, the first minute costs a quarter, and an operator has time to
        /// look.
        max_close_rate: u8 = percent(1, 100), default(25);
    }
    then refuse_useless;
}

words! {
    /// Handling of the sessions of a backend whose check fails.
    pub enum OnDown {
        Keep = "keep",
        /// Ended at the pace of the pool's `drain`.
        Drain = "drain",
        /// Ended as soon as `max_close_rate` lets them.
        Close = "close",
    }
}

words! {
    /// Handling of the sessions of backups once primaries are back.
    pub enum OnUp {
        Keep = "keep",
        /// Ended at the pace of the pool's `drain`, so that they come back to primaries.
        Return = "return",
    }
}

words! {
    /// Handling of a client when no backend of the pool can be used.
    pub enum WhenAllDown {
        Refuse = "refuse",
        /// Backends that the check or outlier detection holds down are tried; those in maintenance
        /// or drained never.
        Try = "try",
    }
}

impl Failover {
    /// Sessions are ended by nobody but their peers and the operator.
    pub fn keeps_all(&self) -> bool {
        self.on_down == OnDown::Keep && self.on_up == OnUp::Keep
    }
}

/// The default says nothing: a file may show every key.
fn refuse_useless(table: &TableReader<'_>, failover: &mut Failover) {
    if failover.keeps_all() {
        table.conflicts(
            &failover.differing(&Failover::default()),
            "all sessions are kept; it needs `on_down = \"drain\"` or \"close\", or `on_up = \
             \"return\"`",
        );
    }
}

/// Refuses keys that need a check or a backup. `has_backups`: a backend is one, or may be found to
/// be one.
pub(super) fn refuse_baseless(
    pool: &TableReader<'_>,
    failover: Option<&Failover>,
    has_backups: bool,
) {
    let table = pool.table("failover");
    if failover.is_some_and(|failover| failover.on_down != OnDown::Keep) && !pool.has("check") {
        table.conflict(
            "on_down",
            "without `check` no backend of this pool is ever down (an ejection ends no sessions); \
             it needs `check`",
        );
    }
    if failover.is_some_and(|failover| failover.on_up == OnUp::Return) && !has_backups {
        table.conflict(
            "on_up",
            "no backend of this pool has `backup = true`, so there is nothing to return from",
        );
    }
}

/// Whether a backend is a backup. One that is wrong counts as a backup.
pub(super) fn has_backups(
    backends: Option<&Vec<Backend>>,
    discover: Option<&Option<Discover>>,
) -> bool {
    let may_be_found = discover.is_none_or(|discover| {
        let discover = discover.as_ref();
        discover.is_some_and(|one| !matches!(one.source, DiscoverSource::Dns { .. }))
    });
    may_be_found || backends.is_none_or(|backends| backends.iter().any(|one| one.backup))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, right};

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
                ErrorKind::Value,
            ),
            (
                pool("failover = { on_down = \"drain\" }"),
                "pool.p.failover.on_down",
                ErrorKind::Conflict,
            ),
            at(
                "pool.p.failover.on_up",
                "on_up = \"return\"",
                ErrorKind::Conflict,
            ),
            at(
                "pool.p.failover.grace",
                "grace = \"9s\"",
                ErrorKind::Conflict,
            ),
            at(
                "pool.p.failover.max_close_rate",
                "max_close_rate = \"9%\"",
                ErrorKind::Conflict,
            ),
            at(
                "pool.p.failover.max_close_rate",
                "on_down = \"close\", max_close_rate = \"0%\"",
                ErrorKind::Value,
            ),
            at(
                "pool.p.failover.max_close_rate",
                "on_down = \"close\", max_close_rate = \"101%\"",
                ErrorKind::Value,
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
