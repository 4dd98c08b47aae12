//! One turn: a fresh backend, a fresh balancer, a fresh load; the work is done once and charged.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::cases::{Case, Measure, Quantity};
use super::certificate::Certificate;
use super::child::{Group, Twin};
use super::meter::{self, Threads};
use super::peer::{Kind, Peer, Ports};
use crate::options::Options;
use crate::plan::{Done, Plan, Services};

/// Ports are looked for here: below the range that connections get theirs from.
const PORTS: std::ops::Range<u16> = 7_000..10_000;
/// Longest start of a balancer, and the time between two tries to connect to it.
const START_LIMIT: Duration = Duration::from_secs(20);
const START_STEP: Duration = Duration::from_millis(20);
/// Longest wait for one byte through a balancer that starts.
const FIRST_BYTE: Duration = Duration::from_secs(1);
/// Longest preparation, and longest work, of one turn.
const WORK_LIMIT: Duration = Duration::from_secs(180);
/// Memory counts once it has not changed by more than this part over so many steps in a row, at the latest after the limit.
const SETTLED_PART: f64 = 0.005;
const SETTLED_STEPS: u32 = 3;
const SETTLE_STEP: Duration = Duration::from_millis(500);
const SETTLE_LIMIT: Duration = Duration::from_secs(15);
/// How long an idle balancer is watched: long enough to see what it does twice a minute, in a quick run every second or two.
const IDLE_WATCH: Duration = Duration::from_secs(60);
const QUICK_IDLE_WATCH: Duration = Duration::from_secs(10);

/// What is the same in all turns.
pub struct Stage {
    idle_watch: Duration,
    folder: PathBuf,
    ports: Ports,
    services: Services,
    tls: Certificate,
    balancer_core: usize,
    load_core: usize,
}

/// What one turn measured: a value per measure of the case, in the measure's unit.
pub struct Sample {
    pub values: Vec<f64>,
    /// Part of the machine's time that went neither to the balancer nor to the load nor to the backend.
    pub foreign: f64,
}

/// The readings at one moment.
struct Reading {
    balancer: Threads,
    load: Threads,
    backend: Threads,
    busy: f64,
    at: Instant,
}

impl Stage {
    pub fn build(options: &Options) -> Result<Self> {
        std::fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
        let folder = options.out.canonicalize()?.join("peers");
        std::fs::create_dir_all(&folder)?;
        let mut free = free_ports();
        let mut port = || free.next().context("no free port");
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self {
            tls: Certificate::make(&folder)?,
            folder,
            ports: Ports {
                tcp: port()?,
                tls: port()?,
                websocket: port()?,
                websocket_tls: port()?,
                http: port()?,
                bulk: port()?,
                bulk_tls: port()?,
                checked: port()?,
            },
            services: Services {
                core: options.load_core,
                echo: local(port()?),
                websocket: local(port()?),
                http: local(port()?),
                bulk: local(port()?),
            },
            balancer_core: options.balancer_core,
            load_core: options.load_core,
            idle_watch: match options.quick {
                true => QUICK_IDLE_WATCH,
                false => IDLE_WATCH,
            },
        })
    }

    pub fn turn(&self, case: &Case, peer: &Peer) -> Result<Sample> {
        let backend = Twin::start("backend", &serde_json::to_string(&self.services)?)?;
        ensure!(
            backend.line(START_LIMIT)? == "ready",
            "the backend did not start"
        );
        let (balancer, port) = self.balancer(case, peer)?;
        let mut load = Twin::start("load", &serde_json::to_string(&self.plan(case, port))?)?;
        ensure!(
            load.line(WORK_LIMIT).context("prepare")? == "ready",
            "the load did not start"
        );
        let group = balancer.as_ref().map(Group::id);
        let memory = |case: &Case| match (case.is_of_memory(), group) {
            (true, Some(group)) => settled_bytes(group),
            _ => 0,
        };
        let before_bytes = memory(case);
        let before = Reading::take(group, &load, &backend);
        load.say("go")?;
        let done: Done = serde_json::from_str(&load.line(WORK_LIMIT).context("work")?)?;
        let after = Reading::take(group, &load, &backend);
        let rest = Rest {
            grown_bytes: memory(case).saturating_sub(before_bytes) as f64,
            idle: group
                .filter(|_| case.measures(Quantity::IdleCpu))
                .map(|group| Idle::watch(group, self.idle_watch)),
        };
        let values = (case.measures.iter())
            .map(|measure| after.figure(measure, &before, &done, &rest))
            .collect::<Result<_>>()?;
        Ok(Sample {
            values,
            foreign: after.foreign_since(&before),
        })
    }

    /// Whether a byte comes back through the plain listener. That it accepts is not enough: Envoy does so before it knows
    /// its backends, and resets.
    fn relays(&self) -> bool {
        let echo = || -> io::Result<()> {
            let mut probe = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports.tcp))?;
            probe.set_read_timeout(Some(FIRST_BYTE))?;
            probe.write_all(b"?")?;
            probe.read_exact(&mut [0])
        };
        echo().is_ok()
    }

    fn plan(&self, case: &Case, port: u16) -> Plan {
        Plan {
            core: self.load_core,
            target: (Ipv4Addr::LOCALHOST, port).into(),
            transport: case.door.transport(),
            root: self.tls.certificate.clone(),
            work: case.work,
        }
    }

    /// Starts a balancer and waits until it answers; also says which port the load is to speak to.
    fn balancer(&self, case: &Case, peer: &Peer) -> Result<(Option<Group>, u16)> {
        if peer.kind == Kind::Direct {
            return Ok((None, case.door.backend_port(&self.services)));
        }
        let mut group = peer.start(
            case.door,
            &self.folder,
            self.balancer_core,
            self.ports,
            &self.services,
            &self.tls,
        )?;
        let port = case.door.port(&self.ports);
        let began = Instant::now();
        while !self.relays() {
            if group.has_ended() || began.elapsed() > START_LIMIT {
                bail!(
                    "it did not start: see {}",
                    self.folder.join(format!("{}.log", peer.name)).display()
                );
            }
            thread::park_timeout(START_STEP);
        }
        Ok((Some(group), port))
    }
}

