//! Connections that sources have at the other balancers of a cluster.
//!
//! A balancer tells only of sources with many connections, as a keyed hash and a count. A count of
//! the others may be too low by what is not told, which is less than half of the limit over all,
//! and by the clients of one interval. It is too high only by connections that have ended since it
//! was told: those of one interval, and of `expire` where their balancer has died. The hash hides
//! the addresses from readers of the store.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::base::source_prefix::SourcePrefix;

/// Sources that one balancer tells of at most, those with most connections: 120 kB an interval.
pub(crate) const MAX_SOURCES: usize = 10_000;

/// Count of one source. One connection is no news: half of all sources have no second one.
const LEAST_COUNT: u64 = 2;

/// Key of the hash; the same in the whole cluster, and known to nobody else.
#[derive(Clone, Copy)]
pub(crate) struct SourceKey(pub(crate) [u8; 16]);

/// Connections of one source of a listener at one balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceGauge {
    pub hash: u64,
    pub live: u32,
}

/// Knowledge of a balancer about the sources of the others.
pub(crate) enum SharedSources {
    /// Sums of what the others told, by hash.
    Told {
        key: SourceKey,
        counts: HashMap<u64, u32>,
    },
    /// Nothing is heard of the others; so many share each limit, this one among them.
    Alone { members: u32 },
}

impl SourceKey {
    /// The hash of a source of a listener; listeners of one name share their limits.
    pub(super) fn hash(&self, listener: &str, source: SourcePrefix) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        // Lengths first: no two inputs are the same bytes.
        hasher.write_usize(listener.len());
        hasher.write(listener.as_bytes());
        match source {
            SourcePrefix::V4(bytes) => hasher.write(&bytes),
            SourcePrefix::V6(bytes) => hasher.write(&bytes),
            SourcePrefix::Unix => {}
        }
        hasher.finish()
    }
}

impl SharedSources {
    /// Adds up what each of the others told.
    pub(crate) fn told(key: SourceKey, gauges: impl IntoIterator<Item = SourceGauge>) -> Self {
        let mut counts: HashMap<u64, u32> = HashMap::new();
        for gauge in gauges {
            let count = counts.entry(gauge.hash).or_default();
            *count = count.saturating_add(gauge.live);
        }
        SharedSources::Told { key, counts }
    }

    /// Connections of a source at the others.
    pub(super) fn others(&self, listener: &str, source: SourcePrefix) -> u32 {
        match self {
            SharedSources::Told { key, counts } => {
                let hash = key.hash(listener, source);
                counts.get(&hash).copied().unwrap_or(0)
            }
            SharedSources::Alone { .. } => 0,
        }
    }

    /// Balancers among which each limit is divided; 1 while the others are heard.
    pub(super) fn divisor(&self) -> u32 {
        match self {
            SharedSources::Told { .. } => 1,
            SharedSources::Alone { members } => (*members).max(1),
        }
    }
}

/// Connections from which on a balancer tells of a source: with fewer at each of the others they
/// add up to less than half of the limit.
pub(super) fn least_told(limit: u64, members: u32) -> u64 {
    let part = limit / (2 * u64::from(members.max(1)));
    part.max(LEAST_COUNT)
}

/// Leaves the sources with most connections, as many as may be told of.
pub(crate) fn keep_most(gauges: &mut Vec<SourceGauge>) {
    if gauges.len() > MAX_SOURCES {
        gauges.select_nth_unstable_by_key(MAX_SOURCES, |gauge| Reverse(gauge.live));
        gauges.truncate(MAX_SOURCES);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: SourceKey = SourceKey(*b"0123456789abcdef");

    #[test]
    fn a_hash_is_of_the_listener_the_source_and_the_key() {
        let source = SourcePrefix::V4([192, 0, 2, 7]);
        let hash = KEY.hash("web", source);
        assert_eq!(hash, KEY.hash("web", source));
        assert_ne!(hash, KEY.hash("mqtt", source));
        assert_ne!(hash, KEY.hash("web", SourcePrefix::V4([192, 0, 2, 8])));
        assert_ne!(hash, SourceKey([0; 16]).hash("web", source));
    }

    #[test]
    fn what_each_told_is_added_up() {
        let gauge = |hash, live| SourceGauge { hash, live };
        let source = SourcePrefix::Unix;
        let hash = KEY.hash("web", source);
        let shared = SharedSources::told(KEY, [gauge(hash, 3), gauge(1, 9), gauge(hash, 4)]);
        assert_eq!((shared.others("web", source), shared.divisor()), (7, 1));
        assert_eq!(shared.others("other", source), 0);
        let alone = SharedSources::Alone { members: 3 };
        assert_eq!((alone.others("web", source), alone.divisor()), (0, 3));
    }

    #[test]
    fn the_sources_with_most_connections_are_told_of() {
        let all = 0..MAX_SOURCES as u32 + 50;
        let mut gauges: Vec<_> = all.map(|live| SourceGauge { hash: 0, live }).collect();
        keep_most(&mut gauges);
        assert_eq!(gauges.len(), MAX_SOURCES);
        assert!(gauges.iter().all(|gauge| gauge.live >= 50));
    }

    proptest! {
        /// Clients that spread over balancers which exchange in between are never refused below
        /// the limit, and get above it by at most half of it and those of one interval. Limits of
        /// fewer than four for each balancer may have one more at each.
        #[test]
        fn a_limit_holds_over_all(
            limit in 1u64..200,
            members in 1u32..12,
            arrivals in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..600),
        ) {
            let count = members as usize;
            let (mut live, mut others) = (vec![0u64; count], vec![0u64; count]);
            let (mut since, mut most_since) = (0u64, 0u64);
            for (at, exchange) in arrivals {
                if exchange == 0 {
                    let told = |count: u64| if count >= least_told(limit, members) { count } else { 0 };
                    let all: u64 = live.iter().map(|count| told(*count)).sum();
                    for (own, others) in live.iter().zip(&mut others) {
                        *others = all - told(*own);
                    }
                    since = 0;
                }
                let at = at.index(count);
                let all: u64 = live.iter().sum();
                let admitted = live[at] + others[at] < limit;
                prop_assert!(admitted || all >= limit, "refused at {all} of {limit}");
                if admitted {
                    live[at] += 1;
                    since += 1;
                    most_since = most_since.max(since);
                }
                let half = (limit / 2).max(u64::from(members) - 1);
                let all: u64 = live.iter().sum();
                prop_assert!(all <= limit + half + most_since, "{all} of {limit}");
            }
        }
    }
}
