//! The server that active checks ask: it counts a fixed number of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Finished, Load};
use crate::http::{self, MAX_HEAD_BYTES};

/// One part in so many of the checks goes ahead of the measured ones: the first ones found nobody.
const WARM_UP: u64 = 10;
/// Longest wait for a balancer that has connected.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two looks at the kernel's counter.
const LOOK_STEP: Duration = Duration::from_millis(20);

/// A server that is checked by GETs: it answers each.
pub struct Answering {
    listener: TcpListener,
    checks: u64,
}

/// A server that is checked by connects. HAProxy resets them within the handshake, so that no accept shows them: the
/// kernel's count of connects does, those of the whole machine. Connects that came to their end are accepted and
/// dropped, or they would fill the listener's queue, and the next ones would time out.
pub struct Listening {
    checks: u64,
}

impl Answering {
    pub fn prepare(address: SocketAddr, checks: u64) -> Result<Self> {
        let listener = TcpListener::bind(address).context("listen for checks")?;
        let answering = Self { listener, checks };
        answering.answer(checks / WARM_UP)?;
        Ok(answering)
    }

    fn answer(&self, checks: u64) -> Result<()> {
        for at in 0..checks {
            let (stream, _) = self.listener.accept()?;
            serve(stream).with_context(|| format!("check {at}"))?;
        }
        Ok(())
    }
}

fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    let (mut head, mut chunk) = (Vec::new(), [0; 1024]);
    while http::head_end(&head).is_none() {
        let count = stream.read(&mut chunk)?;
        ensure!(
            count > 0 && head.len() < MAX_HEAD_BYTES,
            "a check asked for nothing"
        );
        head.extend_from_slice(&chunk[..count]);
    }
    stream.write_all(&http::ANSWER)?;
    stream.shutdown(Shutdown::Write)?;
    // Its end, a reset with some balancers.
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

impl Load for Answering {
    fn go(&mut self) -> Result<Finished> {
        self.answer(self.checks)?;
        Ok(Finished {
            units: self.checks,
            latency: None,
        })
    }
}

impl Listening {
    pub fn prepare(address: SocketAddr, checks: u64) -> Result<Self> {
        let listener = TcpListener::bind(address).context("listen for checks")?;
        thread::spawn(move || listener.incoming().for_each(drop));
        count_connects(checks / WARM_UP)?;
        Ok(Self { checks })
    }
}

impl Load for Listening {
    fn go(&mut self) -> Result<Finished> {
        Ok(Finished {
            units: count_connects(self.checks)?,
            latency: None,
        })
    }
}

/// Waits for so many connects from now on; returns how many there were.
fn count_connects(least: u64) -> Result<u64> {
    let before = connects()?;
    loop {
        let count = connects()?.saturating_sub(before);
        if count >= least {
            return Ok(count);
        }
        thread::park_timeout(LOOK_STEP);
    }
}

/// The kernel's `ActiveOpens`.
fn connects() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next(), lines.next());
    let (names, values) = names.zip(values).context("no counters of TCP")?;
    let mut both = names.split(' ').zip(values.split(' '));
    let found = both.find(|(name, _)| *name == "ActiveOpens");
    Ok(found.context("no count of connects")?.1.parse()?)
}
