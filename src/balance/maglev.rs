//! Weighted Maglev hashing (Eisenbud et al., NSDI 2016): a table of slots, filled by the nodes in
//! turns, each along its own walk through the table. A key belongs to the node in its slot.
//!
//! The table depends on the nodes' names and weights alone, not on their order, state or address:
//! every process that knows the same nodes has the same table. A node that is down or full stays in
//! it; its keys go to others meanwhile, and no other key moves.

use super::hash::name_hashes;
use super::packed::Packed;

/// Nodes of the largest pool with `FEW_SLOTS`.
///
/// Another size moves every key, so there are two sizes only, and pools rarely grow past the bound
/// between them.
const FEW_NODES: usize = 128;

/// Slots of a pool of few nodes; a prime, so that every stride visits all of them. At most 2 KiB a
/// node, and half a millisecond to fill. The loss of one of 100 nodes moved 1.0 % of the
/// others' keys on average, and shares differ by at most 1 %.
const FEW_SLOTS: u32 = 24_571;

/// Slots of a larger pool. The loss of one of 200 nodes moved 0.5 % of the others' keys on average.
/// Above about 1,200 nodes the shares differ by more than 1 %.
const MANY_SLOTS: u32 = 131_071;

/// Free slots from which on nodes choose among all that are left: the walk to one of so few is
/// longer than a look at each.
const LAST_SLOTS: usize = 256;

/// The table.
#[derive(Debug)]
pub struct Maglev {
    size: u32,
    /// A node's index per slot; empty when no node has a weight.
    slots: Packed,
}

impl Maglev {
    /// The table of these names (each different) and weights, indexed as `Nodes` will be. At most
    /// 65,535 nodes are placed.
    pub fn new<'a>(nodes: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let nodes: Vec<(&str, u32)> = nodes.into_iter().collect();
        let size = if nodes.len() <= FEW_NODES {
            FEW_SLOTS
        } else {
            MANY_SLOTS
        };
        let mut walks: Vec<(&str, Walk)> = (0..u16::MAX)
            .zip(&nodes)
            .filter(|(_, (_, weight))| *weight > 0)
            .map(|(index, (name, weight))| (*name, Walk::new(index, name, *weight, size)))
            .collect();
        walks.sort_unstable_by_key(|(name, _)| *name);
        let mut walks: Vec<Walk> = walks.into_iter().map(|(_, walk)| walk).collect();
        let owners = Filling::new(size).fill(&mut walks);
        Maglev {
            size,
            slots: Packed::new(&owners, nodes.len()),
        }
    }

    /// The node of a hash.
    pub(super) fn at(&self, hash: u64) -> Option<usize> {
        let slot = hash % u64::from(self.size);
        self.slots.at(usize::try_from(slot).ok()?)
    }
}

/// A node's walk through the table.
struct Walk {
    index: u16,
    weight: u64,
    /// The next slot of the walk.
    slot: u32,
    /// 1..size
    stride: u32,
    /// The node takes a slot in a round once `round * weight` reaches this.
    due: u64,
}

impl Walk {
    fn new(index: u16, name: &str, weight: u32, size: u32) -> Self {
        let (offset, stride) = name_hashes(name);
        let below = |hash: u64, bound: u32| u32::try_from(hash % u64::from(bound)).unwrap_or(0);
        Walk {
            index,
            weight: u64::from(weight),
            slot: below(offset, size),
            stride: below(stride, size - 1) + 1,
            due: 0,
        }
    }
}

/// A table that is being filled.
struct Filling {
    size: u32,
    owners: Vec<u16>,
    /// A bit per slot: set once it has an owner. Small enough for the nearest cache.
    taken: Vec<u64>,
    free: usize,
}

impl Filling {
    fn new(size: u32) -> Self {
        let slots = size as usize;
        Filling {
            size,
            owners: vec![0; slots],
            taken: vec![0; slots.div_ceil(64)],
            free: slots,
        }
    }

    /// Round after round every node whose turn it is takes one slot; the heaviest has one in each
    /// round. Empty without a node.
    fn fill(mut self, walks: &mut [Walk]) -> Vec<u16> {
        let Some(heaviest) = walks.iter().map(|walk| walk.weight).max() else {
            return Vec::new();
        };
        let mut last: Option<LastSlots> = None;
        for round in 1.. {
            for (place, walk) in (0..).zip(walks.iter_mut()) {
                if round * walk.weight < walk.due {
                    continue;
                }
                walk.due += heaviest;
                let slot = match &mut last {
                    None => self.next_free(walk),
                    Some(last) => last.take(place, walk),
                };
                self.take(slot, walk);
                match &last {
                    _ if self.free == 0 => return self.owners,
                    None if self.free <= LAST_SLOTS => last = Some(self.last_slots()),
                    _ => {}
                }
            }
        }
        self.owners
    }

