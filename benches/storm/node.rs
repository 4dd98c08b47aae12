//! The node: says back what it hears. One thread, one epoll, and what is there already is read at the accept.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::Result;
use rustix::event::epoll;
use rustix::net::{SocketFlags, accept_with};

const EVENTS: usize = 1_024;
const NOW: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
/// Between two rounds, so that one wakes it for many messages: the node is not what is measured. A round trip has that much more.
const NAP: Duration = Duration::from_micros(300);
const LISTENER: u64 = u64::MAX;

pub fn run() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let listens = epoll::EventData::new_u64(LISTENER);
    epoll::add(&epoll, &listener, listens, epoll::EventFlags::IN)?;
    let mut open: HashMap<u64, TcpStream> = HashMap::new();
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        std::thread::park_timeout(NAP);
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let number = event.data.u64();
            if number == LISTENER {
                while let Ok(stream) = accept_with(&listener, NOW) {
                    let mut stream = TcpStream::from(stream);
                    if !echo(&mut stream) {
                        continue;
                    }
                    let number = stream.as_raw_fd() as u64;
                    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
                    epoll::add(&epoll, &stream, epoll::EventData::new_u64(number), flags)?;
                    open.insert(number, stream);
                }
            } else if open.get_mut(&number).is_some_and(|stream| !echo(stream)) {
                open.remove(&number);
            }
        }
    }
}

/// Says back what has come, as far as one read takes it; false: the connection is over. A message is shorter than that, and
/// the next one is announced anew.
fn echo(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(count) => stream.write_all(&buffer[..count]).is_ok(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
