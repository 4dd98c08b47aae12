//! Echo over many open connections, one epoll, one message at a time on each: as fast as answers come, or at a fixed rate.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::link::{Dialer, Exchange, Link};
use super::pace::Ticker;
use super::{Finished, LONGEST_NANOSECONDS, Load, histogram, latency, payload};

/// Longest silence of all connections together.
const SILENCE: Duration = Duration::from_secs(20);
/// One part in so many of the messages goes ahead of the measured ones.
const WARM_UP: u64 = 10;
/// The timer's token; connections have their index.
const TICK: Token = Token(usize::MAX);

/// All connections of one echo load.
pub struct Field {
    poll: Poll,
    sessions: Vec<Session>,
    exchange: Exchange,
    scratch: Vec<u8>,
    messages: u64,
    rate: Option<u32>,
    /// Indexes of the sessions that await no answer.
    free: Vec<u32>,
    latencies: Histogram<u64>,
    answered: u64,
}

struct Session {
    link: Link<TcpStream>,
    answer_bytes: u32,
    due: Instant,
}

impl Field {
    /// Opens the connections, sends one message over each, and warms up.
    pub fn prepare(
        dialer: &Dialer,
        connections: usize,
        messages: u64,
        bytes: usize,
        rate: Option<u32>,
    ) -> Result<Self> {
        let mut field = Self {
            poll: Poll::new()?,
            sessions: Vec::with_capacity(connections),
            exchange: dialer.exchange(&payload(bytes)),
            scratch: vec![0; bytes.max(4096)],
            messages,
            rate,
            free: Vec::with_capacity(connections),
            latencies: histogram()?,
            answered: 0,
        };
        for at in 0..connections {
            field
                .open(dialer, at)
                .with_context(|| format!("connection {at}"))?;
        }
        field.work(messages / WARM_UP)?;
        Ok(field)
    }

    fn open(&mut self, dialer: &Dialer, at: usize) -> Result<()> {
        let mut link = dialer.open()?;
        link.converse(&self.exchange)?;
        let mut link = link.into_nonblocking()?;
        self.poll
            .registry()
            .register(&mut link.socket, Token(at), Interest::READABLE)?;
        self.sessions.push(Session {
            link,
            answer_bytes: 0,
            due: Instant::now(),
        });
        self.free.push(u32::try_from(at)?);
        Ok(())
    }

    fn work(&mut self, messages: u64) -> Result<()> {
        self.latencies.reset();
        self.answered = 0;
        match self.rate {
            Some(rate) => self.at_rate(messages, rate),
            None => self.as_answered(messages),
        }
    }

    /// Closed loop: every answer sets off the next message of its connection.
    fn as_answered(&mut self, messages: u64) -> Result<()> {
        let mut sent = 0;
        let mut events = Events::with_capacity(1024);
        while self.answered < messages {
            while sent < messages
                && let Some(at) = self.free.pop()
            {
                self.send(at as usize, Instant::now())?;
                sent += 1;
            }
            self.wait(&mut events)?;
            for event in &events {
                self.receive(event.token().0)?;
            }
        }
        Ok(())
    }

    /// Open loop: message n is due at n / rate, and its latency counts from then. When all connections await an answer, what
    /// is due waits in line, which its latency shows.
    fn at_rate(&mut self, messages: u64, rate: u32) -> Result<()> {
        let mut ticker = Ticker::start(rate)?;
        self.poll
            .registry()
            .register(&mut ticker.source(), TICK, Interest::READABLE)?;
        let (mut sent, mut line) = (0, VecDeque::new());
        let mut events = Events::with_capacity(1024);
        while self.answered < messages {
            self.wait(&mut events)?;
            for event in &events {
                match event.token() {
                    TICK => line.extend(ticker.due()?.take_while(|_| within(&mut sent, messages))),
                    Token(at) => self.receive(at)?,
                }
            }
            while let (Some(due), false) = (line.front(), self.free.is_empty()) {
                let any = self.free.swap_remove(fastrand::usize(..self.free.len()));
                self.send(any as usize, *due)?;
                line.pop_front();
            }
        }
        Ok(self.poll.registry().deregister(&mut ticker.source())?)
    }

    fn wait(&mut self, events: &mut Events) -> Result<()> {
        loop {
            match self.poll.poll(events, Some(SILENCE)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
                Ok(()) if events.is_empty() => {
                    bail!("no answer for {SILENCE:?}, {} came before", self.answered)
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    /// One message at a time is far below any send buffer: a write that does not take it whole is an error.
    fn send(&mut self, at: usize, due: Instant) -> Result<()> {
        let session = &mut self.sessions[at];
        session.answer_bytes = 0;
        session.due = due;
        let count = session.link.write(&self.exchange.request)?;
        ensure!(
            count == self.exchange.request.len(),
            "a message was taken in part only"
        );
        Ok(())
    }

    fn receive(&mut self, at: usize) -> Result<()> {
        let session = &mut self.sessions[at];
        let answer = &self.exchange.answer;
        loop {
            let seen = session.answer_bytes as usize;
            match session.link.read(&mut self.scratch) {
                Ok(0) => bail!("connection {at} was closed"),
                Ok(count) => {
                    ensure!(
                        answer.get(seen..seen + count) == Some(&self.scratch[..count]),
                        "connection {at} got another answer than was due"
                    );
                    session.answer_bytes += u32::try_from(count)?;
                    if seen + count == answer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).with_context(|| format!("connection {at}")),
            }
        }
        let nanoseconds = u64::try_from(session.due.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.latencies
            .record(nanoseconds.min(LONGEST_NANOSECONDS))?;
        self.free.push(u32::try_from(at)?);
        self.answered += 1;
        Ok(())
    }
}

impl Load for Field {
    fn go(&mut self) -> Result<Finished> {
        self.work(self.messages)?;
        Ok(Finished {
            units: self.messages,
            latency: self.rate.is_some().then(|| latency(&self.latencies)),
        })
    }
}

/// Counts one more, if that is within the limit.
fn within(count: &mut u64, limit: u64) -> bool {
    let room = *count < limit;
    *count += u64::from(room);
    room
}
