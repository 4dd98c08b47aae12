//! The relay plane: here an established connection spends its hours.
//!
//! [`Relay::adopt`] takes a session (two sockets, the bytes already read from them, its guards, its
//! record, its limits) and owns it to the end, fire and forget: when it ends, the relay finishes
//! the record and then drops the guards. One thread per worker, each with its own epoll; no buffer
//! while a connection idles. No tokio type crosses this seam. The relay calls the data path above
//! it through four traits: [`ConnectHandler`], [`Migrator`], [`OnAccept`] and [`SetUp`].
//!
//! - `worker` is the loop of a thread, `table` its sessions, `sweep` its timer.
//! - `session` is one session, `phase` where it stands; `phases` has a turn for each.
//! - `direction` moves bytes from one `leg` to the other.
//! - `websocket` is all that knows frames; raw TCP reads without it.
//! - `moved` is a session on its way to another relay, as in a live upgrade.

mod accept;
mod api;
mod clock;
mod closing_queue;
mod connect_handler;
mod connecting_queue;
mod direction;
mod filter;
mod handoff;
mod inbox;
mod info;
mod key;
mod leg;
mod listener;
#[cfg(any(test, fuzzing))]
pub mod model;
mod moved;
mod new_session;
mod phase;
mod phases;
mod pipe;
mod query;
mod resume_policy;
mod scratch;
mod session;
mod set_up;
mod side;
mod sweep;
mod table;
#[cfg(test)]
mod tests;
mod websocket;
mod worker;
mod workers;

pub(crate) use accept::{Accepted, OnAccept};
pub(crate) use api::{Relay, pipe_descriptors};
pub(crate) use connect_handler::{ConnectFailure, ConnectHandler};
pub(crate) use filter::Filter;
pub(crate) use handoff::{SessionGuards, SocketHandoff, Tls, Transport};
pub(crate) use info::{ConnectionInfo, SessionInfo, SessionState};
pub(crate) use key::Handle;
#[cfg(test)]
pub(crate) use moved::Ghost;
pub(crate) use moved::{
    ArrivalError, ArrivingParts, ArrivingResume, ArrivingSession, FrozenSession, MAX_BATCH,
    StayReason,
};
pub(crate) use new_session::{Framing, NewSession, SessionLimits};
pub(crate) use query::{Cursor, MAX_PAGE, TablePage};
pub(crate) use resume_policy::{LostBackend, Migrator, NewBackend, ResumePolicy};
pub(crate) use set_up::{LeftBackend, LeftSetUp, SetUp, SetUpStep};
pub(crate) use websocket::close_frame::CloseFrame;
pub(crate) use websocket::policy::FramePolicy;
