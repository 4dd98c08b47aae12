//! Several balancers in front of the same backends, with the picks of the product and simulated
//! time (`benches/cluster`, which prints all figures).

#![expect(
    clippy::expect_used,
    dead_code,
    unreachable_pub,
    reason = "the benchmark uses all of it"
)]

#[path = "../benches/cluster/scenarios.rs"]
mod scenarios;
#[path = "../benches/cluster/simulation.rs"]
mod simulation;

use scenarios::{Join, Sparse, Sticky};
use simulation::Policy;

/// By the others' counts alone all balancers ran to the node that was emptiest a second ago.
#[test]
fn an_empty_backend_is_filled_and_not_flooded() {
    for balancers in [2, 4, 16, 64] {
        for seed in 1..=4 {
            let joined = Join::USUAL.run(Policy::Cluster, balancers, seed);
            let (after, worst) = (joined.after, joined.worst);
            assert!(after <= 1.05, "{after} after, of {balancers}, seed {seed}");
            assert!(
                worst <= 1.2,
                "{worst} at worst, of {balancers}, seed {seed}"
            );
            assert!(joined.filled >= 0.9, "{joined:?}");
        }
    }
}

#[test]
fn gauges_alone_herd() {
    let joined = Join::USUAL.run(Policy::Gauges, 16, 1);
    assert!(joined.worst > 2.0, "{joined:?}");
}

#[test]
fn few_connections_over_many_balancers_are_spread_better_than_by_own_counts() {
    let [own, shared] =
        [Policy::Local, Policy::Cluster].map(|policy| Sparse::USUAL.run(policy, 16, 1));
    assert!(shared <= 1.35, "{shared}");
    assert!(own >= shared + 0.2, "{own}, {shared}");
}

#[test]
fn clients_that_stick_to_a_backend_of_one_balancer_count_for_all() {
    let [own, shared] =
        [Policy::Local, Policy::Cluster].map(|policy| Sticky::USUAL.run(policy, 4, 1));
    assert!(shared <= 1.03, "{shared}");
    assert!(own >= 1.3, "{own}");
}
