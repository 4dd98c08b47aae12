//! Several balancers in front of the same backends, each with a picker of the product. Time is
//! simulated, and the same seed gives the same figures on every machine.
//!
//! Each balancer counts its own connections. Once in an interval, at a moment of its own, it tells
//! its counts and takes over what the others told last: a count of another balancer is up to one
//! interval old, half of it on average.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use evenkeel::balance::{Class, Node, Nodes, Pick, Picker, SharedLoad, untold};
use fastrand::Rng;

/// How a balancer picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `least_conn` by own connections.
    Local,
    /// `least_conn` by the connections of all, as if they were known at once.
    Exact,
    /// `least_conn` by own connections and what the others told.
    Gauges,
    /// The better of two, by own connections and what the others told.
    TwoChoices,
    /// `least_conn` of the product in a cluster: as `Gauges`, and a pick stands for one of each.
    Cluster,
}

impl Policy {
    pub const ALL: [Policy; 5] = [
        Policy::Local,
        Policy::Exact,
        Policy::Gauges,
        Policy::TwoChoices,
        Policy::Cluster,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Policy::Local => "local least_conn",
            Policy::Exact => "exact knowledge",
            Policy::Gauges => "own + others' gauges, least",
            Policy::TwoChoices => "two choices on gauges",
            Policy::Cluster => "in a cluster (lcN)",
        }
    }
}

/// A client that comes: when, to which balancer, for how long, and whether it sticks to a backend.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    pub at: f64,
    pub balancer: usize,
    pub stays: f64,
    pub backend: Option<usize>,
}

/// Picks of one kind over the backends, with the counts that they go by.
struct Balancer {
    picker: Picker,
    counts: Counts,
}

/// Counts of one balancer.
struct Counts {
    own: Vec<Cell<u64>>,
    others: Vec<Cell<u64>>,
    picks: Vec<Cell<u64>>,
    /// Those of the interval before among `picks`.
    carried: Vec<Cell<u64>>,
    /// Balancers that each pick stands for, beside this one.
    peers: u32,
}

impl Nodes for Counts {
    fn count(&self) -> usize {
        self.own.len()
    }

    fn node(&self, index: usize) -> Node {
        let load = SharedLoad {
            own: self.own[index].get(),
            others: self.others[index].get(),
            picks: self.picks[index].get(),
        };
        Node {
            class: Class::Serving,
            weight: 1,
            load: load.estimate(self.peers),
        }
    }
}

impl Balancer {
    fn new(policy: Policy, backends: usize, balancers: usize) -> Balancer {
        let zeros = || vec![Cell::new(0); backends];
        let counts = Counts {
            own: zeros(),
            others: zeros(),
            picks: zeros(),
            carried: zeros(),
            peers: match policy {
                Policy::Cluster => balancers as u32 - 1,
                _ => 0,
            },
        };
        let picker = match policy {
            Policy::TwoChoices => Picker::random(&counts),
            _ => Picker::least_conn(&counts),
        };
        Balancer { picker, counts }
    }

    fn pick(&self, entropy: u64) -> usize {
        let request = Pick {
            classes: &[Class::Serving],
            without: &[],
            entropy,
        };
        let take = |index: usize| {
            add(&self.counts.own[index], 1);
            add(&self.counts.picks[index], 1);
            Some(index)
        };
        let picked = self.picker.take(&self.counts, &request, take);
        picked.expect("all backends serve")
    }

    /// Counts a client that sticks to a backend: no pick.
    fn stick(&self, backend: usize) {
        add(&self.counts.own[backend], 1);
        self.picker.update(&self.counts, backend);
    }

    fn leave(&self, backend: usize) {
        let count = &self.counts.own[backend];
        count.set(count.get() - 1);
        self.picker.update(&self.counts, backend);
    }

    fn exchange(&self, others: impl Fn(usize) -> u64) {
        for (index, count) in self.counts.others.iter().enumerate() {
            count.set(others(index));
            let (picks, carried) = (&self.counts.picks[index], &self.counts.carried[index]);
            carried.set(untold(picks.get() - carried.get()));
            picks.set(carried.get());
        }
        self.picker.sync(&self.counts);
    }
}

fn add(count: &Cell<u64>, more: u64) {
    count.set(count.get() + more);
}

/// Something that happens, ordered by time, then by the order of its planning.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    nanoseconds: u64,
    number: u64,
    what: What,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Arrival(usize),
    Departure { balancer: usize, backend: usize },
    Exchange { balancer: usize },
}

