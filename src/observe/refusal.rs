//! Why a connection or request was turned away before a backend served it: a rule, a limit by its key, what the client did
//! wrong, or that no backend was there. Counted per listener.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::termination::{Cause, Phase, Side, Termination};

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
    /// No route leads anywhere from what it asks for.
    NoRoute,
    /// The process stops.
    Stopping,
    /// Its PROXY header is none.
    ProxyHeader,
    /// It was not through its set-up in `handshake_timeout`.
    HandshakeTimeout,
    /// Its TLS handshake, or ClientHello, cannot be taken.
    TlsHandshake,
    /// Its HTTP request cannot be taken.
    BadRequest,
    /// No backend of its pool can be used.
    NoBackend,
    QueueFull,
    QueueTimeout,
    /// No backend that was tried has taken it.
    ConnectFailed,
    /// This process is short of something: descriptors, ports.
    Shortage,
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
        Refusal::NoRoute,
        Refusal::Stopping,
        Refusal::ProxyHeader,
        Refusal::HandshakeTimeout,
        Refusal::TlsHandshake,
        Refusal::BadRequest,
        Refusal::NoBackend,
        Refusal::QueueFull,
        Refusal::QueueTimeout,
        Refusal::ConnectFailed,
        Refusal::Shortage,
        Refusal::MaxMemory,
        Refusal::Silent,
    ];

    /// What the end of a connection says by itself. Where a rule or a limit has decided, the step that asked it counts.
    pub(super) const fn of(end: Termination) -> Option<Refusal> {
        Some(match (end.side, end.phase, end.how) {
            (Side::Client, Phase::Accept, Cause::Invalid) => Refusal::ProxyHeader,
            (Side::Evenkeel, Phase::Accept | Phase::Tls | Phase::Head, Cause::Timeout) => {
                Refusal::HandshakeTimeout
            }
            (Side::Client, Phase::Tls, Cause::Invalid) => Refusal::TlsHandshake,
            (
                Side::Client,
                Phase::Head | Phase::Request,
                Cause::Invalid | Cause::Full | Cause::Refused,
            ) => Refusal::BadRequest,
            (Side::Evenkeel, Phase::Connect, Cause::Refused) => Refusal::NoBackend,
            (Side::Evenkeel, Phase::Connect, Cause::Error) => Refusal::Shortage,
            (Side::Evenkeel, Phase::Queue, Cause::Full) => Refusal::QueueFull,
            (Side::Evenkeel, Phase::Queue, Cause::Timeout) => Refusal::QueueTimeout,
            (Side::Backend, Phase::Connect, _) => Refusal::ConnectFailed,
            _ => return None,
        })
    }

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
            Refusal::NoRoute => "no_route",
            Refusal::Stopping => "stopping",
            Refusal::ProxyHeader => "proxy_header",
            Refusal::HandshakeTimeout => "handshake_timeout",
            Refusal::TlsHandshake => "tls_handshake",
            Refusal::BadRequest => "bad_request",
            Refusal::NoBackend => "no_backend",
            Refusal::QueueFull => "queue_full",
            Refusal::QueueTimeout => "queue_timeout",
            Refusal::ConnectFailed => "connect_failed",
            Refusal::Shortage => "shortage",
            Refusal::MaxMemory => "max_memory",
            Refusal::Silent => "silent",
        }
    }

    /// How such a connection ends.
    pub const fn how(self) -> Cause {
        match self {
            Refusal::Denied
            | Refusal::EncodedSlash
            | Refusal::Untrusted
            | Refusal::UnknownName
            | Refusal::NoRoute
            | Refusal::NoBackend
            | Refusal::ConnectFailed => Cause::Refused,
            Refusal::Draining | Refusal::Stopping => Cause::Stop,
            Refusal::ProxyHeader | Refusal::TlsHandshake | Refusal::BadRequest => Cause::Invalid,
            Refusal::HandshakeTimeout | Refusal::QueueTimeout => Cause::Timeout,
            Refusal::Shortage => Cause::Error,
            _ => Cause::Full,
        }
    }

    /// A limit was reached, which the operator may not know of.
    pub const fn is_limit(self) -> bool {
        matches!(self.how(), Cause::Full)
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
    fn ends_of_which_a_step_counts_the_reason_are_not_counted_again() {
        for (phase, refusal) in [
            (Phase::Accept, Refusal::Denied),
            (Phase::Accept, Refusal::Untrusted),
            (Phase::Accept, Refusal::MaxConnections),
            (Phase::Accept, Refusal::Draining),
            (Phase::Tls, Refusal::HandshakeQueue),
            (Phase::Tls, Refusal::UnknownName),
            (Phase::Route, Refusal::SourceMaxConnections),
            (Phase::Route, Refusal::NoRoute),
            (Phase::Route, Refusal::Stopping),
        ] {
            let end = Termination::new(Side::Evenkeel, phase, refusal.how());
            assert_eq!(Refusal::of(end), None, "{end}");
        }
        let served = Termination::new(Side::Client, Phase::Relay, Cause::Invalid);
        assert_eq!(Refusal::of(served), None);
    }

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
