//! Connections that the other balancers of the cluster have on one backend, and the own picks since
//! they were told. The exchange writes them; a pick reads them, and adds to the picks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use crate::balance::{SharedLoad, untold};

/// Balancers that pick beside this one; 0 outside of a cluster, or where it does not share loads.
/// One for all backends of a pool, so that a new one is not filled by all balancers at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Peers(Arc<AtomicU32>);

impl Peers {
    pub(super) fn get(&self) -> u32 {
        self.0.load(SeqCst)
    }

    pub(super) fn set(&self, peers: u32) {
        self.0.store(peers, SeqCst);
    }
}

#[derive(Debug)]
pub(super) struct ClusterLoad {
    peers: Peers,
    others: AtomicU64,
    /// Own picks that stand for the others', too; counted only beside others.
    picks: AtomicU64,
    /// Those among `picks` that are of the interval before. Only an exchange writes it.
    carried: AtomicU64,
    /// The others' connections of which a paced drain ends its part; 0 where drains are not shared.
    draining_others: AtomicU64,
}

impl ClusterLoad {
    pub(super) fn new(peers: &Peers) -> ClusterLoad {
        ClusterLoad {
            peers: peers.clone(),
            others: AtomicU64::new(0),
            picks: AtomicU64::new(0),
            carried: AtomicU64::new(0),
            draining_others: AtomicU64::new(0),
        }
    }

    /// Takes over an exchange. Picks that come meanwhile count for the interval that begins.
    pub(super) fn exchange(&self, others: u64, draining_others: u64) {
        self.others.store(others, SeqCst);
        let picks = self.picks.load(SeqCst);
        let kept = untold(picks.saturating_sub(self.carried.load(SeqCst)));
        self.carried.store(kept, SeqCst);
        self.picks.fetch_sub(picks - kept, SeqCst);
        self.draining_others.store(draining_others, SeqCst);
    }

    /// Counts a pick of this balancer.
    pub(super) fn picked(&self) {
        if self.peers.get() > 0 {
            self.picks.fetch_add(1, SeqCst);
        }
    }

    /// The load that picks go by.
    pub(super) fn estimate(&self, own: u64) -> u64 {
        match self.peers.get() {
            0 => own,
            peers => self.shared(own).estimate(peers),
        }
    }

    pub(super) fn shared(&self, own: u64) -> SharedLoad {
        SharedLoad {
            own,
            others: self.others.load(SeqCst),
            picks: self.picks.load(SeqCst),
        }
    }

    /// The load of which a paced drain ends its part.
    pub(super) fn draining(&self, own: u64) -> SharedLoad {
        SharedLoad {
            own,
            others: self.draining_others.load(SeqCst),
            picks: 0,
        }
    }
}
