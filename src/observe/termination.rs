//! Why a connection ended: which side, in which phase, how. The first event that ended it counts;
//! the close of the other leg, which follows, is no termination of its own.

use std::fmt;

use super::words::words;

/// End of a connection: `backend relay rst` in the text log, an object in JSON, three labels in the
/// metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Termination {
    pub side: Side,
    pub phase: Phase,
    pub how: Cause,
}

impl Termination {
    pub const fn new(side: Side, phase: Phase, how: Cause) -> Termination {
        Termination { side, phase, how }
    }
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.side, self.phase, self.how)
    }
}

words! {
    /// Side that ended the connection.
    Side {
        Client = "client",
        Backend = "backend",
        /// This process: a limit, a timeout, a stop, a defect.
        Evenkeel = "evenkeel",
    }
}

words! {
    /// Step that the connection had reached.
    Phase {
        /// Limits and access rules, PROXY header.
        Accept = "accept",
        /// ClientHello or TLS handshake.
        Tls = "tls",
        /// HTTP head.
        Head = "head",
        /// Choosing a pool.
        Route = "route",
        /// Waiting for a backend with room.
        Queue = "queue",
        Connect = "connect",
        /// Waiting for the backend's 101.
        Upgrade = "upgrade",
        /// HTTP request and its answer.
        Request = "request",
        /// Established, bytes moving.
        Relay = "relay",
    }
}

words! {
    /// Cause of the end.
    Cause {
        /// Orderly.
        Fin = "fin",
        /// Reset, or TLS cut off without close_notify.
        Rst = "rst",
        Timeout = "timeout",
        /// Connect refused, no backend, no route, not allowed.
        Refused = "refused",
        /// Bytes that could not be parsed or are not allowed.
        Invalid = "invalid",
        /// A limit was reached.
        Full = "full",
        /// The process or an operator stopped it.
        Stop = "stop",
        /// Any other error of a socket.
        Error = "error",
        /// A defect: the record was dropped before the connection was finished.
        Panic = "panic",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_as_side_phase_and_how() {
        assert_eq!(
            Termination::new(Side::Backend, Phase::Relay, Cause::Rst).to_string(),
            "backend relay rst"
        );
    }
}
