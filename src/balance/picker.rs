//! An algorithm with what it keeps from pick to pick, and the order of its nodes.
//!
//! The order is kept up to date node by node, so that no pick looks at all of them. A lock guards
//! it for the length of one pick or one update: picks are made one after the other, and each counts
//! its connection before the next one looks. A node that changed otherwise is known by the old
//! facts until its `update`; a node that cannot take the connection is looked at anew at once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::forest::Forest;
use super::hash::mix;
use super::least_conn::{self, Least};
use super::maglev::Maglev;
use super::node::{Class, Node, Nodes, Pick};
use super::random;
use super::round_robin::RoundRobin;
use super::shares::{self, Share};

/// Nodes taken over under one hold of the lock: a few microseconds, so that no pick waits longer.
const CHUNK: usize = 256;

/// Draws from the table before a usable node is looked for by the order. Each fails as often as
/// usable nodes are rare: with half of the pool down one connection in 4 billion gets there.
const MAX_DRAWS: usize = 32;

/// An algorithm and its nodes.
#[derive(Debug)]
pub struct Picker {
    /// Where a key belongs: for algorithms by hash, and beside another algorithm.
    table: Option<Maglev>,
    /// Every pick asks the table first.
    picks_by_hash: bool,
    ranking: Mutex<Ranking>,
}

/// Nodes in the order of an algorithm.
#[derive(Debug)]
enum Ranking {
    RoundRobin(RoundRobin),
    LeastConn(Forest<Least>),
    /// The better of two drawn by weight.
    Random(Forest<Share>),
    /// A hash decides; the shares find another node where the table has none.
    Hash(Forest<Share>),
}

/// The picker before a change of the nodes, and the index there of each node.
pub type Carried<'a> = (&'a Picker, &'a dyn Fn(usize) -> Option<usize>);

impl Picker {
    /// Round robin that continues the round of another one for the nodes that stayed.
    pub fn round_robin(nodes: &impl Nodes, before: Option<Carried<'_>>) -> Self {
        let old = before.map(|(picker, place)| (picker.gained(), place));
        let gained = |index| {
            let (gained, place) = old.as_ref()?;
            gained.get(place(index)?).copied()
        };
        let carried = (0..nodes.count()).map(|index| gained(index).unwrap_or(0));
        Picker::new(Ranking::RoundRobin(RoundRobin::carried(carried)), nodes)
    }

    pub fn least_conn(nodes: &impl Nodes) -> Self {
        Picker::new(Ranking::LeastConn(Forest::new(nodes.count())), nodes)
    }

    pub fn random(nodes: &impl Nodes) -> Self {
        Picker::new(Ranking::Random(Forest::new(nodes.count())), nodes)
    }

    /// `table`: of the same nodes, in the same order.
    pub fn hash(nodes: &impl Nodes, table: Maglev) -> Self {
        Picker {
            picks_by_hash: true,
            ..Picker::new(Ranking::Hash(Forest::new(nodes.count())), nodes).with_table(table)
        }
    }

    /// Adds a table of the same nodes, in the same order, for [`Picker::take_by_hash`].
    pub fn with_table(self, table: Maglev) -> Self {
        Picker {
            table: Some(table),
            ..self
        }
    }

    fn new(ranking: Ranking, nodes: &impl Nodes) -> Self {
        let picker = Picker {
            table: None,
            picks_by_hash: false,
            ranking: Mutex::new(ranking),
        };
        picker.sync(nodes);
        picker
    }

    /// Picks a node and has `take` count a connection on it; where `take` gives `None`, another one
    /// is picked. `None`: no node of these classes can be picked.
    ///
    /// `take` is called under the lock of the picker, and must not call it.
    pub fn take<T>(
        &self,
        nodes: &impl Nodes,
        request: &Pick<'_>,
        mut take: impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        if self.picks_by_hash {
            return self.take_by_hash(nodes, request, take);
        }
        self.take_ranked(nodes, request, &mut take)
    }

    /// As [`Picker::take`], by the hash that is the request's `entropy`, if there is a table.
    pub fn take_by_hash<T>(
        &self,
        nodes: &impl Nodes,
        request: &Pick<'_>,
        mut take: impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        if let Some(table) = &self.table
            && let Some(taken) = self.take_by(table, nodes, request, &mut take)
        {
            return Some(taken);
        }
        self.take_ranked(nodes, request, &mut take)
    }

    /// The node that a hash belongs to, whether it can be picked or not.
    pub fn home(&self, hash: u64) -> Option<usize> {
        self.table.as_ref()?.at(hash)
    }

