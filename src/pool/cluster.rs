//! The seam between a pool and the cluster: own counts out, the others' counts in.
//!
//! An exchange reads [`Pool::own_loads`], tells them to the others, and gives what it has from them
//! to [`Pool::set_cluster_loads`]. It costs by the count of backends and holds the order of picks
//! for a few microseconds at a time. No pick waits for an exchange.

use std::sync::Arc;

use super::backend::Backend;
use super::backend_pool::Pool;

/// Own connections of one backend, for the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnLoad {
    /// Unique in the pool.
    pub backend: Arc<str>,
    pub live: u64,
}

/// What the other balancers of the cluster have on the backends of one pool.
pub struct ClusterExchange<'a> {
    /// Balancers that share, this one among them.
    pub members: u32,
    /// Connections of all others on the backend of a name; 0 where they have none.
    pub others: &'a dyn Fn(&str) -> u64,
    /// Picks, limits and rebalances go by the loads of all.
    pub shares_load: bool,
    /// Paced drains end the part of each balancer.
    pub shares_drain: bool,
}

impl Pool {
    /// Live connections by backend, for the other balancers: present backends in the pool's order,
    /// then removed ones that still have some.
    pub fn own_loads(&self) -> Vec<OwnLoad> {
        let all = self.backends().into_iter().chain(self.retired());
        all.map(|backend| OwnLoad {
            backend: backend.name().clone(),
            live: backend.live(),
        })
        .collect()
    }

    /// Takes over an exchange: picks, limits, rebalances and paced drains go by it from now on.
    /// Serves the queue, as there may be room now.
    pub fn set_cluster_loads(&self, exchange: &ClusterExchange<'_>) {
        let peers = exchange.members.saturating_sub(1);
        self.peers.set(if exchange.shares_load { peers } else { 0 });
        self.each_backend(|backend| {
            let others = (exchange.others)(backend.name());
            let of = |is_shared: bool| if is_shared { others } else { 0 };
            let (load, drain) = (of(exchange.shares_load), of(exchange.shares_drain));
            backend.connections().set_others(load);
            backend.cluster().exchange(load, drain);
        });
        self.reorder();
    }

    /// Goes on without the others, of whom nothing is heard: picks go by the own connections alone.
    /// A backend's `max_connections` still leaves the others what they had last, and this balancer
    /// at least its equal part. Ends with the next exchange, or with [`Pool::leave_cluster`].
    pub fn set_alone(&self, members: u32) {
        self.peers.set(0);
        self.each_backend(|backend| {
            backend.connections().set_alone(members.max(1));
            backend.cluster().be_alone(backend.live(), members);
        });
        self.reorder();
    }

    /// Forgets the others: the pool is in no cluster any more.
    pub fn leave_cluster(&self) {
        self.set_cluster_loads(&ClusterExchange {
            members: 1,
            others: &|_| 0,
            shares_load: false,
            shares_drain: false,
        });
    }

    fn each_backend(&self, change: impl Fn(&Backend)) {
        let view = self.view.load();
        let all = view.present.iter().chain(&view.retired);
        all.for_each(|backend| change(backend));
    }

    /// Orders the picks by the present loads. A view that is made meanwhile orders its own, once it
    /// is in force.
    fn reorder(&self) {
        self.view.load().reorder();
        self.serve_queue();
    }
}
