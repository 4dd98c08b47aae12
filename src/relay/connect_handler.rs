//! Where a session came from, as the relay sees it: who is told that its backend is connected, and who takes the client
//! back when the backend could not serve it and nothing was lost.

use std::time::Duration;

use super::{SessionGuards, SocketHandoff};
use crate::net::ConnectError;
use crate::observe::ConnectionRecord;

/// Kept by the relay until the first byte goes either way. Its calls are made on a relay thread: they must not wait.
pub trait ConnectHandler: Send {
    /// Bounds the connect of a session that was adopted while connecting.
    fn connect_timeout(&self) -> Duration;

    /// Asked when the connect of a session that was adopted while connecting is overdue. True: another
    /// backend is to serve. Otherwise it is asked again when as much time has passed once more.
    fn gives_up(&mut self) -> bool;

    /// The backend's leg of a session that was adopted while connecting is connected.
    fn connected(&mut self, record: &mut ConnectionRecord);

    /// A byte went either way: the backend serves.
    fn served(&self);

    /// Whether another backend might serve the session in place of one that has finished before a byte went either way.
    fn has_other(&self) -> bool;

    /// The backend could not serve the session, to which nothing was sent: the client's leg, its bytes unread, goes
    /// back with all that belongs to it.
    fn failed(
        self: Box<Self>,
        why: ConnectFailure,
        client: SocketHandoff,
        record: ConnectionRecord,
        guards: SessionGuards,
    );
}

/// Why a backend did not serve.
#[derive(Debug)]
pub enum ConnectFailure {
    /// Its connect failed.
    Connect(ConnectError),
    /// Its connect was not done within [`Origin::connect_timeout`].
    ConnectTimeout,
    /// It accepted the connection and reset it before a byte went either way.
    Reset,
    /// It accepted the connection and finished before a byte went either way.
    Fin,
}