    fn take_ranked<T>(
        &self,
        nodes: &impl Nodes,
        request: &Pick<'_>,
        take: &mut impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        let mut ranking = self.lock();
        ranking.leave_out(nodes, request.without);
        let taken = loop {
            let Some(index) = ranking.pick(nodes, request) else {
                break None;
            };
            let taken = take(index);
            ranking.set(index, nodes.node(index));
            if taken.is_some() {
                break taken;
            }
        };
        ranking.put_back(nodes, request.without);
        taken
    }

    /// Takes the node of a hash, or, while that one cannot be picked, another that follows from the
    /// hash alone: the keys of one lost node are spread over all others by weight.
    fn take_by<T>(
        &self,
        table: &Maglev,
        nodes: &impl Nodes,
        request: &Pick<'_>,
        take: &mut impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        let mut draw = request.entropy;
        for _ in 0..MAX_DRAWS {
            let index = table.at(draw)?;
            if request.allows(index, nodes.node(index))
                && let Some(taken) = take(index)
            {
                // A hash has no loads in its order.
                if !self.picks_by_hash || nodes.node(index).weight == 0 {
                    self.update(nodes, index);
                }
                return Some(taken);
            }
            draw = mix(draw);
        }
        None
    }

    /// Whether a node of these classes, other than those, can be picked.
    pub fn has_any(&self, nodes: &impl Nodes, request: &Pick<'_>) -> bool {
        let mut ranking = self.lock();
        ranking.leave_out(nodes, request.without);
        let is_empty = ranking.is_empty(request.classes);
        ranking.put_back(nodes, request.without);
        !is_empty
    }

    /// Takes over the facts of a node after a change of its class, weight or load.
    pub fn update(&self, nodes: &impl Nodes, index: usize) {
        // Read under the lock: of two updates the later one has the newer facts.
        let mut ranking = self.lock();
        ranking.set(index, nodes.node(index));
    }

    /// Takes over the facts of all nodes: costs their count, and no pick waits for all of it.
    pub fn sync(&self, nodes: &impl Nodes) {
        let count = nodes.count();
        for start in (0..count).step_by(CHUNK) {
            let end = count.min(start + CHUNK);
            self.lock().set_range(start..end, nodes);
        }
    }

    /// Gains in the round by index; none without a round.
    pub(super) fn gained(&self) -> Vec<i64> {
        match &*self.lock() {
            Ranking::RoundRobin(round) => round.gained(),
            Ranking::LeastConn(_) | Ranking::Random(_) | Ranking::Hash(_) => Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ranking> {
        self.ranking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ranking {
    fn pick(&mut self, nodes: &impl Nodes, request: &Pick<'_>) -> Option<usize> {
        let Pick {
            classes, entropy, ..
        } = *request;
        match self {
            Ranking::RoundRobin(round) => round.pick(classes),
            Ranking::LeastConn(least) => least_conn::pick(least, classes, entropy),
            Ranking::Random(shares) => random::pick(shares, nodes, request),
            Ranking::Hash(shares) => {
                let start = super::hash::below(mixed(entropy), nodes.count() as u64);
                shares::next(shares, classes, usize::try_from(start).ok()?)
            }
        }
    }

    fn set(&mut self, index: usize, node: Node) {
        match self {
            Ranking::RoundRobin(round) => round.set(index, node),
            Ranking::LeastConn(least) => least.set(index, node),
            Ranking::Random(shares) | Ranking::Hash(shares) => shares.set(index, node),
        }
    }

    fn set_range(&mut self, range: std::ops::Range<usize>, nodes: &impl Nodes) {
        match self {
            Ranking::RoundRobin(round) => {
                range.for_each(|index| round.set(index, nodes.node(index)));
            }
            Ranking::LeastConn(least) => least.set_range(range, nodes),
            Ranking::Random(shares) | Ranking::Hash(shares) => shares.set_range(range, nodes),
        }
    }

    fn is_empty(&self, classes: &[Class]) -> bool {
        match self {
            Ranking::RoundRobin(round) => round.is_empty(classes),
            Ranking::LeastConn(least) => least.trees(classes).next().is_none(),
            Ranking::Random(shares) | Ranking::Hash(shares) => {
                shares.trees(classes).next().is_none()
            }
        }
    }

    fn leave_out(&mut self, nodes: &impl Nodes, without: &[usize]) {
        for index in without.iter().filter(|index| **index < nodes.count()) {
            let node = nodes.node(*index);
            self.set(*index, Node { weight: 0, ..node });
        }
    }

    fn put_back(&mut self, nodes: &impl Nodes, without: &[usize]) {
        for index in without.iter().filter(|index| **index < nodes.count()) {
            self.set(*index, nodes.node(*index));
        }
    }
}

/// The number that follows all draws from a hash.
fn mixed(hash: u64) -> u64 {
    (0..MAX_DRAWS).fold(hash, |draw, _| mix(draw))
}
