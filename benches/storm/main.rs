//! What a reconnect storm costs: thousands of clients come back at once, over TLS with full handshakes or as plain WebSockets, while
//! others that are established go on. `benches/storm.sh` runs it and says what the figures mean.
//!
//! The balancer, the node, the storm and the established clients are processes of their own; this one starts them, tells
//! them when, and charges the balancer with its own CPU time. As in `benches/compare` the balancer has one core for itself and
//! the load another one; with `--shared` all of them run on all cores.

#![expect(
    clippy::expect_used,
    clippy::match_bool,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "what cannot go on here may panic"
)]

mod clients;
mod measure;
mod node;
#[path = "../compare/pin.rs"]
mod pin;
mod storm;
#[path = "../compare/websocket.rs"]
#[expect(dead_code, reason = "the other benchmark uses all of it")]
mod websocket;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Handshakes that the cost of one is taken from, before the storm.
const CALIBRATION: usize = 1_000;
const ESTABLISHED: usize = 500;
/// A longest acceptable round trip of the established, at the 99th percentile.
const ECHO_GOAL: Duration = Duration::from_millis(20);
const SETTLE: Duration = Duration::from_secs(3);
/// Where the balancer runs, and where everything else does.
const BALANCER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// What a client and a node have with each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// Bytes; the client's over TLS.
    Tls,
    /// A WebSocket without TLS.
    WebSocket,
}

impl Speech {
    fn word(self) -> &'static str {
        match self {
            Speech::Tls => "tls",
            Speech::WebSocket => "websocket",
        }
    }

    /// The storm is to take no longer than so many times what its handshakes cost.
    fn goal(self) -> f64 {
        match self {
            Speech::Tls => 1.5,
            Speech::WebSocket => 1.2,
        }
    }
}

impl std::str::FromStr for Speech {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Speech> {
        [Speech::Tls, Speech::WebSocket]
            .into_iter()
            .find(|speech| speech.word() == word)
            .context("neither tls nor websocket")
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["node", speech] => node::run(speech.parse()?),
        ["storm", speech, target, count] => {
            storm::storm(target.parse()?, count.parse()?, speech.parse()?)
        }
        ["echo", speech, target, count] => {
            clients::echo(target.parse()?, count.parse()?, speech.parse()?)
        }
        ["alone", program, arguments @ ..] => {
            pin::to_core(BALANCER_CORE)?;
            Err(pin::become_program(program, arguments)).with_context(|| format!("start {program}"))
        }
        options => drive(
            option(options, "--clients", 5_000)?,
            option(options, "--max-handshakes", 0)?,
            options.contains(&"--shared"),
            match options.contains(&"--websocket") {
                true => Speech::WebSocket,
                false => Speech::Tls,
            },
        ),
    }
}

fn option(words: &[&str], name: &str, default: usize) -> Result<usize> {
    let place = words.iter().position(|word| *word == name);
    let value = place.and_then(|place| words.get(place + 1));
    value.map_or(Ok(default), |value| value.parse().context(name.to_owned()))
}

/// One of the processes; it is killed when this is dropped.
struct Part {
    name: &'static str,
    child: Child,
    orders: ChildStdin,
    lines: BufReader<ChildStdout>,
}

impl Part {
    fn start(name: &'static str, command: &mut Command) -> Result<Part> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context(name)?;
        let (orders, lines) = child.stdin.take().zip(child.stdout.take()).context(name)?;
        Ok(Part {
            name,
            child,
            orders,
            lines: BufReader::new(lines),
        })
    }

    fn role(name: &'static str, words: &[&str]) -> Result<Part> {
        Part::start(name, Command::new(std::env::current_exe()?).args(words))
    }

