//! Why a connection was kept out, before it was a backend's: a rule, or a limit by its key. Counted per listener.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::end::How;

/// The reason, as the metrics and the status show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `allow` or `deny`, of the listener or of a route.
    Denied,
    /// `encoded_slash`: its path can be read in two ways, past a guard.
    EncodedSlash,
    MaxConnections,
    MaxConnectionRate,
    SourceMaxConnections,
    SourceMaxConnectionRate,
    /// No network that may send a PROXY header.
    Untrusted,
    /// Too many handshakes of its source wait for their turn.
    HandshakeQueue,
    /// The operator drains the listener.
    Draining,
    /// No certificate is for the server name that the client asks for.
    UnknownName,
    /// The process takes more memory than it should.
    MaxMemory,
    /// It was silent in set-up when places ran short, and left its own to another client.
    Silent,
}

impl Refusal {
    /// Every one, in the order of declaration.
    pub const ALL: &'static [Refusal] = &[
        Refusal::Denied,
        Refusal::EncodedSlash,
        Refusal::MaxConnections,
        Refusal::MaxConnectionRate,
        Refusal::SourceMaxConnections,
        Refusal::SourceMaxConnectionRate,
        Refusal::Untrusted,
        Refusal::HandshakeQueue,
        Refusal::Draining,
        Refusal::UnknownName,
        Refusal::MaxMemory,
        Refusal::Silent,
    ];

    /// The word of the log and of the metrics' label.
    pub const fn word(self) -> &'static str {
        match self {
            Refusal::Denied => "denied",
            Refusal::EncodedSlash => "encoded_slash",
            Refusal::MaxConnections => "max_connections",
            Refusal::MaxConnectionRate => "max_connection_rate",
            Refusal::SourceMaxConnections => "per_source.max_connections",
            Refusal::SourceMaxConnectionRate => "per_source.max_connection_rate",
            Refusal::Untrusted => "untrusted",
            Refusal::HandshakeQueue => "handshake_queue",
            Refusal::Draining => "draining",
            Refusal::UnknownName => "unknown_name",
            Refusal::MaxMemory => "max_memory",
            Refusal::Silent => "silent",
        }
    }

    /// How such a connection ends.
    pub const fn how(self) -> How {
        match self {
            Refusal::Denied | Refusal::EncodedSlash | Refusal::Untrusted | Refusal::UnknownName => {
                How::Refused
            }
            Refusal::Draining => How::Stop,
            _ => How::Full,
        }
    }

    /// A limit was reached, which the operator may not know of.
    pub const fn is_limit(self) -> bool {
        matches!(self.how(), How::Full)
    }
}

/// One count for every reason.
#[derive(Debug, Default)]
pub struct RefusalCounts([AtomicU64; Refusal::ALL.len()]);

impl RefusalCounts {
    pub fn count(&self, reason: Refusal) {
        if let Some(count) = self.0.get(reason as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub fn of(&self, reason: Refusal) -> u64 {
        let count = self.0.get(reason as usize);
        count.map_or(0, |count| count.load(Relaxed))
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(|count| count.load(Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_count_of_its_own() {
        let counts = RefusalCounts::default();
        for &reason in Refusal::ALL {
            counts.count(reason);
        }
        assert!(Refusal::ALL.iter().all(|&reason| counts.of(reason) == 1));
        assert_eq!(counts.total(), Refusal::ALL.len() as u64);
    }
}
