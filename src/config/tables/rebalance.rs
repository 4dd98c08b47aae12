//! `rebalance = {...}` of a pool: live connections move to a backend that was added or came back.

use std::time::Duration;

use super::balance::Balance;
use crate::base::rate::Rate;
use crate::config::reader::TableReader;
use crate::config::spec::{DAY, percent, seconds, time};

table! {
    /// After a backend was added or has come back, connections of those above their share are told
    /// to reconnect (Close 1012), quiet ones first. Without it they stay.
    #[derive(Copy, Eq)]
    pub struct Rebalance {
        /// Moving begins when one backend is above its share by more than this part of it and
        /// another one as far below.
        ///
        /// Chance and round robin leave less uneven. With 0 % connections that come and go would
        /// be moved for ever, and no backend is below its share by more than all of it.
        threshold_percent as "threshold": u8 = percent(1, 90), default(20);
        /// Connections moved in a time, over the whole pool.
        ///
        /// A cluster that was just made larger does not notice the reconnects; a thousand
        /// connections are moved in two minutes.
        rate: Rate, default(Rate::per_second(10));
        /// Least age of a session that is moved, so that none is moved twice in a row.
        ///
        /// Longer than clients take to come back.
        min_age: Duration = time(0, DAY), default(seconds(60));
        /// Sessions that cannot be told, raw ones: they stay where they are (`keep`), or `close`.
        ///
        /// Not every protocol reconnects by itself, and a raw session is not told why it ends.
        tcp: UntoldSessions, default(UntoldSessions::Keep);
    }
}

words! {
    /// Handling of sessions that cannot be told to come back: raw ones, and WebSockets whose frames
    /// are not followed.
    pub enum UntoldSessions {
        Keep = "keep",
        Close = "close",
    }
}

/// Refuses moving where clients come back to the same backend.
pub(super) fn refuse_fixed(pool: &TableReader<'_>, balance: Option<&Balance>) {
    if balance.is_some_and(Balance::is_hash) {
        pool.conflict(
            "rebalance",
            "a client that reconnects goes where its hash says; it needs `balance` \
             \"round_robin\", \"least_conn\" or \"random\"",
        );
    }
    if pool.has("affinity") {
        pool.conflict(
            "rebalance",
            "`affinity` brings a client back to where it was; it needs a pool without `affinity`",
        );
    }
    if pool.has("sticky") {
        pool.conflict(
            "rebalance",
            "the cookie of `sticky` brings a client back to where it was; it needs a pool without \
             `sticky`",
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, read, right};

    fn web(keys: &str) -> String {
        pool(keys).replace("\"tcp\"", "\"websocket\"")
    }

    #[test]
    fn what_would_move_nobody_or_for_ever_is_refused() {
        let with = |keys: &str| web(&format!("{keys}\nrebalance = {{}}"));
        let keys = |keys: &str| web(&format!("rebalance = {{ {keys} }}"));
        let whole = "pool.p.rebalance";
        each_refused([
            (with("balance = \"ip_hash\""), whole, ErrorKind::Conflict),
            (
                with("balance = \"hash\"\nhash_key = \"path\""),
                whole,
                ErrorKind::Conflict,
            ),
            (
                with("sticky = { key_file = \"k\" }"),
                whole,
                ErrorKind::Conflict,
            ),
            (
                keys("threshold = \"0%\""),
                "pool.p.rebalance.threshold",
                ErrorKind::Value,
            ),
            (
                keys("threshold = \"91%\""),
                "pool.p.rebalance.threshold",
                ErrorKind::Value,
            ),
            (
                keys("rate = \"0/s\""),
                "pool.p.rebalance.rate",
                ErrorKind::Value,
            ),
            (
                keys("tcp = \"fin\""),
                "pool.p.rebalance.tcp",
                ErrorKind::Value,
            ),
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
