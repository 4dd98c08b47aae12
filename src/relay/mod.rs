//! The relay plane: here an established connection spends its hours.
//!
//! [`Relay::adopt`] takes a session (two sockets, the bytes already read from them, its guards, its
//! record, its limits) and owns it to the end, fire and forget: when it ends, the relay finishes
//! the record and then drops the guards. One thread per worker, each with its own epoll; no buffer
//! while a connection idles. No tokio type crosses this seam. The relay calls the data path above
//! it through three traits: [`ConnectHandler`], [`Migrator`] and [`OnAccept`].
//!
//! - `worker` is the loop of a thread, `table` its sessions, `sweep` its timer.
//! - `session` is one session, `phase` where it stands; `phases` has a turn for each.
//! - `direction` moves bytes from one `leg` to the other.
//! - `websocket` is all that knows frames; raw TCP reads without it.

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
mod new_session;
mod phase;
mod phases;
mod pipe;
mod query;
mod resume_policy;
mod scratch;
mod session;
mod side;
mod sweep;
mod table;
#[cfg(test)]
mod tests;
mod websocket;
mod worker;
mod workers;

pub use accept::OnAccept;
pub use api::{Relay, pipe_descriptors};
pub use connect_handler::{ConnectFailure, ConnectHandler};
pub use filter::Filter;
pub use handoff::{SessionGuards, SocketHandoff, Tls, Transport};
pub use info::{ConnectionInfo, SessionInfo, SessionState};
pub use key::Handle;
pub use listener::RelayListener;
pub use new_session::{Framing, NewSession, SessionLimits};
pub use query::{Cursor, MAX_PAGE, TablePage};
pub use resume_policy::{LostBackend, LostMessages, Migrator, NewBackend, ResumePolicy};
pub use websocket::close_frame::CloseFrame;
pub use websocket::policy::FramePolicy;
