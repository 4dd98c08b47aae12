//! State of affinity in a pool.

use std::time::Instant;

use arc_swap::ArcSwapOption;

use super::link::AffinityLink;
use super::memory::Memory;
use crate::base::rate::Bucket;
use crate::pool::clock::clock;

/// Memory of a pool's clients, and the link to what other balancers know.
#[derive(Debug)]
pub(in crate::pool) struct Affinity {
    pub(super) memory: Memory,
    /// `None` outside of a cluster that shares it.
    pub(super) link: ArcSwapOption<AffinityLink>,
    pub(super) asked: Bucket,
    pub(super) epoch: Instant,
}

impl Affinity {
    pub(in crate::pool) fn new() -> Affinity {
        Affinity {
            memory: Memory::new(),
            link: ArcSwapOption::empty(),
            asked: Bucket::default(),
            epoch: clock(),
        }
    }
}
