//! The node: says back what it hears, as bytes or as WebSocket messages. One thread, one epoll, and what is there already is read
//! at the accept.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::Result;
use rustix::event::epoll;
use rustix::net::{SocketFlags, accept_with};

use crate::Speech;
use crate::websocket::{self, Echo};

const EVENTS: usize = 1_024;
const NOW: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
/// Between two rounds, so that one wakes it for many messages: the node is not what is measured. A round trip has that much more.
const NAP: Duration = Duration::from_micros(300);
const LISTENER: u64 = u64::MAX;

pub fn run(speech: Speech) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let listens = epoll::EventData::new_u64(LISTENER);
    epoll::add(&epoll, &listener, listens, epoll::EventFlags::IN)?;
    let mut open: HashMap<u64, Session> = HashMap::new();
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        std::thread::park_timeout(NAP);
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let number = event.data.u64();
            if number == LISTENER {
                while let Ok(stream) = accept_with(&listener, NOW) {
                    let mut session = Session::new(TcpStream::from(stream), speech);
                    if !session.go_on() {
                        continue;
                    }
                    let number = session.stream.as_raw_fd() as u64;
                    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
                    let data = epoll::EventData::new_u64(number);
                    epoll::add(&epoll, &session.stream, data, flags)?;
                    open.insert(number, session);
                }
            } else if open
                .get_mut(&number)
                .is_some_and(|session| !session.go_on())
            {
                open.remove(&number);
            }
        }
    }
}

struct Session {
    stream: TcpStream,
    state: State,
}

enum State {
    Bytes,
    /// A WebSocket whose request has not come yet.
    Request,
    Messages(Echo),
}

impl Session {
    fn new(stream: TcpStream, speech: Speech) -> Session {
        let state = match speech {
            Speech::Tls => State::Bytes,
            Speech::WebSocket => State::Request,
        };
        Session { stream, state }
    }

    /// Says back what has come, as far as one read takes it; false: the connection is over. A request and a message are shorter
    /// than that, and the next one is announced anew.
    fn go_on(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => self.answer(&buffer[..count]).is_ok(),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    fn answer(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.state {
            State::Bytes => self.stream.write_all(bytes),
            State::Request => {
                let answer = websocket::answer(bytes)?;
                self.state = State::Messages(Echo::default());
                self.stream.write_all(&answer)
            }
            State::Messages(echo) => {
                let mut frames = Vec::new();
                echo.feed(bytes, &mut frames);
                self.stream.write_all(&frames)
            }
        }
    }
}
