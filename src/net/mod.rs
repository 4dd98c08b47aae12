//! Sockets, DNS and file descriptors. The only room that may use `unsafe`.

mod accounts;
mod address;
mod bind;
mod connect;
mod dial;
pub mod dns;
pub mod fds;
mod hangup;
mod header_case_stream;
pub mod memory;
pub mod options;
mod overlap;
mod port_holder;
pub mod signals;
mod stream;
mod unix;

pub use address::{Endpoint, Peer};
#[cfg(test)]
pub use bind::bind;
pub use bind::{
    BindError, Bound, Incoming, bind_with, check_bindable, is_transient_accept_error,
    local_address, try_accept,
};
pub use connect::{
    ConnectError, OVERDUE_AFTER, begin_connect, connect, connect_unless, is_local_shortage,
    take_error,
};
pub use hangup::wait_for_hangup;
pub use header_case_stream::{HeaderCaseStream, HeaderNames};
pub use overlap::{HALF_OPEN_TIME, Overlap};
pub use port_holder::{PortHolder, find_port_holder};
pub(crate) use stream::delegate_io;
pub use stream::{Io, Stream};
pub use unix::verify_rights;
