//! Sockets, DNS and file descriptors. The only floor that may use `unsafe`.

mod address;
mod bind;
mod connect;
mod dial;
pub mod dns;
pub mod fds;
mod hangup;
pub mod memory;
pub mod options;
pub mod signals;
mod stream;

pub use address::{Endpoint, Peer};
pub use bind::{BindError, Bound, Incoming, accept_now, bind, is_of_one_connection, local_address};
pub use connect::{
    ConnectError, OVERDUE_AFTER, begin_connect, connect, connect_unless, is_local_shortage,
    take_error,
};
pub use hangup::hung_up;
pub use stream::Stream;
