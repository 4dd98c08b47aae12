//! Why a connection ended: which side, in which phase, how. The first event that ended it is the one that counts;
//! what follows from it (the other leg being closed) is not an end of its own.

use std::fmt;

use serde::Serialize;

/// Shown as `backend relay rst` in the text log, as an object in JSON, as three labels in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
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

/// Defines a closed set of lower-case words with its list, its `Display` and its serialisation.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// Every one, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word of the log and of the metrics' label.
            pub const fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// Who ended it.
    Side {
        Client = "client",
        Backend = "backend",
        /// This process: a limit, a timeout, a stop, a fault of its own.
        Evenkeel = "evenkeel",
    }
}

words! {
    /// How far the connection had come.
    Phase {
        /// Limits and access rules, PROXY header.
        Accept = "accept",
        /// ClientHello or TLS handshake.
        Tls = "tls",
        /// HTTP head.
        Head = "head",
        /// No pool for it.
        Route = "route",
        /// Waiting for a backend with room.
        Queue = "queue",
        Connect = "connect",
        /// Waiting for the backend's 101.
        Upgrade = "upgrade",
        /// An ordinary HTTP request and its answer.
        Request = "request",
        /// Established, bytes moving.
        Relay = "relay",
    }
}

words! {
    /// What happened.
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
        /// A defect: the record was dropped without an end.
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

    #[test]
    fn json_and_text_use_the_same_words() {
        for how in Cause::ALL {
            assert_eq!(serde_json::to_string(how).unwrap(), format!("\"{how}\""));
        }
        for phase in Phase::ALL {
            assert_eq!(
                serde_json::to_string(phase).unwrap(),
                format!("\"{phase}\"")
            );
        }
        for side in Side::ALL {
            assert_eq!(serde_json::to_string(side).unwrap(), format!("\"{side}\""));
        }
    }
}
