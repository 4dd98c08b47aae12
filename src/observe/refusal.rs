//! Why a connection or request was refused before a backend served it: a rule, a limit, an error of
//! the client, or no backend. Counted per listener.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::termination::{Cause, Phase, Side, Termination};
use super::words::words;

words! {
    /// Reason of a refusal, as the metrics and the status show it.
    Refusal {
        /// `allow` or `deny`, of the listener or of a route.
        Denied = "denied",
        /// `encoded_slash`: an ambiguous path, which could pass a guard.
        EncodedSlash = "encoded_slash",
        MaxConnections = "max_connections",
        MaxConnectionRate = "max_connection_rate",
        SourceMaxConnections = "per_source.max_connections",
        SourceMaxConnectionRate = "per_source.max_connection_rate",
        /// The network may not send a PROXY header.
        Untrusted = "untrusted",
        /// Too many handshakes of its source are waiting.
        HandshakeQueue = "handshake_queue",
        /// The operator drains the listener.
        Draining = "draining",
        /// No certificate covers the server name that the client asks for.
        UnknownName = "unknown_name",
        /// No route matches the request.
        NoRoute = "no_route",
        /// The process is stopping.
        Stopping = "stopping",
        /// The PROXY header is missing or broken.
        ProxyHeader = "proxy_header",
        /// The set-up took longer than `handshake_timeout`.
        HandshakeTimeout = "handshake_timeout",
        /// The TLS handshake or ClientHello is invalid.
        TlsHandshake = "tls_handshake",
        /// The HTTP request is invalid.
        BadRequest = "bad_request",
        /// No backend of its pool can be used.
        NoBackend = "no_backend",
        QueueFull = "queue_full",
        QueueTimeout = "queue_timeout",
        /// Every connect to a backend failed.
        ConnectFailed = "connect_failed",
        /// This process lacks a resource: descriptors, ports.
        Shortage = "shortage",
        /// The process uses more memory than `max_memory`.
        MaxMemory = "max_memory",
        /// Silent in set-up when connections ran short: closed in favour of another client.
        Silent = "silent",
    }
}

impl Refusal {
    /// Reason that a termination implies. Where a rule or a limit decided, the step that applied it
    /// counts the refusal.
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

    /// Cause in the termination of a connection that is refused so.
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

    /// True for a limit that was reached: the operator may not know of it.
    pub const fn is_limit(self) -> bool {
        matches!(self.how(), Cause::Full)
    }
}

/// Count of every reason.
#[derive(Debug, Default)]
pub struct RefusalCounts([AtomicU64; Refusal::ALL.len()]);

impl RefusalCounts {
    pub fn count(&self, reason: Refusal) {
        if let Some(count) = self.0.get(reason as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Counts refusals of another process.
    pub(super) fn add(&self, reason: Refusal, count: u64) {
        if let Some(own) = self.0.get(reason as usize) {
            own.fetch_add(count, Relaxed);
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
