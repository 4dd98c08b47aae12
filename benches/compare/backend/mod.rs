//! The backends of a comparison: one thread with an epoll of its own that echoes, speaks WebSocket, answers GETs and moves bulk.

mod session;

use std::io;
use std::net::SocketAddr;

use anyhow::Result;
use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::pin;
use crate::plan::Services;
use session::{Kind, Session};

/// Bytes read at once; one buffer for all connections.
const SCRATCH_BYTES: usize = 256 * 1024;
/// Tokens below this are the listeners'.
const LISTENERS: usize = 4;

struct Backend {
    poll: Poll,
    listeners: [(TcpListener, Kind); LISTENERS],
    sessions: Slab<Session>,
    scratch: Vec<u8>,
}

/// Serves until the driver ends this process.
pub fn run(services: &Services) -> Result<()> {
    pin::to_core(services.core)?;
    let mut backend = Backend::bind(services)?;
    println!("ready");
    let mut events = Events::with_capacity(1024);
    loop {
        match backend.poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => events.iter().for_each(|event| backend.turn(event)),
        }
    }
}

impl Backend {
    fn bind(services: &Services) -> io::Result<Self> {
        let poll = Poll::new()?;
        let listen = |at: usize, address: SocketAddr, kind: Kind| -> io::Result<_> {
            let mut listener = listener(address)?;
            poll.registry()
                .register(&mut listener, Token(at), Interest::READABLE)?;
            Ok((listener, kind))
        };
        let listeners = [
            listen(0, services.echo, Kind::Echo)?,
            listen(1, services.websocket, Kind::Websocket)?,
            listen(2, services.http, Kind::Http)?,
            listen(3, services.bulk, Kind::Bulk)?,
        ];
        Ok(Self {
            poll,
            listeners,
            sessions: Slab::new(),
            scratch: vec![0; SCRATCH_BYTES],
        })
    }

    fn turn(&mut self, event: &Event) {
        let Token(token) = event.token();
        if token < LISTENERS {
            return self.accept(token);
        }
        let at = token - LISTENERS;
        let Some(session) = self.sessions.get_mut(at) else {
            return;
        };
        let to_end = event.is_read_closed() || event.is_error();
        if !session.turn(&mut self.scratch, to_end).unwrap_or(false) {
            self.sessions.remove(at);
        }
    }

    fn accept(&mut self, at: usize) {
        let (listener, kind) = &self.listeners[at];
        while let Ok((stream, _)) = listener.accept() {
            let entry = self.sessions.vacant_entry();
            let token = Token(entry.key() + LISTENERS);
            let session = entry.insert(Session::new(stream, *kind));
            let both = Interest::READABLE | Interest::WRITABLE;
            if self
                .poll
                .registry()
                .register(session.stream(), token, both)
                .is_err()
            {
                self.sessions.remove(token.0 - LISTENERS);
            }
        }
    }
}

/// mio's own `bind` has a queue of 1,024 only, which a burst of short connections fills.
fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}
