//! Those who come back at once. They share the machine with the balancer, so they are made cheap and no cheaper: each is a
//! connection of its own with a whole handshake (TLS 1.3 or WebSocket) and an answer that came through a node.
//!
//! Before the order to go each has its socket and its hello, with a key share, or its request. Behind it a client makes five
//! system calls: connect, hello, the server's flight, Finished with a message, the answer; or request, 101, message, answer.
//! One thread and one epoll serve all.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};
use rustls::ClientConnection;
use socket2::{Domain, Socket, Type};

use crate::clients::{config, session, wait_for_order};
use crate::{Speech, websocket};

const PATIENCE: Duration = Duration::from_secs(60);
/// Between two rounds, so that one wakes the thread for many clients.
const NAP: Duration = Duration::from_micros(300);
/// Events of one call: as many as one round of work may bring.
const EVENTS: usize = 1_024;
/// More than a server's flight, or an answer with tickets before it.
const READ_BYTES: usize = 16 * 1024;

/// What each says once, to be said back.
const MESSAGE: &[u8] = b"x";

const READS: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);
const WRITES: epoll::EventFlags = READS.union(epoll::EventFlags::OUT);

/// Opens `count` connections at once, each with a full handshake, and waits until each was served by a node.
pub fn storm(target: SocketAddr, count: usize, speech: Speech) -> Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let config = config();
    let mut clients = Vec::with_capacity(count);
    for number in 0..count {
        let client = Client::new(match speech {
            Speech::Tls => Dialog::Tls(Box::new(session(&config)?)),
            Speech::WebSocket => Dialog::WebSocket(Vec::new()),
        })?;
        epoll::add(&epoll, &client.socket, data(number), READS)?;
        clients.push(client);
    }
    let mut events = Vec::with_capacity(EVENTS);
    // That they are not connected yet.
    while wait(&epoll, &mut events, Duration::ZERO)? > 0 {}
    println!("ready");
    wait_for_order()?;
    let mut seen = Seen::new()?;
    for (number, client) in clients.iter_mut().enumerate() {
        if !client.connect(target)? {
            epoll::modify(&epoll, &client.socket, data(number), WRITES)?;
        }
    }
    let opened = seen.began.elapsed();
    let mut buffer = vec![0; READ_BYTES];
    while seen.served + seen.failed < count {
        std::thread::park_timeout(NAP);
        ensure!(wait(&epoll, &mut events, PATIENCE)? > 0, "nothing happens");
        for event in &events {
            let client = clients.get_mut(event.data.u64() as usize);
            seen.note(client.context("a client")?.go_on(&mut buffer))?;
        }
    }
    seen.tell(opened);
    wait_for_order()
}

fn data(number: usize) -> epoll::EventData {
    epoll::EventData::new_u64(number as u64)
}

fn wait(
    epoll: &rustix::fd::OwnedFd,
    events: &mut Vec<epoll::Event>,
    patience: Duration,
) -> Result<usize> {
    events.clear();
    let patience = Timespec {
        tv_sec: patience.as_secs() as i64,
        tv_nsec: 0,
    };
    let spare = rustix::buffer::spare_capacity(events);
    Ok(epoll::wait(epoll, spare, Some(&patience))?)
}

/// When clients were served.
struct Seen {
    began: Instant,
    served: usize,
    failed: usize,
    microseconds: Histogram<u64>,
}

impl Seen {
    fn new() -> Result<Seen> {
        Ok(Seen {
            began: Instant::now(),
            served: 0,
            failed: 0,
            microseconds: Histogram::new_with_max(120_000_000, 3)?,
        })
    }

    fn note(&mut self, went: Result<bool>) -> Result<()> {
        match went {
            Ok(false) => {}
            Ok(true) => {
                self.served += 1;
                let took = self.began.elapsed().as_micros();
                self.microseconds.record(took as u64)?;
            }
            Err(_) => self.failed += 1,
        }
        Ok(())
    }

    fn tell(&self, opened: Duration) {
        let at = |quantile| self.microseconds.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "{} served, {} failed; all connected after {:.0} ms; until served p50 {:.0} ms, p99 {:.0} ms, last {:.0} ms",
            self.served,
            self.failed,
            opened.as_secs_f64() * 1e3,
            at(0.5),
            at(0.99),
            self.microseconds.max() as f64 / 1e3
        );
        println!("{}", at(0.99) / 1e3);
    }
}

