//! Even distribution of live connections: the share of each node by its weight and limit, and
//! whether it is worth moving some. Works on counts only; which connections move, and how, is
//! decided elsewhere.

/// Load of a node that takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeLoad {
    pub live: u64,
    /// Only the proportion of weights counts; 0 = its share is nothing.
    pub weight: u32,
    /// The most it takes; 0 = no own limit.
    pub max: u64,
}

impl NodeLoad {
    fn limit(&self) -> u64 {
        match self.max {
            0 => u64::MAX,
            max => max,
        }
    }
}

/// Target of each node, if moving helps: a node is above its share by more than `threshold_percent`
/// of it, and another one below.
///
/// The targets add up to the present total. A node above its share is never brought below it
/// (rounded down).
pub fn level(loads: &[NodeLoad], threshold_percent: u8) -> Option<Vec<u64>> {
    let targets = targets(loads);
    let threshold = u128::from(threshold_percent);
    let pairs = || loads.iter().zip(&targets);
    let scaled = |live: u64| u128::from(live) * 100;
    let high =
        pairs().any(|(load, target)| scaled(load.live) > u128::from(*target) * (100 + threshold));
    let low = pairs().any(|(load, target)| {
        scaled(load.live) < u128::from(*target) * 100_u128.saturating_sub(threshold)
    });
    (high && low).then_some(targets)
}

/// Whole numbers as close to the shares as can be.
fn targets(loads: &[NodeLoad]) -> Vec<u64> {
    let mut targets = vec![0; loads.len()];
    let mut rest: u64 = loads.iter().map(|load| load.live).sum();
    let mut open: Vec<usize> = (0..loads.len())
        .filter(|at| loads[*at].weight > 0)
        .collect();
    // A node that cannot take its share takes up to its limit, and the others share the rest.
    loop {
        let weights: u128 = open.iter().map(|at| u128::from(loads[*at].weight)).sum();
        let share = |at: &usize| share_of(rest, loads[*at].weight, weights);
        let (full, others): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|at| share(at) > loads[**at].limit());
        if full.is_empty() {
            open.iter().for_each(|at| targets[*at] = share(at));
            break;
        }
        for at in full {
            targets[at] = loads[at].limit();
            rest -= targets[at];
        }
        open = others;
    }
    distribute_remainder(loads, &mut targets, open);
    targets
}

/// Distributes the remainder: a division's stays with the most loaded nodes, and connections that
/// no node has room for stay where they are.
fn distribute_remainder(loads: &[NodeLoad], targets: &mut [u64], mut open: Vec<usize>) {
    let all: u64 = loads.iter().map(|load| load.live).sum();
    let mut rest = all - targets.iter().sum::<u64>();
    open.sort_by_key(|at| std::cmp::Reverse(loads[*at].live));
    for at in open {
        let one = rest.min(1).min(loads[at].limit() - targets[at]);
        targets[at] += one;
        rest -= one;
    }
    for (load, target) in loads.iter().zip(targets) {
        let stays = rest.min(load.live.saturating_sub(*target));
        *target += stays;
        rest -= stays;
    }
}

/// `all * weight / weights`, rounded down.
fn share_of(all: u64, weight: u32, weights: u128) -> u64 {
    let share = u128::from(all) * u128::from(weight) / weights.max(1);
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load(live: u64, weight: u32) -> NodeLoad {
        NodeLoad {
            live,
            weight,
            max: 0,
        }
    }

    #[test]
    fn a_new_node_gets_its_share_from_all_others() {
        let loads = [load(100, 1), load(101, 1), load(99, 1), load(0, 1)];
        assert_eq!(level(&loads, 20), Some(vec![75; 4]));
        let weighted = [load(200, 2), load(100, 1), load(0, 1)];
        assert_eq!(level(&weighted, 20), Some(vec![150, 75, 75]));
    }

    #[test]
    fn within_the_threshold_nobody_is_moved() {
        assert_eq!(level(&[load(109, 1), load(91, 1)], 10), None);
        assert_eq!(level(&[load(110, 1), load(90, 1)], 10), None);
        assert_eq!(
            level(&[load(111, 1), load(89, 1)], 10),
            Some(vec![100, 100])
        );
        // One is high and nobody is low by as much.
        let spread = [load(130, 1), load(90, 1), load(90, 1), load(90, 1)];
        assert_eq!(level(&spread, 20), None);
        assert_eq!(level(&[], 20), None);
        assert_eq!(level(&[load(5, 0)], 20), None);
    }

    #[test]
    fn a_full_node_takes_no_more_and_the_others_share_the_more() {
        let full = NodeLoad {
            max: 40,
            ..load(40, 1)
        };
        assert_eq!(
            level(&[load(200, 1), full, load(60, 1)], 20),
            Some(vec![130, 40, 130])
        );
        // Only the full one is low.
        assert_eq!(level(&[load(130, 1), full, load(130, 1)], 20), None);
    }

    fn loads() -> impl Strategy<Value = Vec<NodeLoad>> {
        let max = prop_oneof![Just(0u64), 1u64..500];
        let one = (0u64..1000, 0u32..5, max);
        let one = one.prop_map(|(live, weight, max)| NodeLoad { live, weight, max });
        prop::collection::vec(one, 0..12)
    }

    proptest! {
        #[test]
        fn the_total_is_kept_and_nobody_falls_below_its_share(loads in loads(), threshold in 1u8..90) {
            let total: u64 = loads.iter().map(|load| load.live).sum();
            let weights: u128 = loads.iter().map(|load| u128::from(load.weight)).sum();
            let Some(targets) = level(&loads, threshold) else { return Ok(()) };
            prop_assert_eq!(targets.iter().sum::<u64>(), total);
            for (load, target) in loads.iter().zip(&targets) {
                let least = share_of(total, load.weight, weights).min(load.limit());
                prop_assert!(*target >= least, "{:?} {}", load, target);
                // Who gets some has the room for it.
                prop_assert!(*target <= load.live || *target <= load.limit());
                prop_assert!(*target <= load.live || load.weight > 0);
            }
        }

        #[test]
        fn what_is_level_is_left_alone(loads in loads(), threshold in 1u8..90) {
            let Some(targets) = level(&loads, threshold) else { return Ok(()) };
            let after: Vec<NodeLoad> = loads.iter().zip(&targets).map(|(load, live)| NodeLoad { live: *live, ..*load }).collect();
            prop_assert_eq!(level(&after, threshold), None);
        }

        /// Whoever is moved goes wherever the algorithm likes: while each goes from a node above
        /// its target to one below, it ends after as many as were planned.
        #[test]
        fn one_by_one_it_comes_to_an_end(loads in loads(), picks in prop::collection::vec(any::<prop::sample::Index>(), 1..20)) {
            let Some(targets) = level(&loads, 20) else { return Ok(()) };
            let mut live: Vec<u64> = loads.iter().map(|load| load.live).collect();
            let planned: u64 = live.iter().zip(&targets).map(|(live, target)| live.saturating_sub(*target)).sum();
            prop_assert!(planned > 0);
            for turn in 0..planned {
                let of = |wanted: &dyn Fn(u64, u64) -> bool| -> Vec<usize> {
                    (0..live.len()).filter(|at| wanted(live[*at], targets[*at])).collect()
                };
                let (above, below) = (of(&|live, target| live > target), of(&|live, target| live < target));
                prop_assert!(!above.is_empty() && !below.is_empty());
                let pick = &picks[turn as usize % picks.len()];
                live[above[pick.index(above.len())]] -= 1;
                live[below[pick.index(below.len())]] += 1;
            }
            prop_assert_eq!(live, targets);
        }
    }
}
