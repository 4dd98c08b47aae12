//! A connection that is handed to the relay, with its limits.

use std::time::Duration;

use super::connect_handler::ConnectHandler;
use super::handoff::{SessionGuards, SocketHandoff};
use super::resume_policy::ResumePolicy;
use super::websocket::policy::FramePolicy;
use crate::config;
use crate::observe::ConnectionRecord;

/// A connection, ready to be relayed.
pub(crate) struct NewSession {
    pub client: SocketHandoff,
    pub backend: SocketHandoff,
    pub framing: Framing,
    /// The connect to the backend is under way; it needs a handler.
    pub connecting: bool,
    pub limits: SessionLimits,
    pub record: ConnectionRecord,
    /// Dropped after the record is finished.
    pub guards: SessionGuards,
    /// Takes the client back while no byte went either way. Dropped with the first byte.
    pub connect_handler: Option<Box<dyn ConnectHandler>>,
    /// Lets a WebSocket outlive its backend.
    pub resume_policy: Option<Box<ResumePolicy>>,
}

/// Structure of the bytes of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// None that the relay knows.
    Bytes,
    /// WebSocket frames both ways, from the first byte: where they begin and end is followed.
    WebSocket(FramePolicy),
}

/// The limits of one session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionLimits {
    /// No byte either way.
    pub idle_timeout: Duration,
    /// No byte on the open half of a half-closed connection. It also bounds the wait for queued
    /// bytes before a RST.
    pub fin_timeout: Duration,
    /// From accept to the end, whatever moves; give or take a tenth, so that connections that came
    /// at once do not go at once.
    pub max_lifetime: Option<Duration>,
}

impl SessionLimits {
    /// The limits that a pool's settings give its sessions.
    pub(crate) fn of(pool: &config::Pool) -> Self {
        Self {
            idle_timeout: pool.idle_timeout,
            fin_timeout: pool.fin_timeout,
            max_lifetime: pool.max_lifetime,
        }
    }
}