/// Balancers and backends at one moment of the simulated time.
pub struct World {
    policy: Policy,
    balancers: Vec<Balancer>,
    told: Vec<Vec<u64>>,
    live: Vec<u64>,
    interval: f64,
    events: BinaryHeap<Reverse<Event>>,
    number: u64,
    rng: Rng,
}

impl World {
    pub fn new(policy: Policy, balancers: usize, backends: usize, seed: u64) -> World {
        // With exact knowledge it makes no difference which balancer picks: there is one.
        let pickers = if policy == Policy::Exact {
            1
        } else {
            balancers
        };
        let new = |_| Balancer::new(policy, backends, balancers);
        let mut world = World {
            policy,
            balancers: (0..pickers).map(new).collect(),
            told: vec![vec![0; backends]; pickers],
            live: vec![0; backends],
            interval: 1.0,
            events: BinaryHeap::new(),
            number: 0,
            rng: Rng::with_seed(seed),
        };
        for balancer in 0..pickers {
            let at = world.rng.f64() * world.interval;
            world.plan(at, What::Exchange { balancer });
        }
        world
    }

    /// Connections by backend.
    pub fn live(&self) -> &[u64] {
        &self.live
    }

    /// The largest count over the mean.
    pub fn unevenness(&self) -> f64 {
        let most = self.live.iter().max().copied().unwrap_or(0);
        let all: u64 = self.live.iter().sum();
        most as f64 * self.live.len() as f64 / all.max(1) as f64
    }

    /// Gives a balancer connections that stay, and has all balancers know of them.
    pub fn preload(&mut self, loads: &[Vec<u64>]) {
        for (balancer, load) in loads.iter().enumerate() {
            let of = balancer.min(self.balancers.len() - 1);
            for (backend, count) in load.iter().enumerate() {
                add(&self.balancers[of].counts.own[backend], *count);
                self.told[of][backend] += count;
                self.live[backend] += count;
            }
        }
        for (number, balancer) in self.balancers.iter().enumerate() {
            balancer.picker.sync(&balancer.counts);
            self.exchange(number);
        }
    }

    /// Lets clients come and go, and calls `look` after each that came, with its time and backend.
    pub fn run(
        &mut self,
        clients: &[Client],
        until: f64,
        mut look: impl FnMut(&World, f64, usize),
    ) {
        for (at, client) in clients.iter().enumerate() {
            self.plan(client.at, What::Arrival(at));
        }
        let until = nanoseconds(until);
        while let Some(Reverse(event)) = self.events.pop() {
            if event.nanoseconds > until {
                break;
            }
            let now = event.nanoseconds as f64 / 1e9;
            match event.what {
                What::Arrival(at) => {
                    let backend = self.arrive(&clients[at], now);
                    look(self, now, backend);
                }
                What::Departure { balancer, backend } => {
                    self.balancers[balancer].leave(backend);
                    self.live[backend] -= 1;
                }
                What::Exchange { balancer } => {
                    self.told[balancer] = self.balancers[balancer].own();
                    self.exchange(balancer);
                    self.plan(now + self.interval, What::Exchange { balancer });
                }
            }
        }
    }

    fn arrive(&mut self, client: &Client, now: f64) -> usize {
        let balancer = client.balancer.min(self.balancers.len() - 1);
        let entropy = self.rng.u64(..);
        let backend = match client.backend {
            None => self.balancers[balancer].pick(entropy),
            Some(backend) => {
                self.balancers[balancer].stick(backend);
                backend
            }
        };
        self.live[backend] += 1;
        if client.stays.is_finite() {
            self.plan(now + client.stays, What::Departure { balancer, backend });
        }
        backend
    }

    fn exchange(&self, balancer: usize) {
        if matches!(self.policy, Policy::Local | Policy::Exact) {
            return;
        }
        let others = |backend: usize| {
            let told = self.told.iter().enumerate();
            let others = told.filter(|(other, _)| *other != balancer);
            others.map(|(_, told)| told[backend]).sum()
        };
        self.balancers[balancer].exchange(others);
    }

    fn plan(&mut self, at: f64, what: What) {
        self.number += 1;
        self.events.push(Reverse(Event {
            nanoseconds: nanoseconds(at),
            number: self.number,
            what,
        }));
    }
}

impl Balancer {
    fn own(&self) -> Vec<u64> {
        self.counts.own.iter().map(Cell::get).collect()
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
