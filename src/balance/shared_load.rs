//! Load of a node that several balancers pick at once ("lcN").
//!
//! Each balancer knows its own connections now, and those of the others as of the last exchange. To
//! go by these alone herds: until the next exchange all of them send every client to the node that
//! was emptiest. So each takes it that the others pick as it does itself: one pick of its own
//! stands for one of each other balancer, until the others' counts have theirs.

/// Connections of a node, as one balancer of several knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SharedLoad {
    /// Own connections now.
    pub own: u64,
    /// Connections of all other balancers, as of the last exchange.
    pub others: u64,
    /// Own picks of the time for which the others' counts lack theirs: since the exchange, and half
    /// of the interval before it ([`untold`]).
    pub picks: u64,
}

/// Picks that still stand for the others' at an exchange, of those of the interval that ends: the
/// others told at moments of their own, half an interval ago on average. To drop all of them floods
/// an empty node by as many.
pub fn untold(picks: u64) -> u64 {
    picks / 2
}

impl SharedLoad {
    /// The load to pick by, beside `peers` other balancers.
    pub fn estimate(self, peers: u32) -> u64 {
        let unknown = u64::from(peers).saturating_mul(self.picks);
        self.own.saturating_add(self.others).saturating_add(unknown)
    }

    /// Connections of all balancers.
    pub fn all(self) -> u64 {
        self.own.saturating_add(self.others)
    }

    /// The part of a count of all balancers that falls to this one, by its connections; rounded up,
    /// so that small parts add up to the whole.
    pub fn part_of(self, count: u64) -> u64 {
        let all = u128::from(self.own) + u128::from(self.others);
        let part = (u128::from(count) * u128::from(self.own)).div_ceil(all.max(1));
        u64::try_from(part).unwrap_or(u64::MAX).min(self.own)
    }

    /// The fraction of all connections that this balancer has: 1 without any of others.
    pub fn fraction(self) -> f64 {
        match self.others {
            0 => 1.0,
            others => self.own as f64 / (self.own as f64 + others as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load(own: u64, others: u64, picks: u64) -> SharedLoad {
        SharedLoad { own, others, picks }
    }

    #[test]
    fn each_pick_stands_for_one_of_every_other_balancer() {
        assert_eq!(load(3, 40, 2).estimate(0), 43);
        assert_eq!(load(3, 40, 2).estimate(15), 73);
    }

    #[test]
    fn alone_all_is_the_own_part() {
        assert_eq!(load(7, 0, 0).part_of(5), 5);
        assert_eq!(load(0, 0, 0).part_of(5), 0);
        assert_eq!(load(7, 0, 0).fraction(), 1.0);
        assert_eq!(load(0, 0, 0).fraction(), 1.0);
        assert_eq!(load(0, 7, 0).fraction(), 0.0);
    }

    proptest! {
        /// Balancers that know each other's counts do the whole together, and hardly more.
        #[test]
        fn parts_add_up_to_the_whole(own in prop::collection::vec(0u64..1000, 1..65), percent in 0u64..=100) {
            let all: u64 = own.iter().sum();
            let count = all * percent / 100;
            let parts = own.iter().map(|own| load(*own, all - own, 0).part_of(count));
            let total: u64 = parts.sum();
            prop_assert!(total >= count && total < count + own.len() as u64, "{total} of {count}");
            let fractions: f64 = own.iter().map(|own| load(*own, all - own, 0).fraction()).sum();
            prop_assert!(all == 0 || (fractions - 1.0).abs() < 1e-6, "{fractions}");
        }
    }
}