    fn order(&mut self, word: &str) -> Result<()> {
        writeln!(self.orders, "{word}")?;
        Ok(self.orders.flush()?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        if line.is_empty() {
            bail!("{} has ended", self.name);
        }
        Ok(line.trim_end().to_owned())
    }

    fn cpu(&self) -> Result<Duration> {
        measure::cpu(self.child.id())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn drive(count: usize, max_handshakes: usize, shared: bool, speech: Speech) -> Result<()> {
    let all = std::thread::available_parallelism()?.get();
    if !shared {
        ensure!(all > LOAD_CORE, "one core: only --shared can be run");
        pin::to_core(LOAD_CORE)?;
    }
    let (cores, whose) = match shared {
        true => (all, "shared by all"),
        false => (1, "the balancer's own"),
    };
    let folder = tempfile::tempdir()?;
    let mut node = Part::role("node", &["node", speech.word()])?;
    let node_at = node.line()?;
    let (balancer, target) = balancer(folder.path(), &node_at, max_handshakes, shared, speech)?;
    println!(
        "load average before: {}, cores: {cores}, {whose}",
        measure::load()?
    );

    let cost = {
        let before = balancer.cpu()?;
        let_go(prepared(&target, CALIBRATION, speech)?)?;
        (balancer.cpu()? - before).as_secs_f64() / CALIBRATION as f64
    };
    println!(
        "balancer's CPU per handshake and its connection: {:.0} us",
        cost * 1e6
    );

    let mut echo = Part::role(
        "echo",
        &["echo", speech.word(), &target, &ESTABLISHED.to_string()],
    )?;
    echo.line()?;
    std::thread::park_timeout(SETTLE);
    echo.order("mark")?;
    println!("{ESTABLISHED} established clients before: {}", echo.line()?);

    let storm = prepared(&target, count, speech)?;
    let before = cpus(&[&balancer, &node, &echo])?;
    let (busy, dropped) = (measure::busy()?, measure::dropped()?);
    let began = Instant::now();
    echo.order("mark")?;
    echo.line()?;
    let told = let_go(storm)?;
    let wall = began.elapsed().as_secs_f64();
    echo.order("mark")?;
    let during = echo.line()?;
    let after = cpus(&[&balancer, &node, &echo])?;
    let [spent, by_node, by_echo] = std::array::from_fn(|place| after[place] - before[place]);
    let busy = (measure::busy()? - busy).as_secs_f64();
    let dropped = measure::dropped()? - dropped;
    println!("the same during the storm:  {during}; goal: p99 <= {ECHO_GOAL:?}");
    println!(
        "{count} clients, max_handshakes = {max_handshakes}: {}",
        told.text
    );
    let own = spent / count as f64;
    println!(
        "balancer's CPU per handshake in the storm: {:.0} us ({:.2} of the one before)",
        own * 1e6,
        own / cost
    );
    for (cost, when) in [(cost, "before the storm"), (own, "in the storm")] {
        let bound = speech.goal() * count as f64 * cost / cores as f64;
        println!(
            "goal: p99 <= {} x {count} x CPU {when} / {cores} = {:.0} ms: {:.2} of it",
            speech.goal(),
            bound * 1e3,
            told.p99 / bound
        );
    }
    let strangers = (busy - spent - by_node - by_echo - told.cpu).max(0.0);
    println!(
        "CPU within {wall:.2} s on {all} cores: balancer {spent:.2} s, clients {:.2} s, node {by_node:.2} s, established {by_echo:.2} s, \
         whatever else runs here {strangers:.2} s, idle {:.2} s",
        told.cpu,
        (all as f64 * wall - busy).max(0.0)
    );
    println!("clients' CPU each: {:.0} us", told.cpu / count as f64 * 1e6);
    println!("connections that found the queue of a listener full: {dropped}");
    println!("load average after: {}", measure::load()?);
    Ok(())
}

/// Seconds of CPU of each.
fn cpus(parts: &[&Part; 3]) -> Result<[f64; 3]> {
    let mut seconds = [0.0; 3];
    for (part, seconds) in parts.iter().zip(&mut seconds) {
        *seconds = part.cpu()?.as_secs_f64();
    }
    Ok(seconds)
}

struct Told {
    text: String,
    /// Seconds.
    p99: f64,
    cpu: f64,
}

/// Clients with their hellos or requests made.
fn prepared(target: &str, count: usize, speech: Speech) -> Result<Part> {
    let mut storm = Part::role(
        "storm",
        &["storm", speech.word(), target, &count.to_string()],
    )?;
    storm.line()?;
    Ok(storm)
}

/// Lets the clients come at once; what they saw.
fn let_go(mut storm: Part) -> Result<Told> {
    let before = storm.cpu()?;
    storm.order("go")?;
    let text = storm.line()?;
    let p99 = storm.line()?.parse()?;
    let cpu = (storm.cpu()? - before).as_secs_f64();
    Ok(Told { text, p99, cpu })
}

/// Starts the balancer before the node; its address.
fn balancer(
    folder: &Path,
    node: &str,
    max_handshakes: usize,
    shared: bool,
    speech: Speech,
) -> Result<(Part, String)> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let made = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    std::fs::write(folder.join("a.pem"), made.pem())?;
    std::fs::write(folder.join("a.key"), key.serialize_pem())?;
    // A listener binds what it is told: a free port is found first.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let target = format!("127.0.0.1:{port}");
    let file: PathBuf = folder.join("balancer.toml");
    let protocol = match speech {
        Speech::Tls => {
            "\"tcp\"\ntls = { certificates = [{ cert = \"a.pem\", key = \"a.key\", default = true }] }"
        }
        Speech::WebSocket => "\"websocket\"",
    };
    std::fs::write(
        &file,
        format!(
            "[global]\nwatch = false\nlog_level = \"warn\"\nmax_handshakes = {max_handshakes}\n\
             [[listener]]\nname = \"in\"\nbind = \"{target}\"\npool = \"nodes\"\nhandshake_timeout = \"1m\"\nprotocol = {protocol}\n\
             [pool.nodes]\nbackend = [{{ address = \"{node}\" }}]\n"
        ),
    )?;
    let evenkeel = env!("CARGO_BIN_EXE_evenkeel");
    let mut command = match shared {
        true => Command::new(evenkeel),
        false => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["alone", evenkeel]);
            command
        }
    };
    let part = Part::start("balancer", command.args(["run", "--config"]).arg(&file))?;
    let began = Instant::now();
    while std::net::TcpStream::connect(&target).is_err() {
        if began.elapsed() > Duration::from_secs(10) {
            bail!("the balancer does not listen");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok((part, target))
}
