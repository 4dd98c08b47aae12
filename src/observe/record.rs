//! The record of one connection, or of one HTTP request on a listener that proxies HTTP: all that is known of it.
//!
//! The step of the path that holds the connection writes to it; nothing else of `observe` is touched by the data
//! path. Ending it adds it to the counters and gives one line to the journal. A record dropped without an end is a
//! defect of ours and is logged as `evenkeel PHASE panic`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use super::counters::{BackendCounters, ListenerCounters};
use super::end::{End, How, Phase, Side};
use super::journal::Journal;
use super::line::{Event, Line};
use crate::net::Peer;

/// What host and path together may take in the log; a longer path is cut.
const MAX_TARGET_BYTES: usize = 128;
/// What a server name may take in the log: the most that DNS allows.
const MAX_SNI_BYTES: usize = 253;
/// What a method may take in the log; the longest registered one has 17.
const MAX_METHOD_BYTES: usize = 24;

#[derive(Debug)]
pub struct Record {
    /// Unique in this process, from 1.
    pub id: u64,
    pub client: Peer,
    /// How far the connection has come; the steps of the path set it. Default [`Phase::Accept`].
    pub phase: Phase,
    /// Connects tried, the first among them.
    pub tries: u32,
    /// The connect that succeeded.
    pub connect_time: Option<Duration>,
    /// Payload as the relay moved it (after TLS), running totals.
    pub bytes_from_client: u64,
    /// As `bytes_from_client`.
    pub bytes_from_backend: u64,
    status: Option<u16>,
    ended: bool,
    /// Seconds from accept to the latest interval line.
    last_line_seconds: u32,
    /// Bytes that are in the counters already.
    counted: (u64, u64),
    accepted: Instant,
    /// Nothing for a raw TCP connection.
    names: Option<Box<Names>>,
    assigned: Option<Assigned>,
    listener: Arc<ListenerCounters>,
    journal: Arc<Journal>,
}

/// What the client asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub sni: Option<Box<str>>,
    pub method: Option<Box<str>>,
    pub host: Option<Box<str>>,
    pub path: Option<Box<str>>,
}

#[derive(Debug)]
struct Assigned {
    pool: Arc<str>,
    backend: Arc<str>,
    counters: Arc<BackendCounters>,
}

impl Record {
    pub fn new(journal: &Arc<Journal>, listener: &Arc<ListenerCounters>, client: Peer) -> Record {
        listener.live.fetch_add(1, Relaxed);
        Record {
            id: journal.next_id(),
            client,
            phase: Phase::Accept,
            tries: 0,
            connect_time: None,
            bytes_from_client: 0,
            bytes_from_backend: 0,
            status: None,
            ended: false,
            last_line_seconds: 0,
            counted: (0, 0),
            accepted: Instant::now(),
            names: None,
            assigned: None,
            listener: Arc::clone(listener),
            journal: Arc::clone(journal),
        }
    }

    /// The server name of the ClientHello; cut at 253 bytes.
    pub fn set_sni(&mut self, sni: &str) {
        self.names_mut().sni = Some(cut(sni, MAX_SNI_BYTES).into());
    }

    /// Method, host and path of an HTTP request. The query and the fragment are never kept; host and path are cut
    /// at 128 bytes together.
    pub fn set_request(&mut self, method: &str, host: Option<&str>, path: &str) {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let host = host.map(|host| cut(host, MAX_TARGET_BYTES));
        let left = MAX_TARGET_BYTES - host.map_or(0, str::len);
        let names = self.names_mut();
        names.method = Some(cut(method, MAX_METHOD_BYTES).into());
        names.host = host.map(Into::into);
        names.path = Some(cut(path, left).into());
    }

    /// The backend that was picked; called again when another takes its place.
    pub fn assigned(
        &mut self,
        pool: &Arc<str>,
        backend: &Arc<str>,
        counters: &Arc<BackendCounters>,
    ) {
        let (pool, backend, counters) =
            (Arc::clone(pool), Arc::clone(backend), Arc::clone(counters));
        self.assigned = Some(Assigned {
            pool,
            backend,
            counters,
        });
    }

    /// No backend was picked after all (the try failed and there is no other).
    pub fn unassigned(&mut self) {
        self.assigned = None;
    }

