//! The way back from the relay to the data path, as long as nobody was sent a byte: the handler is
//! called when the backend is connected, and takes the client back when the backend could not serve
//! it.

use std::time::Duration;

use super::handoff::{SessionGuards, SocketHandoff};
use crate::net::ConnectError;
use crate::observe::ConnectionRecord;

/// Owner of a connect, kept by the relay until the first byte goes either way. Its calls are made
/// on a relay thread: they must not wait.
pub(crate) trait ConnectHandler: Send {
    /// Bounds the connect.
    fn connect_timeout(&self) -> Duration;

    /// Decides on an overdue connect. True: another backend is to serve. Otherwise it is asked
    /// again when as much time has passed once more.
    fn gives_up(&mut self) -> bool;

    /// The backend is connected.
    fn connected(&mut self, record: &mut ConnectionRecord);

    /// A byte went either way: the backend serves.
    fn served(&self);

    /// Whether another backend might serve the session in place of one that has finished before a
    /// byte went either way.
    fn has_other(&self) -> bool;

    /// Takes the client back, its bytes unread, with all that belongs to it: the backend could not
    /// serve it, and nothing was sent.
    fn failed(
        self: Box<Self>,
        failure: ConnectFailure,
        client: SocketHandoff,
        record: ConnectionRecord,
        guards: SessionGuards,
    );
}

/// Reason why a backend did not serve.
#[derive(Debug)]
pub(crate) enum ConnectFailure {
    /// The connect failed.
    Connect(ConnectError),
    /// The connect was not done within [`ConnectHandler::connect_timeout`].
    ConnectTimeout,
    /// The backend accepted the connection and reset it before a byte went either way.
    Reset,
    /// The backend accepted the connection and finished before a byte went either way.
    Fin,
}
