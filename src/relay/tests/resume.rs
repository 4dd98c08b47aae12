//! Sessions that outlive their backends against a model: random frames of both sides in random
//! pieces, and backends that die, say that they go, are taken from their sessions, come and do not
//! come, at random moments; and the session moves to another relay and back, at any of them.
//!
//! The model: a client's message comes to one backend at most, whole, in order and behind those
//! before it, and none is missing beyond what the next backend heard of, or that was begun in the
//! gap; a client gets whole frames only, each backend's messages from the first on without one
//! missing, and all of them where the backend went in an orderly way. A session ends only for a
//! reason.
//!
//! `EVENKEEL_RESUME_SEEDS=5000 cargo test --lib relay::tests::resume` runs more seeds; a failure
//! names its seed.

mod judge;
pub(super) mod peer;
pub(super) mod world;

use std::time::Instant;

use self::world::World;
use super::*;

fn run(bench: &Bench, seed: u64) -> usize {
    let mut world = World::new(bench, seed);
    for _ in 0..world.rng.usize(10..120) {
        world.act();
    }
    world.settle();
    world.judge();
    assert_eq!(bench.live(), 0);
    let begun = Instant::now();
    while bench.held_bytes() != 0 {
        assert!(begun.elapsed() < LONG, "nothing lives and bytes are held");
        std::thread::yield_now();
    }
    if let Some(sought) = &world.open_gap {
        assert!(sought.stop.is_cancelled(), "a search goes on");
    }
    world.backends.len() - 1
}

#[test]
fn whatever_happens_messages_come_once_and_in_order_and_frames_are_whole() {
    let seeds = std::env::var("EVENKEEL_RESUME_SEEDS").map_or(40, |seeds| seeds.parse().unwrap());
    let first = std::env::var("EVENKEEL_RESUME_SEED").map_or(0, |seed| seed.parse().unwrap());
    let bench = Bench::new();
    let mut resumed = 0;
    for seed in first..first + seeds {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&bench, seed)));
        resumed += ran.unwrap_or_else(|_| panic!("seed {seed}: EVENKEEL_RESUME_SEED={seed}"));
    }
    let ends = bench.ends();
    assert!(!ends.iter().any(|end| end.contains("panic")), "{ends:?}");
    assert!(resumed > 0 || seeds < 20, "nobody was resumed");
}
