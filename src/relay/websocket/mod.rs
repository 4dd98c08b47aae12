//! WebSocket sessions: everything of the relay that knows frames.
//!
//! [`frames`] holds what is known of the frames of one session, in both directions. The other files
//! are the phases that only a WebSocket has: its end with a Close ([`close`], [`refuse`]), and the
//! way from a lost backend to another one ([`loss_query`], [`migrate`], [`backend_loss`], [`gap`]).

mod backend_loss;
mod close;
pub(super) mod close_frame;
pub(super) mod frames;
mod gap;
mod limits;
mod loss_query;
mod message_times;
mod migrate;
mod moved;
mod ping;
mod pings;
pub(super) mod policy;
mod refuse;
pub(super) mod resume;
