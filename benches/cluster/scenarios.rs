//! Three situations in which it matters what a balancer knows of the others.

use fastrand::Rng;

use super::simulation::{Client, Policy, World};

const BACKENDS: usize = 10;

/// Few connections over many balancers: each has less than one on a backend.
#[derive(Debug, Clone, Copy)]
pub struct Sparse {
    pub live: f64,
    pub mean_stay: f64,
    pub seconds: f64,
}

impl Sparse {
    pub const USUAL: Sparse = Sparse {
        live: 40.0,
        mean_stay: 60.0,
        seconds: 600.0,
    };

    /// The largest count over the mean, on average over the time.
    pub fn run(&self, policy: Policy, balancers: usize, seed: u64) -> f64 {
        let mut rng = Rng::with_seed(seed);
        let warm = 5.0 * self.mean_stay;
        let mut clients = Vec::new();
        let mut at = 0.0;
        while at < warm + self.seconds {
            at += exponential(&mut rng, self.mean_stay / self.live);
            clients.push(Client {
                at,
                balancer: rng.usize(..balancers),
                stays: exponential(&mut rng, self.mean_stay),
                backend: None,
            });
        }
        let mut world = World::new(policy, balancers, BACKENDS, seed);
        let (mut sum, mut count) = (0.0, 0.0);
        world.run(&clients, warm + self.seconds, |world, now, _| {
            if now >= warm {
                sum += world.unevenness();
                count += 1.0;
            }
        });
        sum / f64::max(count, 1.0)
    }
}

/// Clients that stick to one backend, all behind one balancer.
#[derive(Debug, Clone, Copy)]
pub struct Sticky {
    pub clients: usize,
    /// Part of the first balancer's clients that stick to one backend.
    pub part: f64,
    pub seconds: f64,
}

impl Sticky {
    pub const USUAL: Sticky = Sticky {
        clients: 5_000,
        part: 0.3,
        seconds: 100.0,
    };

    /// The largest count over the mean once all are there.
    pub fn run(&self, policy: Policy, balancers: usize, seed: u64) -> f64 {
        let mut rng = Rng::with_seed(seed);
        let clients: Vec<Client> = (0..self.clients)
            .map(|number| {
                let balancer = number % balancers;
                let sticks = balancer == 0 && rng.f64() < self.part;
                Client {
                    at: rng.f64() * self.seconds,
                    balancer,
                    stays: f64::INFINITY,
                    backend: sticks.then_some(0),
                }
            })
            .collect();
        let mut world = World::new(policy, balancers, BACKENDS, seed);
        world.run(&clients, self.seconds, |_, _, _| {});
        world.unevenness()
    }
}

/// An empty backend joins, while clients come in a wave.
#[derive(Debug, Clone, Copy)]
pub struct Join {
    /// Connections on each of the other backends.
    pub loaded: u64,
    pub wave: usize,
    pub seconds: f64,
}

/// How an empty backend fared.
#[derive(Debug, Clone, Copy)]
pub struct Joined {
    /// The largest count over the mean, at the end.
    pub after: f64,
    /// The same at its worst.
    pub worst: f64,
    /// New connections of the empty backend in its busiest second, over an equal part of all.
    pub peak_rate: f64,
    /// The empty backend's count over the mean, at the end; the tests look at it.
    #[allow(dead_code)]
    pub filled: f64,
}

impl Join {
    pub const USUAL: Join = Join {
        loaded: 190,
        wave: 3_300,
        seconds: 2.0,
    };

    pub fn run(&self, policy: Policy, balancers: usize, seed: u64) -> Joined {
        let mut rng = Rng::with_seed(seed);
        let mut clients: Vec<Client> = (0..self.wave)
            .map(|_| Client {
                at: rng.f64() * self.seconds,
                balancer: rng.usize(..balancers),
                stays: f64::INFINITY,
                backend: None,
            })
            .collect();
        clients.sort_by(|a, b| a.at.total_cmp(&b.at));
        let mut world = World::new(policy, balancers, BACKENDS, seed);
        world.preload(&self.loads(balancers));
        let (mut worst, mut arrivals) = (0.0_f64, Vec::new());
        world.run(&clients, self.seconds + 1.0, |world, now, backend| {
            worst = worst.max(world.unevenness());
            if backend == BACKENDS - 1 {
                arrivals.push(now);
            }
        });
        let fair = self.wave as f64 / self.seconds / BACKENDS as f64;
        let mean = world.live().iter().sum::<u64>() as f64 / BACKENDS as f64;
        Joined {
            after: world.unevenness(),
            worst,
            peak_rate: most_in_a_second(&arrivals) as f64 / fair,
            filled: world.live()[BACKENDS - 1] as f64 / mean,
        }
    }

    /// Equal loads of all balancers, but for the last backend.
    fn loads(&self, balancers: usize) -> Vec<Vec<u64>> {
        let of = |balancer: usize| {
            let share = |backend: usize| {
                // What cannot be divided goes to other balancers for each backend.
                let rest = self.loaded % balancers as u64;
                let place = (balancer + backend) % balancers;
                self.loaded / balancers as u64 + u64::from((place as u64) < rest)
            };
            let loaded = (0..BACKENDS - 1).map(share);
            loaded.chain([0]).collect()
        };
        (0..balancers).map(of).collect()
    }
}

/// The most of these moments, in order, that lie within one second.
fn most_in_a_second(moments: &[f64]) -> usize {
    let mut first = 0;
    let within = moments.iter().enumerate().map(|(last, moment)| {
        while moments[first] < moment - 1.0 {
            first += 1;
        }
        last + 1 - first
    });
    within.max().unwrap_or(0)
}

fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}
