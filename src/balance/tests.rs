//! Rules that every algorithm keeps to, and picks of several threads at once.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use proptest::prelude::*;

use super::node::testing::{Table, any as any_serving};
use super::*;

fn all(nodes: &Table) -> [Picker; 4] {
    let names: Vec<String> = (0..nodes.count()).map(|n| format!("n{n}")).collect();
    let named = names.iter().map(String::as_str).zip(nodes.weights());
    [
        Picker::round_robin(nodes, None),
        Picker::least_conn(nodes),
        Picker::random(nodes),
        Picker::hash(nodes, Maglev::new(named)),
    ]
}

fn class() -> impl Strategy<Value = Class> {
    prop::sample::select(vec![
        Class::Serving,
        Class::Probed,
        Class::Spared,
        Class::SparedProbed,
    ])
}

fn node() -> impl Strategy<Value = Node> {
    (class(), 0u32..4, 0u64..9).prop_map(|(class, weight, load)| Node {
        class,
        weight,
        load,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever changes, an algorithm picks a node that can be picked, and finds one if there is
    /// one.
    #[test]
    fn a_pick_is_one_that_a_scan_would_allow(
        nodes in prop::collection::vec(node(), 1..40),
        changes in prop::collection::vec((any::<prop::sample::Index>(), node()), 0..20),
        classes in prop::collection::vec(class(), 1..4),
        without in prop::collection::vec(0usize..40, 0..3),
        entropy in any::<u64>(),
    ) {
        let mut nodes = Table(nodes);
        let pickers = all(&Table(nodes.0.iter().map(|node| Node { weight: 1, ..*node }).collect()));
        pickers.iter().for_each(|picker| picker.sync(&nodes));
        let request = Pick { classes: &classes, without: &without, entropy };
        for (at, node) in changes {
            let at = at.index(nodes.count());
            nodes.0[at] = node;
            let exists = (0..nodes.count()).any(|index| request.allows(index, nodes.0[index]));
            for picker in &pickers {
                picker.update(&nodes, at);
                prop_assert_eq!(picker.has_any(&nodes, &request), exists);
                let picked = picker.take(&nodes, &request, Some);
                prop_assert_eq!(picked.is_some(), exists);
                prop_assert!(picked.is_none_or(|index| request.allows(index, nodes.0[index])));
            }
        }
    }

    /// Loads that come from elsewhere, such as other balancers', count once they were taken over.
    #[test]
    fn loads_are_taken_over_as_a_whole(
        count in 1usize..600,
        loads in prop::collection::vec((0u64..5, 0u64..1000), 600),
        entropy in any::<u64>(),
    ) {
        let own: Vec<u64> = loads.iter().map(|(own, _)| *own).collect();
        let mut nodes = Table::of(&vec![1; count]).with_loads(&own);
        let picker = Picker::least_conn(&nodes);
        for (node, (_, of_others)) in nodes.0.iter_mut().zip(&loads) {
            node.load += of_others;
        }
        picker.sync(&nodes);
        let picked = picker.take(&nodes, &any_serving(entropy), Some).unwrap();
        prop_assert_eq!(nodes.0[picked].load, *nodes.loads().iter().min().unwrap());
    }
}

#[test]
fn a_node_that_cannot_take_the_connection_is_passed_over() {
    struct Closing<'a>(&'a AtomicU64);
    impl Nodes for Closing<'_> {
        fn count(&self) -> usize {
            3
        }
        fn node(&self, index: usize) -> Node {
            let is_closed = self.0.load(SeqCst) >> index & 1 == 1;
            Node {
                class: Class::Serving,
                weight: u32::from(!is_closed),
                load: 0,
            }
        }
    }
    let all_open = Table::of(&[1; 3]);
    for picker in all(&all_open) {
        let closed = AtomicU64::new(0);
        let close = |index: usize| {
            closed.fetch_or(1 << index, SeqCst);
            (index == 1).then_some(index)
        };
        closed.fetch_or(0b101, SeqCst);
        assert_eq!(
            picker.take(&Closing(&closed), &any_serving(7), close),
            Some(1)
        );
        assert_eq!(picker.take(&Closing(&closed), &any_serving(7), close), None);
    }
}

/// Nodes whose connections come and go on several threads.
struct Shared(Vec<AtomicU64>);

impl Nodes for Shared {
    fn count(&self) -> usize {
        self.0.len()
    }
    fn node(&self, index: usize) -> Node {
        Node {
            class: Class::Serving,
            weight: 1,
            load: self.0[index].load(SeqCst),
        }
    }
}

impl Shared {
    fn take(&self, picker: &Picker, entropy: u64) -> usize {
        let count = |index: usize| {
            self.0[index].fetch_add(1, SeqCst);
            Some(index)
        };
        picker.take(self, &any_serving(entropy), count).unwrap()
    }

    fn leave(&self, picker: &Picker, index: usize) {
        self.0[index].fetch_sub(1, SeqCst);
        picker.update(self, index);
    }

    fn loads(&self) -> Vec<u64> {
        self.0.iter().map(|load| load.load(SeqCst)).collect()
    }
}

/// Exact although several threads pick: each pick counts before the next one looks.
#[test]
fn threads_that_only_connect_fill_all_nodes_alike() {
    let nodes = Shared((0..37).map(|_| AtomicU64::new(0)).collect());
    let picker = Picker::least_conn(&nodes);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (nodes, picker) = (&nodes, &picker);
            scope.spawn(move || {
                for n in 0..37 * 25 {
                    nodes.take(picker, thread << 32 | n);
                }
            });
        }
    });
    assert_eq!(nodes.loads(), [100; 37]);
}

/// Once all is quiet the order is that of the counts, whatever came and went at once.
#[test]
fn threads_that_connect_and_leave_lose_no_change() {
    let nodes = Shared((0..21).map(|_| AtomicU64::new(0)).collect());
    let picker = Picker::least_conn(&nodes);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (nodes, picker) = (&nodes, &picker);
            scope.spawn(move || {
                let mut held = Vec::new();
                for n in 0..4000u64 {
                    let random = hash::mix(thread << 32 | n);
                    if random.is_multiple_of(3) && !held.is_empty() {
                        let at = random as usize / 3 % held.len();
                        nodes.leave(picker, held.swap_remove(at));
                    } else {
                        held.push(nodes.take(picker, random));
                    }
                }
                // Most of them leave one node: the loads differ.
                held.into_iter()
                    .filter(|index| index % 2 == 0)
                    .for_each(|index| nodes.leave(picker, index));
            });
        }
    });
    for n in 0..2000 {
        let least = *nodes.loads().iter().min().unwrap();
        let index = nodes.take(&picker, n);
        assert_eq!(nodes.loads()[index], least + 1);
    }
}
