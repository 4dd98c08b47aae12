//! Sockets, DNS and file descriptors. The only floor that may use `unsafe`.

mod accounts;
mod address;
mod bind;
mod connect;
mod dial;
pub mod dns;
pub mod fds;
mod hangup;
pub mod memory;
pub mod options;
mod overlap;
mod port_holder;
mod respelled;
pub mod signals;
mod stream;
mod unix;

pub use address::{Endpoint, Peer};
pub use bind::{
    BindError, Bound, Incoming, accept_now, bind, bind_with, is_of_one_connection, local_address,
    probe,
};
pub use connect::{
    ConnectError, OVERDUE_AFTER, begin_connect, connect, connect_unless, is_local_shortage,
    take_error,
};
pub use hangup::hung_up;
pub use overlap::{HALF_OPEN, Overlap};
pub use port_holder::{PortHolder, holder};
pub use respelled::{Names, RespelledStream};
pub use stream::Stream;
pub use unix::verify_rights;