/// What is seen after the work, while its connections stay open.
struct Rest {
    grown_bytes: f64,
    idle: Option<Idle>,
}

/// A balancer that has nothing to do.
struct Idle {
    /// Part of a core.
    cpu_part: f64,
    /// Of all its threads together.
    wake_ups_per_second: f64,
}

impl Idle {
    fn watch(group: i32, time: Duration) -> Self {
        let (cpu, wake_ups) = (Threads::of(group), meter::wake_ups(group));
        let began = Instant::now();
        while let Some(left) = time.checked_sub(began.elapsed()) {
            thread::park_timeout(left);
        }
        let seconds = began.elapsed().as_secs_f64();
        Self {
            cpu_part: Threads::of(group).seconds_since(&cpu) / seconds,
            wake_ups_per_second: meter::wake_ups(group).saturating_sub(wake_ups) as f64 / seconds,
        }
    }
}

impl Reading {
    fn take(balancer: Option<i32>, load: &Twin, backend: &Twin) -> Self {
        Self {
            balancer: balancer.map(Threads::of).unwrap_or_default(),
            load: Threads::of(load.group.id()),
            backend: Threads::of(backend.group.id()),
            busy: meter::busy_seconds(),
            at: Instant::now(),
        }
    }

    fn figure(&self, measure: &Measure, before: &Self, done: &Done, rest: &Rest) -> Result<f64> {
        let units = done.units as f64;
        let idle = || rest.idle.as_ref().context("a case without idleness");
        let latency = || done.latency.context("a case without latencies");
        let plain = match measure.of {
            Quantity::Cpu => self.balancer.seconds_since(&before.balancer) / units,
            Quantity::Busy => (self.busy - before.busy) / units,
            Quantity::Memory => rest.grown_bytes / units,
            Quantity::LatencyP50 => latency()?.p50,
            Quantity::LatencyP99 => latency()?.p99,
            Quantity::LatencyP999 => latency()?.p999,
            Quantity::IdleCpu => idle()?.cpu_part,
            Quantity::WakeUps => idle()?.wake_ups_per_second,
        };
        Ok(plain * measure.scale)
    }

    fn foreign_since(&self, before: &Self) -> f64 {
        let own = self.balancer.seconds_since(&before.balancer)
            + self.load.seconds_since(&before.load)
            + self.backend.seconds_since(&before.backend);
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let all = self.at.duration_since(before.at).as_secs_f64() * cores;
        ((self.busy - before.busy - own) / all).clamp(0.0, 1.0)
    }
}

/// Memory once it stands still: buffers of the set-up go back a moment after it.
fn settled_bytes(group: i32) -> u64 {
    let began = Instant::now();
    let mut last = meter::proportional_bytes(group);
    let mut still = 0;
    while still < SETTLED_STEPS && began.elapsed() < SETTLE_LIMIT {
        thread::park_timeout(SETTLE_STEP);
        let now = meter::proportional_bytes(group);
        let stands = now.abs_diff(last) as f64 <= last as f64 * SETTLED_PART;
        still = if stands { still + 1 } else { 0 };
        last = now;
    }
    last
}

fn free_ports() -> impl Iterator<Item = u16> {
    PORTS.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
}
