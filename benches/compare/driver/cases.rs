//! The cases: what work is done through which listener, what is measured, and what Evenkeel is to reach.

use anyhow::{Result, bail};

use super::goal::Goal;
use super::peer::{Kind, Peer, Ports};
use crate::options::Options;
use crate::pin;
use crate::plan::{Direction, Services, Transport, Work};

/// Connections of the large cases: two descriptors each, within the 20,000 that the machines allow.
const MANY: usize = 9_000;
/// Descriptors that a process needs beside its connections.
const SPARE_DESCRIPTORS: u64 = 1_000;
const MESSAGE_BYTES: usize = 128;
const MESSAGES_PER_SECOND: u32 = 5_000;
const GIB: u64 = 1 << 30;

/// One figure of a case; smaller is better in all of them.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    pub of: Quantity,
    /// As in the table: `us / message`.
    pub unit: &'static str,
    /// What a figure in seconds per unit, or in bytes, is multiplied by to be in `unit`.
    pub scale: f64,
    pub goal: Option<Goal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// The balancer's own CPU time per unit of work.
    Cpu,
    /// Busy time of the whole machine per unit of work.
    Busy,
    LatencyP50,
    LatencyP99,
    LatencyP999,
    /// Growth of the balancer's memory per connection.
    Memory,
    /// Part of a core that the balancer uses while its connections idle.
    IdleCpu,
    /// Of all the balancer's threads, per second, while its connections idle.
    WakeUps,
}

/// Which of a balancer's listeners the load speaks to.
#[derive(Debug, Clone, Copy)]
pub enum Door {
    Tcp,
    Tls,
    Websocket,
    /// With every setting of WebSockets on; ours alone.
    WebsocketAll,
    WebsocketTls,
    /// Ordinary requests, their backend connections reused by every balancer that can.
    Http,
    Bulk,
    BulkTls,
    /// No listener: the balancer speaks first, by its active checks.
    TcpChecks,
    HttpChecks,
    /// A pool of many backends, all of them the one that echoes; HAProxy and ours alone.
    Many(Algorithm, usize),
}

/// How a backend is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    RoundRobin,
    LeastConn,
    Random,
}