    /// The next free slot of a walk.
    fn next_free(&self, walk: &Walk) -> u32 {
        let mut slot = walk.slot;
        while self.is_taken(slot) {
            slot = step(slot, walk.stride, self.size);
        }
        slot
    }

    fn is_taken(&self, slot: u32) -> bool {
        let word = self.taken.get(slot as usize / 64);
        word.is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    fn take(&mut self, slot: u32, walk: &mut Walk) {
        if let Some(word) = self.taken.get_mut(slot as usize / 64) {
            *word |= 1 << (slot % 64);
        }
        if let Some(owner) = self.owners.get_mut(slot as usize) {
            *owner = walk.index;
        }
        walk.slot = step(slot, walk.stride, self.size);
        self.free -= 1;
    }

    fn last_slots(&self) -> LastSlots {
        LastSlots {
            size: self.size,
            slots: (0..self.size)
                .filter(|slot| !self.is_taken(*slot))
                .collect(),
            inverses: Vec::new(),
        }
    }
}

fn step(slot: u32, stride: u32, size: u32) -> u32 {
    let next = slot + stride;
    if next < size { next } else { next - size }
}

/// The last free slots of a table, from which a node takes the nearest on its walk.
struct LastSlots {
    size: u32,
    slots: Vec<u32>,
    /// The inverse of each walk's stride modulo `size`, once it is needed; 0 = not yet.
    inverses: Vec<u64>,
}

impl LastSlots {
    fn take(&mut self, place: usize, walk: &Walk) -> u32 {
        let size = u64::from(self.size);
        let inverse = self.inverse(place, walk.stride);
        let before = size - u64::from(walk.slot);
        let steps = |slot: u32| (u64::from(slot) + before) * inverse % size;
        let nearest = (0..).zip(&self.slots).min_by_key(|(_, slot)| steps(**slot));
        let nearest = nearest.map(|(at, _)| at);
        nearest.map_or(walk.slot, |at| self.slots.swap_remove(at))
    }