    /// The status that the client got, once per HTTP request; 101 counts as an upgrade too.
    pub fn answered(&mut self, status: u16) {
        self.status = Some(status);
        self.listener.requests.fetch_add(1, Relaxed);
        if status == 101 {
            self.listener.upgrades.fetch_add(1, Relaxed);
        }
        if let Some(assigned) = &self.assigned {
            assigned.counters.requests.fetch_add(1, Relaxed);
        }
    }

    pub fn host(&self) -> Option<&str> {
        self.names.as_ref()?.host.as_deref()
    }

    pub fn path(&self) -> Option<&str> {
        self.names.as_ref()?.path.as_deref()
    }

    pub fn sni(&self) -> Option<&str> {
        self.names.as_ref()?.sni.as_deref()
    }

    /// Since accept (of an HTTP request: since its record was made).
    pub fn age(&self) -> Duration {
        self.accepted.elapsed()
    }

    /// The connection is established: writes the line of `log_at` "open", when it is wanted.
    pub fn opened(&mut self) {
        self.phase = Phase::Relay;
        if self.journal.log_at().open {
            self.journal.write(self.line(Event::Open));
        }
    }

    /// Time until the next interval line, zero when it is due; `None` when no such lines are wanted. It follows a
    /// reload of `[access_log]`, so ask again at every sweep.
    pub fn interval_due(&self) -> Option<Duration> {
        let latest = Duration::from_secs(self.last_line_seconds.into());
        let due = || {
            latest
                .saturating_add(self.journal.interval())
                .saturating_sub(self.age())
        };
        self.journal.log_at().interval.then(due)
    }

    /// Writes the interval line and brings the byte counters up to date.
    pub fn interval(&mut self) {
        self.count_bytes();
        self.last_line_seconds = u32::try_from(self.age().as_secs()).unwrap_or(u32::MAX);
        if self.journal.log_at().interval {
            self.journal.write(self.line(Event::Interval));
        }
    }

    /// The connection is over: counts it and writes its line.
    pub fn finish(mut self, end: End) {
        self.close(end);
    }

    fn close(&mut self, end: End) {
        self.ended = true;
        self.count_bytes();
        self.listener.live.fetch_sub(1, Relaxed);
        self.listener.ends.count(end);
        if end.phase == Phase::Tls {
            self.listener.handshake_failures.fetch_add(1, Relaxed);
        }
        if self.journal.log_at().end {
            let names = self.names.take();
            self.journal.write(Line {
                names,
                ..self.line(Event::End(end))
            });
        }
    }

    fn count_bytes(&mut self) {
        let from_client = self.bytes_from_client.saturating_sub(self.counted.0);
        let from_backend = self.bytes_from_backend.saturating_sub(self.counted.1);
        self.counted = (self.bytes_from_client, self.bytes_from_backend);
        self.listener
            .bytes_from_client
            .fetch_add(from_client, Relaxed);
        self.listener
            .bytes_from_backend
            .fetch_add(from_backend, Relaxed);
        if let Some(assigned) = &self.assigned {
            assigned
                .counters
                .bytes_from_client
                .fetch_add(from_client, Relaxed);
            assigned
                .counters
                .bytes_from_backend
                .fetch_add(from_backend, Relaxed);
        }
    }

    fn line(&self, event: Event) -> Line {
        Line {
            time: SystemTime::now(),
            id: self.id,
            event,
            listener: Arc::clone(&self.listener.name),
            client: self.client.clone(),
            names: self.names.clone(),
            status: self.status,
            pool: self
                .assigned
                .as_ref()
                .map(|assigned| Arc::clone(&assigned.pool)),
            backend: self
                .assigned
                .as_ref()
                .map(|assigned| Arc::clone(&assigned.backend)),
            tries: self.tries,
            connect_time: self.connect_time,
            duration: self.age(),
            bytes_from_client: self.bytes_from_client,
            bytes_from_backend: self.bytes_from_backend,
        }
    }

    fn names_mut(&mut self) -> &mut Names {
        self.names.get_or_insert_default()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.ended {
            self.close(End::new(Side::Evenkeel, self.phase, How::Panic));
        }
    }
}

/// At most `limit` bytes of `text`, at a character's boundary.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aé", 300), "aé");
    }
}