/// What a client has with the balancer.
enum Dialog {
    Tls(Box<ClientConnection>),
    /// With what has come of the 101 and the answer.
    WebSocket(Vec<u8>),
}

struct Client {
    socket: Socket,
    dialog: Dialog,
    /// What is to be sent; at first the hello, or the request.
    output: Vec<u8>,
    has_spoken: bool,
    is_over: bool,
}

impl Client {
    fn new(mut dialog: Dialog) -> Result<Client> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let mut output = Vec::new();
        match &mut dialog {
            Dialog::Tls(session) => {
                session.write_tls(&mut output)?;
            }
            Dialog::WebSocket(_) => output.extend_from_slice(websocket::UPGRADE),
        }
        Ok(Client {
            socket,
            dialog,
            output,
            has_spoken: false,
            is_over: false,
        })
    }

    /// On loopback it mostly is connected at once, and the hello goes with it. False: it has to wait for that.
    fn connect(&mut self, target: SocketAddr) -> Result<bool> {
        match self.socket.connect(&target.into()) {
            Err(error)
                if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
            {
                Err(error).context("connect")
            }
            _ => {
                self.send()?;
                Ok(self.output.is_empty())
            }
        }
    }

    /// Takes what came; true when it was served just now.
    fn go_on(&mut self, buffer: &mut [u8]) -> Result<bool> {
        if self.is_over {
            return Ok(false);
        }
        self.send()?;
        let went = self.take(buffer);
        self.is_over = !matches!(went, Ok(false));
        went
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let count = match self.socket.read(buffer) {
            Ok(0) => bail!("it was closed"),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let new = buffer.get(..count).context("what was read")?;
        let is_ready = match &mut self.dialog {
            Dialog::Tls(session) => tls_is_ready(session, new)?,
            Dialog::WebSocket(seen) => websocket_is_ready(seen, new, self.has_spoken)?,
        };
        if !is_ready {
            return Ok(false);
        }
        if !self.has_spoken {
            self.has_spoken = true;
            self.speak()?;
        }
        match &mut self.dialog {
            Dialog::Tls(session) => {
                let mut answer = [0; 1];
                match session.reader().read(&mut answer) {
                    Ok(1) => Ok(true),
                    Ok(_) => bail!("it was closed"),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }
            Dialog::WebSocket(seen) => Ok(seen == &websocket::server_frame(MESSAGE)),
        }
    }

    fn speak(&mut self) -> Result<()> {
        match &mut self.dialog {
            Dialog::Tls(session) => {
                // With the Finished, in one record behind it.
                session.writer().write_all(MESSAGE)?;
                while session.wants_write() {
                    session.write_tls(&mut self.output)?;
                }
            }
            Dialog::WebSocket(_) => {
                self.output
                    .extend_from_slice(&websocket::client_frame(MESSAGE));
            }
        }
        self.send()
    }

    fn send(&mut self) -> Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        match self.socket.write(&self.output) {
            // A hello and a Finished always fit.
            Ok(count) => ensure!(count == self.output.len(), "a part was sent"),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.output.clear();
        Ok(())
    }
}

/// Takes bytes of the server; whether the handshake is over.
fn tls_is_ready(session: &mut ClientConnection, mut bytes: &[u8]) -> Result<bool> {
    while !bytes.is_empty() {
        session.read_tls(&mut bytes)?;
        session.process_new_packets()?;
    }
    Ok(!session.is_handshaking())
}

/// The same; once the 101 is whole, only what came behind it stays in `seen`.
fn websocket_is_ready(seen: &mut Vec<u8>, bytes: &[u8], has_spoken: bool) -> Result<bool> {
    seen.extend_from_slice(bytes);
    if has_spoken {
        return Ok(true);
    }
    let Some(end) = seen.windows(4).position(|part| part == b"\r\n\r\n") else {
        return Ok(false);
    };
    ensure!(websocket::is_accepted(seen), "no 101");
    seen.drain(..end + 4);
    Ok(true)
}