    fn inverse(&mut self, place: usize, stride: u32) -> u64 {
        if self.inverses.len() <= place {
            self.inverses.resize(place + 1, 0);
        }
        let size = self.size;
        match self.inverses.get_mut(place) {
            Some(known @ 0) => {
                *known = inverse(stride, size);
                *known
            }
            Some(known) => *known,
            None => 0,
        }
    }
}

/// The inverse of a number modulo a prime, by Fermat.
fn inverse(number: u32, prime: u32) -> u64 {
    let prime = u64::from(prime);
    let (mut result, mut power, mut exponent) = (1, u64::from(number), prime - 2);
    while exponent > 0 {
        if exponent % 2 == 1 {
            result = result * power % prime;
        }
        power = power * power % prime;
        exponent /= 2;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::hash::mix;
    use crate::balance::node::testing::{Table, any as any_serving};
    use crate::balance::{Picker, address_hash, bytes_hash};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    /// The owners of all slots.
    fn owners(table: &Maglev) -> Vec<usize> {
        let slots = 0..u64::from(table.size);
        slots.filter_map(|slot| table.at(slot)).collect()
    }

    fn pick(table: Maglev, nodes: &Table) -> impl Fn(u64) -> Option<usize> {
        let picker = Picker::hash(nodes, table);
        move |hash| picker.take(nodes, &any_serving(hash), Some)
    }

    fn named(count: usize, prefix: &str) -> Vec<String> {
        (0..count).map(|n| format!("{prefix}{n}")).collect()
    }

    fn equal(names: &[String]) -> Maglev {
        Maglev::new(names.iter().map(|name| (name.as_str(), 1)))
    }

    fn owned(table: &Maglev, count: usize) -> Vec<u32> {
        let mut slots = vec![0; count];
        for index in owners(table) {
            slots[index] += 1;
        }
        slots
    }

    #[test]
    fn without_a_weight_nobody_is_picked() {
        let table = Maglev::new([("a", 0)]);
        assert_eq!(pick(table, &Table::of(&[0]))(7), None);
    }

    #[test]
    fn the_order_of_the_nodes_does_not_matter() {
        let there = Maglev::new([("a", 1), ("b", 2), ("c", 3)]);
        let back = Maglev::new([("c", 3), ("b", 2), ("a", 1)]);
        let pairs = owners(&there).into_iter().zip(owners(&back));
        assert!(pairs.into_iter().all(|(x, y)| x == 2 - y));
    }

    /// Golden: every process and every version must pick the same.
    #[test]
    fn picks_never_change() {
        let names = named(10, "n");
        let table = equal(&names);
        let nodes = Table::of(&[1; 10]);
        let pick = pick(table, &nodes);
        let picks: Vec<usize> = (0..12u8)
            .filter_map(|n| pick(address_hash(Ipv4Addr::new(10, 0, 0, n).into())))
            .collect();
        assert_eq!(picks, [0, 4, 9, 5, 4, 5, 2, 9, 0, 1, 4, 8]);
        assert_eq!(pick(bytes_hash(b"room-42")), Some(7));
    }

    #[test]
    fn keys_of_a_node_that_is_down_spread_over_all_others_and_no_other_moves() {
        let names = named(10, "n");
        let all = Table::of(&[1; 10]);
        let mut without = all.clone();
        without.0[3].weight = 0;
        let (of_all, of_others) = (pick(equal(&names), &all), pick(equal(&names), &without));
        let mut heirs = [0u32; 10];
        for key in 0..50_000u64 {
            let hash = bytes_hash(&key.to_be_bytes());
            let (before, after) = (of_all(hash), of_others(hash));
            match before {
                Some(3) => heirs[after.unwrap()] += 1,
                _ => assert_eq!(before, after),
            }
        }
        assert_eq!(heirs[3], 0);
        let spread = heirs
            .iter()
            .filter(|heir| (450..660).contains(*heir))
            .count();
        assert_eq!(spread, 9, "{heirs:?}");
    }

    #[test]
    fn the_last_usable_node_is_found() {
        let names = named(500, "n");
        let mut nodes = Table::of(&[0; 500]);
        nodes.0[77].weight = 1;
        let pick = pick(equal(&names), &nodes);
        assert!((0..1000).all(|key| pick(mix(key)) == Some(77)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn load_error_is_at_most_one_percent(count in 2usize..=128, prefix in "[a-z]{1,8}") {
            let table = equal(&named(count, &prefix));
            let share = f64::from(table.size) / count as f64;
            for slots in owned(&table, count) {
                prop_assert!((f64::from(slots) - share).abs() <= share / 100.0, "{slots} of {share}");
            }
        }

        #[test]
        fn shares_follow_the_weights(weights in prop::collection::vec(1u32..=256, 2..50)) {
            let names = named(weights.len(), "n");
            let table = Maglev::new(names.iter().map(String::as_str).zip(weights.iter().copied()));
            let total = f64::from(weights.iter().sum::<u32>());
            for (slots, weight) in owned(&table, weights.len()).into_iter().zip(&weights) {
                let share = f64::from(table.size) * f64::from(*weight) / total;
                prop_assert!((f64::from(slots) - share).abs() <= 1.0 + share / 100.0, "{slots} of {share}");
            }
        }

        /// Two percent with the fewer slots, one with the many.
        #[test]
        fn losing_one_moves_few_other_keys(lost in 0usize..100, count in prop::sample::select(vec![100, 200]), prefix in "[a-z]{1,8}") {
            let names = named(count, &prefix);
            let before = equal(&names);
            let after = Maglev::new(names.iter().enumerate().map(|(n, name)| (name.as_str(), u32::from(n != lost))));
            let pairs = owners(&before).into_iter().zip(owners(&after));
            let moved = pairs.filter(|(old, new)| *old != lost && old != new).count();
            let most = if count == 100 { 50.0 } else { 100.0 };
            prop_assert!(moved as f64 <= f64::from(before.size) / most, "{moved} of {}", before.size);
        }

        /// The judge walks step by step to the end.
        #[test]
        fn the_last_slots_are_those_of_the_walks(weights in prop::collection::vec(1u32..=4, 1..140), prefix in "[a-z]{1,8}") {
            let names = named(weights.len(), &prefix);
            let nodes = || names.iter().map(String::as_str).zip(weights.iter().copied());
            let table = Maglev::new(nodes());
            let mut walks: Vec<(&str, Walk)> = (0..).zip(nodes())
                .map(|(index, (name, weight))| (name, Walk::new(index, name, weight, table.size)))
                .collect();
            walks.sort_unstable_by_key(|(name, _)| *name);
            let heaviest = u64::from(*weights.iter().max().unwrap());
            let mut filling = Filling::new(table.size);
            'rounds: for round in 1.. {
                for (_, walk) in &mut walks {
                    if round * walk.weight >= walk.due {
                        walk.due += heaviest;
                        filling.take(filling.next_free(walk), walk);
                    }
                    if filling.free == 0 {
                        break 'rounds;
                    }
                }
            }
            let plain: Vec<usize> = filling.owners.into_iter().map(usize::from).collect();
            prop_assert_eq!(owners(&table), plain);
        }
    }

    /// Golden: pools of more than 128 nodes keep the table that they have always had.
    #[test]
    fn keys_of_large_pools_never_move() {
        let names = named(200, "n");
        let table = equal(&names);
        let picks: Vec<usize> = (0..12u8)
            .filter_map(|n| table.at(address_hash(Ipv4Addr::new(10, 0, 0, n).into())))
            .collect();
        assert_eq!(
            picks,
            [180, 69, 187, 197, 109, 70, 101, 98, 138, 121, 117, 123]
        );
    }

    #[test]
    fn a_table_of_few_has_at_most_two_kib_a_node() {
        for count in 2..=300 {
            let bytes = equal(&named(count, "n")).slots.bytes();
            assert!(bytes <= 2048 * count, "{bytes} for {count}");
        }
    }
}