impl Algorithm {
    /// Its word in a configuration of Evenkeel.
    pub fn of_evenkeel(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConn => "least_conn",
            Self::Random => "random",
        }
    }

    /// Its word in a configuration of HAProxy.
    pub fn of_haproxy(self) -> &'static str {
        match self {
            Self::RoundRobin => "roundrobin",
            Self::LeastConn => "leastconn",
            Self::Random => "random",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Case {
    pub name: &'static str,
    pub title: String,
    pub door: Door,
    pub work: Work,
    pub measures: Vec<Measure>,
}

impl Door {
    pub fn transport(self) -> Transport {
        match self {
            Self::Tcp
            | Self::Http
            | Self::Bulk
            | Self::TcpChecks
            | Self::HttpChecks
            | Self::Many(..) => Transport::Tcp,
            Self::Tls | Self::BulkTls => Transport::Tls,
            Self::Websocket | Self::WebsocketAll => Transport::Websocket,
            Self::WebsocketTls => Transport::TlsWebsocket,
        }
    }

    pub fn port(self, ports: &Ports) -> u16 {
        match self {
            Self::Tcp | Self::Many(..) => ports.tcp,
            Self::Tls => ports.tls,
            Self::Websocket | Self::WebsocketAll => ports.websocket,
            Self::WebsocketTls => ports.websocket_tls,
            Self::Http => ports.http,
            Self::Bulk => ports.bulk,
            Self::BulkTls => ports.bulk_tls,
            Self::TcpChecks | Self::HttpChecks => ports.checked,
        }
    }

    pub fn is_of_checks(self) -> bool {
        matches!(self, Self::TcpChecks | Self::HttpChecks)
    }

    /// The backend behind it.
    pub fn backend_port(self, services: &Services) -> u16 {
        match self {
            Self::Tcp | Self::Tls | Self::Many(..) => services.echo.port(),
            Self::Websocket | Self::WebsocketAll | Self::WebsocketTls => services.websocket.port(),
            Self::Http => services.http.port(),
            Self::Bulk | Self::BulkTls | Self::TcpChecks | Self::HttpChecks => services.bulk.port(),
        }
    }
}

impl Case {
    /// Memory hardly varies from round to round, and filling it takes long: a third of the rounds, three at least.
    pub fn rounds(&self, rounds: u32) -> u32 {
        match self.is_of_memory() {
            true => (rounds / 3).max(rounds.min(3)),
            false => rounds,
        }
    }

    pub fn is_of_memory(&self) -> bool {
        self.measures(Quantity::Memory)
    }

    pub fn measures(&self, quantity: Quantity) -> bool {
        self.measures.iter().any(|measure| measure.of == quantity)
    }

    /// Without a balancer there is latency to compare with, and nothing else.
    pub fn suits(&self, peer: &Peer) -> bool {
        match (self.door, peer.kind) {
            (Door::WebsocketAll, kind) => kind == Kind::Evenkeel,
            // Free nginx has no active checks.
            (door, kind) if door.is_of_checks() => {
                matches!(kind, Kind::Evenkeel | Kind::Haproxy)
            }
            (Door::Many(..), kind) => matches!(kind, Kind::Evenkeel | Kind::Haproxy),
            (_, Kind::Direct) => self.measures(Quantity::LatencyP50),
            _ => true,
        }
    }
}

/// The cases that were asked for, sized for this machine and run.
pub fn chosen(options: &Options) -> Result<Vec<Case>> {
    let part = if options.quick { 4 } else { 1 };
    let most = (pin::raise_descriptors().saturating_sub(SPARE_DESCRIPTORS) / 2) as usize;
    let all = all(part, MANY.min(most) / part as usize);
    if let Some(unknown) = options
        .only
        .iter()
        .find(|name| all.iter().all(|case| case.name != **name))
    {
        let names: Vec<_> = all.iter().map(|case| case.name).collect();
        bail!("unknown case {unknown:?}: allowed are {}", names.join(", "));
    }
    let wanted =
        |case: &Case| options.only.is_empty() || options.only.iter().any(|name| name == case.name);
    Ok(all.into_iter().filter(wanted).collect())
}

/// All cases with a `part`-th of the work.
fn all(part: u64, many: usize) -> Vec<Case> {
    let echo = |connections, messages: u64| Work::Echo {
        connections,
        messages: messages / part,
        bytes: MESSAGE_BYTES,
        rate: None,
    };
    let at_rate = |connections| Work::Echo {
        connections,
        messages: 20_000 / part,
        bytes: MESSAGE_BYTES,
        rate: Some(MESSAGES_PER_SECOND),
    };
    let short = |connections: u64| Work::Short {
        connections: connections / part,
        at_once: 32,
        bytes: MESSAGE_BYTES,
    };
    let bulk = |bytes: u64, direction| Work::Bulk {
        connections: 4,
        bytes_each: bytes / part,
        direction,
    };
    let checks = |is_http| Work::Checks {
        checks: 10_000 / part,
        is_http,
    };
    let hold = Work::Hold {
        connections: many,
        bytes: 1024,
    };
    let nginx = Some(Goal::Times(1.0, "nginx"));
    let haproxy = Some(Goal::Times(1.0, "haproxy"));
    let envoy = Some(Goal::Times(1.0, "envoy"));
    let case = |name, title: &str, door, work, measures| Case {
        name,
        title: title.replace("MANY", &many.to_string()),
        door,
        work,
        measures,
    };
    let pick = |name, algorithm: Algorithm, count| {
        let title = format!(
            "connect, echo, close; {} of {count}",
            algorithm.of_evenkeel()
        );
        let door = Door::Many(algorithm, count);
        case(name, &title, door, short(10_000), per_connection(haproxy))
    };
    let mut cases = vec![
        case(
            "echo",
            "echo of 128 B on 64 connections",
            Door::Tcp,
            echo(64, 100_000),
            per_message(nginx),
        ),
        case(
            "tls-echo",
            "the same echo through TLS",
            Door::Tls,
            echo(64, 60_000),
            per_message(Some(Goal::TimesBest(0.9))),
        ),
        case(
            "ws-echo",
            "the same echo through WebSocket",
            Door::Websocket,
            echo(64, 100_000),
            per_message(nginx),
        ),
        case(
            "short",
            "connect, echo, close",
            Door::Tcp,
            short(10_000),
            per_connection(nginx),
        ),
        case(
            "tls-handshake",
            "full TLS 1.3 handshake, echo, close",
            Door::Tls,
            short(3_000),
            per_connection(envoy),
        ),
        case(
            "ws-setup",
            "connect, WebSocket handshake, echo, Close",
            Door::Websocket,
            short(10_000),
            per_connection(Some(Goal::TimesBest(1.0))),
        ),
        case(
            "tls-ws-setup",
            "the same through TLS, full handshakes",
            Door::WebsocketTls,
            short(3_000),
            per_connection(Some(Goal::TimesBest(0.65))),
        ),
        case(
            "http-get",
            "GET of 128 B on 64 kept connections",
            Door::Http,
            Work::Get {
                connections: 64,
                requests: 60_000 / part,
            },
            per_request(),
        ),
        case(
            "bulk-down",
            "bulk to the client",
            Door::Bulk,
            bulk(GIB, Direction::Down),
            per_gigabyte(haproxy),
        ),
        case(
            "bulk-up",
            "bulk from the client",
            Door::Bulk,
            bulk(GIB, Direction::Up),
            per_gigabyte(haproxy),
        ),
        case(
            "bulk-both",
            "bulk both ways at once",
            Door::Bulk,
            bulk(GIB / 2, Direction::Both),
            per_gigabyte(haproxy),
        ),
        case(
            "tls-bulk",
            "bulk to the client through TLS",
            Door::BulkTls,
            bulk(GIB / 2, Direction::Down),
            per_gigabyte(envoy),
        ),
        case(
            "latency",
            "round trip, 64 connections, 5,000 messages/s",
            Door::Tcp,
            at_rate(64),
            latencies(haproxy),
        ),
        case(
            "sparse",
            "sparse echo, MANY connections, 5,000 messages/s",
            Door::Tcp,
            at_rate(many),
            sparse(),
        ),
        case(
            "check-tcp",
            "active check by a connection",
            Door::TcpChecks,
            checks(false),
            per_check(haproxy),
        ),
        case(
            "check-http",
            "active check by a GET",
            Door::HttpChecks,
            checks(true),
            per_check(haproxy),
        ),
        case(
            "idle-tcp",
            "MANY idle TCP connections",
            Door::Tcp,
            hold,
            memory_and_idleness(256.0),
        ),
        case(
            "idle-tls",
            "MANY idle TLS connections",
            Door::Tls,
            hold,
            memory(3072.0),
        ),
        case(
            "idle-ws",
            "MANY idle WebSocket connections",
            Door::Websocket,
            hold,
            memory(512.0),
        ),
        case(
            "idle-ws-all",
            "MANY idle WebSocket connections, resumable, pinged and bounded",
            Door::WebsocketAll,
            hold,
            memory(768.0),
        ),
        case(
            "stalled",
            "500 readers stalled before an endless writer",
            Door::Bulk,
            Work::Stall { connections: 500 },
            memory(12_000.0),
        ),
    ];
    cases.extend([
        pick("pick-rr-1000", Algorithm::RoundRobin, 1_000),
        pick("pick-rr-10000", Algorithm::RoundRobin, 10_000),
        pick("pick-least-1000", Algorithm::LeastConn, 1_000),
        pick("pick-least-10000", Algorithm::LeastConn, 10_000),
        pick("pick-random-1000", Algorithm::Random, 1_000),
        pick("pick-random-10000", Algorithm::Random, 10_000),
    ]);
    cases
}

fn measure(of: Quantity, unit: &'static str, scale: f64, goal: Option<Goal>) -> Measure {
    Measure {
        of,
        unit,
        scale,
        goal,
    }
}

fn per_message(goal: Option<Goal>) -> Vec<Measure> {
    cpu_and_busy("us / message", 1e6, goal)
}

fn per_connection(goal: Option<Goal>) -> Vec<Measure> {
    cpu_and_busy("us / connection", 1e6, goal)
}

fn per_request() -> Vec<Measure> {
    cpu_and_busy("us / request", 1e6, None)
}

fn per_check(goal: Option<Goal>) -> Vec<Measure> {
    cpu_and_busy("us / check", 1e6, goal)
}

fn per_gigabyte(goal: Option<Goal>) -> Vec<Measure> {
    cpu_and_busy("s / GB", 1e9, goal)
}

fn cpu_and_busy(unit: &'static str, scale: f64, goal: Option<Goal>) -> Vec<Measure> {
    vec![
        measure(Quantity::Cpu, unit, scale, goal),
        measure(Quantity::Busy, unit, scale, None),
    ]
}

fn latencies(goal: Option<Goal>) -> Vec<Measure> {
    vec![
        measure(Quantity::LatencyP50, "us", 1.0, goal),
        measure(Quantity::LatencyP99, "us", 1.0, None),
        measure(Quantity::LatencyP999, "us", 1.0, goal),
        measure(Quantity::Cpu, "us / message", 1e6, None),
    ]
}

fn sparse() -> Vec<Measure> {
    let mut measures = per_message(None);
    measures.extend(
        latencies(None)
            .into_iter()
            .filter(|measure| measure.of != Quantity::Cpu),
    );
    measures
}

fn memory(most_bytes: f64) -> Vec<Measure> {
    vec![measure(
        Quantity::Memory,
        "B / connection",
        1.0,
        Some(Goal::AtMost(most_bytes)),
    )]
}

/// Idle connections are to cost nothing but memory: at most 0.1 % of a core, and one wake-up per second of the relay thread.
fn memory_and_idleness(most_bytes: f64) -> Vec<Measure> {
    let mut measures = memory(most_bytes);
    measures.extend([
        measure(
            Quantity::IdleCpu,
            "% of a core",
            100.0,
            Some(Goal::AtMost(0.1)),
        ),
        measure(
            Quantity::WakeUps,
            "per second",
            1.0,
            Some(Goal::AtMost(1.0)),
        ),
    ]);
    measures
}
