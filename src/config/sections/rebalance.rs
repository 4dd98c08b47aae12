//! `rebalance = {...}` of a pool: live connections are moved to a backend that was added or has come back.

use super::super::defaults;
use super::super::keys::{Absent, DAY, Kind, RATE_MAX, Section, key, rate, time};
use super::super::model::{Balance, Rebalance, UntoldSessions};
use super::super::table::Table;
use super::super::words::words;

/// With none at all, connections that come and go would be moved for ever.
const THRESHOLD_MIN: u8 = 1;
/// Nobody is below a share by all of it and more.
const THRESHOLD_MAX: u8 = 90;

pub static REBALANCE: Section = Section {
    doc: "After a backend was added or has come back, connections of those above their share are told to reconnect (Close 1012), quiet ones first. Without it they stay.",
    keys: &[
        key(
            "threshold",
            Kind::Percent {
                min: THRESHOLD_MIN,
                max: THRESHOLD_MAX,
            },
            Absent::Percent(defaults::REBALANCE_THRESHOLD_PERCENT),
            "It begins when one backend is above its share by more than this part of it and another one as far below.",
        ),
        key(
            "rate",
            rate(RATE_MAX),
            Absent::Rate(defaults::REBALANCE_RATE),
            "So many are moved in a time, over the whole pool.",
        ),
        key(
            "min_age",
            time(0, DAY),
            Absent::Time(defaults::REBALANCE_MIN_AGE),
            "Younger sessions are left alone, so that nobody is moved twice in a row.",
        ),
        key(
            "tcp",
            Kind::Word(words::<UntoldSessions>),
            Absent::Text(defaults::REBALANCE_TCP),
            "Sessions that cannot be told, raw ones, stay where they are, or are closed.",
        ),
    ],
};

/// `is_sticky`: the pool has a cookie.
pub fn decode(
    pool: &Table<'_>,
    table: &Table<'_>,
    balance: Option<&Balance>,
    is_sticky: bool,
) -> Option<Rebalance> {
    if let Some(Balance::IpHash | Balance::Hash(_)) = balance {
        pool.conflict(
            "rebalance",
            "a client that reconnects goes where its hash says; it needs `balance` \"round_robin\", \"least_conn\" or \"random\"",
        );
    }
    if is_sticky {
        pool.conflict(
            "rebalance",
            "the cookie of `sticky` brings a client back to where it was; it needs a pool without `sticky`",
        );
    }
    Some(Rebalance {
        threshold_percent: table.percent("threshold"),
        rate: table.maybe_rate("rate")?,
        min_age: table.time("min_age"),
        tcp: table.maybe_word("tcp")?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, pool, read, right};
    use super::*;

    fn web(keys: &str) -> String {
        pool(keys).replace("\"tcp\"", "\"websocket\"")
    }

    #[test]
    fn what_would_move_nobody_or_for_ever_is_refused() {
        let with = |keys: &str| web(&format!("{keys}\nrebalance = {{}}"));
        let keys = |keys: &str| web(&format!("rebalance = {{ {keys} }}"));
        let whole = "pool.p.rebalance";
        each_refused([
            (with("balance = \"ip_hash\""), whole, Fault::Conflict),
            (
                with("balance = \"hash\"\nhash_key = \"path\""),
                whole,
                Fault::Conflict,
            ),
            (
                with("sticky = { key_file = \"k\" }"),
                whole,
                Fault::Conflict,
            ),
            (
                keys("threshold = \"0%\""),
                "pool.p.rebalance.threshold",
                Fault::Value,
            ),
            (
                keys("threshold = \"91%\""),
                "pool.p.rebalance.threshold",
                Fault::Value,
            ),
            (
                keys("rate = \"0/s\""),
                "pool.p.rebalance.rate",
                Fault::Value,
            ),
            (keys("tcp = \"fin\""), "pool.p.rebalance.tcp", Fault::Value),
        ]);
    }

    #[test]
    fn every_wrong_threshold_is_told_the_same_bounds() {
        let said = |threshold: &str| {
            let text = web(&format!("rebalance = {{ threshold = {threshold} }}"));
            read(&text).unwrap_err().messages().remove(0).message
        };
        for threshold in ["0.2", "\"0.2\"", "\"0%\"", "20"] {
            let said = said(threshold);
            assert!(said.contains("\"1%\" to \"90%\""), "{said}");
        }
        for threshold in ["0.2", "\"0.2\"", "20"] {
            assert!(said(threshold).contains("write \"20%\""), "{threshold}");
        }
    }

    #[test]
    fn an_empty_table_has_the_defaults() {
        let defaults = right(&web("rebalance = {}")).pools["p"].rebalance;
        let expected = Rebalance {
            threshold_percent: 20,
            rate: "10/s".parse().unwrap(),
            min_age: Duration::from_secs(60),
            tcp: UntoldSessions::Keep,
        };
        assert_eq!(defaults, Some(expected));
        assert_eq!(right(&web("")).pools["p"].rebalance, None);
    }
}
