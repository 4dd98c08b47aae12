//! Record of one connection, or of one HTTP request on a listener that proxies HTTP: all that is
//! known of it.
//!
//! The step of the data path that holds the connection writes to the record, and to nothing else of
//! `observe`. Finishing it adds it to the counters and gives one line to the journal. A record that
//! is dropped unfinished is a defect and is logged as `evenkeel PHASE panic`.

mod first_byte;
mod moved;
mod traced;

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use self::first_byte::FirstByte;
pub(crate) use self::moved::{export_peer, import_peer};
pub(crate) use self::traced::TracePlace;
use super::counters::{BackendCounters, ListenerCounters};
use super::handshake_facts::HandshakeFacts;
use super::line::{LogEvent, LogLine};
use super::refusal::Refusal;
use super::request_names::RequestNames;
use super::resumed::Resumed;
use super::summary::Summary;
use super::termination::{Cause, Phase, Side, Termination};
use super::traced_names::TracedNames;
use super::traces::Trace;
use crate::config::TlsVersion;
use crate::net::Peer;

/// Record of a live connection, which holds it for hours: so it is small.
#[derive(Debug)]
pub(crate) struct ConnectionRecord {
    /// Unique in this process, from 1.
    pub id: u64,
    /// Payload that the relay moved (after TLS), running totals.
    pub bytes_from_client: u64,
    /// As `bytes_from_client`.
    pub bytes_from_backend: u64,
    /// Bytes that are in the counters already.
    counted: (u64, u64),
    accepted: Timestamp,
    /// Names of the request, and the trace while traces are on.
    names: TracedNames,
    assigned: Option<Arc<BackendCounters>>,
    listener: Arc<ListenerCounters>,
    /// Microseconds; [`UNKNOWN_TIME`] until a connect has succeeded.
    connect_time: u32,
    /// Seconds from accept to the latest interval line.
    last_line_seconds: u32,
    /// See [`FirstByte`].
    first_byte: u32,
    first_byte_step: FirstByte,
    pub client: Peer,
    /// 0 = none yet.
    status: u16,
    /// TLS of the backend's leg.
    tls: Option<TlsVersion>,
    /// Phase of the connection; the steps of the path enter it. Default [`Phase::Accept`].
    phase: Phase,
    /// Connects tried, with the first; stays at 255.
    tries: u8,
    stage: RecordStage,
    /// True: a byte of the client was read in set-up.
    heard: bool,
}

const _: () = assert!(size_of::<ConnectionRecord>() <= 120);

/// Stage of a record: how much of it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RecordStage {
    SetUp,
    /// Its set-up is counted.
    Opened,
    /// Its line is written.
    Ended,
}

const UNKNOWN_TIME: u32 = u32::MAX;

/// Point in time in 8 bytes: nanoseconds since the first call, or before it for a connection that
/// came from another process.
#[derive(Debug, Clone, Copy)]
struct Timestamp(i64);

impl Timestamp {
    fn now() -> Timestamp {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        Timestamp(i64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(i64::MAX))
    }

    fn before(age: Duration) -> Timestamp {
        let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        Timestamp(Timestamp::now().0.saturating_sub(age))
    }

    fn since_origin(self) -> Duration {
        Duration::from_nanos(self.0.max(0).unsigned_abs())
    }

    fn elapsed(self) -> Duration {
        let passed = Timestamp::now().0.saturating_sub(self.0);
        Duration::from_nanos(passed.max(0).unsigned_abs())
    }
}

impl ConnectionRecord {
    pub(crate) fn new(listener: &Arc<ListenerCounters>, client: Peer) -> ConnectionRecord {
        listener.live.fetch_add(1, Relaxed);
        let trace = Trace::begin(listener.journal.tracer());
        ConnectionRecord {
            id: listener.journal.next_id(),
            bytes_from_client: 0,
            bytes_from_backend: 0,
            counted: (0, 0),
            accepted: Timestamp::now(),
            names: TracedNames::new(RequestNames::default(), trace),
            assigned: None,
            listener: Arc::clone(listener),
            connect_time: UNKNOWN_TIME,
            last_line_seconds: 0,
            first_byte: 0,
            first_byte_step: FirstByte::None,
            client,
            status: 0,
            tls: None,
            phase: Phase::Accept,
            tries: 0,
            stage: RecordStage::SetUp,
            heard: false,
        }
    }

    /// Notes that the client has sent something in set-up. The relay counts its bytes itself.
    pub(crate) fn heard(&mut self) {
        self.heard = true;
    }

    /// Sets the client that the balancer in front, `via`, announces, and what it says in TLVs;
    /// these are cut at 250 bytes.
    pub(crate) fn announce(&mut self, client: Peer, via: Peer, tlvs: Option<&str>) {
        self.client = client;
        self.names.set_announced(&via.to_string(), tlvs);
    }

    /// Sets the server name of the ClientHello; cut at 253 bytes.
    pub(crate) fn set_sni(&mut self, sni: &str) {
        self.names.set_sni(sni);
    }

    /// Counts a TLS handshake that has succeeded here, and took so long.
    pub(crate) fn shaken(&mut self, tls: &HandshakeFacts, took: Duration) {
        self.set_client_tls(tls);
        self.listener.times.handshake.observe(took);
        let kind = if tls.resumed {
            &self.listener.resumed_handshakes
        } else {
            &self.listener.full_handshakes
        };
        kind.fetch_add(1, Relaxed);
    }

    /// Sets what the TLS handshake agreed on.
    pub(crate) fn set_client_tls(&mut self, tls: &HandshakeFacts) {
        self.names.set_client_tls(tls);
    }

    /// Sets the id of the request; cut at 128 bytes.
    pub(crate) fn set_request_id(&mut self, id: &str) {
        self.names.set_request_id(id);
    }

    /// Notes the Close frame of a side, with its code or 1005 for none.
    pub(crate) fn said_close(&mut self, side: Side, code: u16) {
        self.names.set_close_code(side == Side::Client, Some(code));
    }

    /// Counts a refusal whose reason the termination does not imply.
    pub(crate) fn refused(&self, refusal: Refusal) {
        self.listener.refused.count(refusal);
    }

    /// Sets the names of the client's certificate; each cut at 250 bytes.
    pub(crate) fn set_client_certificate(&mut self, subject: Option<&str>, san: Option<&str>) {
        self.names.set_client_certificate(subject, san);
    }

    /// Sets method, host and path of an HTTP request. The query and the fragment are never kept;
    /// host and path are cut at 128 bytes each.
    pub(crate) fn set_request(&mut self, method: &str, host: Option<&str>, path: &str) {
        self.names.set_request(method, host, path);
    }

    /// Sets the tag of the session, cut at 64 bytes; `is_hashed`: the log has a hash of it.
    pub(crate) fn set_tag(&mut self, tag: &str, is_hashed: bool) {
        self.names.set_tag(tag, is_hashed);
    }

    /// Assigns the picked backend, to which a connect begins; called again when another replaces
    /// it.
    pub(crate) fn assigned(&mut self, backend: &Arc<BackendCounters>) {
        self.tries = self.tries.saturating_add(1);
        if let Some(trace) = self.names.trace_mut() {
            trace.at_backend(backend);
        }
        self.assigned = Some(Arc::clone(backend));
    }

    /// Assigns another backend to a live session, which was connected `after` so long; the present
    /// one keeps the bytes it has moved. The wait for its first byte is not measured: a session
    /// that goes on asks it for nothing.
    pub(crate) fn reassigned(&mut self, backend: &Arc<BackendCounters>, after: Duration) {
        self.tally();
        self.forget_first_byte();
        // The code was that of the former backend.
        self.names.set_close_code(false, None);
        self.assigned(backend);
        self.note_connect(after);
    }

    /// Counts that the assigned backend has taken the session over; writes the line of `log_at`
    /// "resume", when it is wanted.
    pub(crate) fn resumed(&mut self, resumed: Resumed) {
        if let Some(assigned) = &self.assigned {
            assigned.resumed.fetch_add(1, Relaxed);
        }
        self.trace_resumed(&resumed);
        if self.listener.journal.log_at().resume {
            self.listener.journal.write(&LogLine {
                resumed: Some(&resumed),
                ..self.line(LogEvent::Resume)
            });
        }
    }

    /// Counts that the session ends with its backend, which it was to outlive.
    pub(crate) fn not_resumed(&self) {
        if let Some(assigned) = &self.assigned {
            assigned.not_resumed.fetch_add(1, Relaxed);
        }
    }

    /// Notes a connect, and begins the wait for the backend.
    pub(crate) fn connected(&mut self, after: Duration) {
        self.note_connect(after);
        self.await_first_byte();
    }

    /// Notes the time of a connect, in microseconds, up to 71 minutes.
    fn note_connect(&mut self, after: Duration) {
        self.connect_time = u32::try_from(after.as_micros()).unwrap_or(UNKNOWN_TIME);
        if let Some(assigned) = &self.assigned {
            assigned.times.connect.observe(after);
        }
    }

    /// Notes that the backend's connection has served before, with its TLS version.
    pub(crate) fn reused(&mut self, version: Option<TlsVersion>) {
        self.connect_time = 0;
        self.encrypted(version);
        if let Some(assigned) = &self.assigned {
            assigned.reused.fetch_add(1, Relaxed);
        }
        self.await_first_byte();
    }

    /// Sets the TLS version of the backend's leg; `None`: it is plain.
    pub(crate) fn encrypted(&mut self, version: Option<TlsVersion>) {
        self.tls = version;
    }

    /// Notes the status that the client got, once per HTTP request; 101 counts as an upgrade, too.
    pub(crate) fn answered(&mut self, status: u16) {
        self.status = status;
        self.listener.requests.fetch_add(1, Relaxed);
        self.listener.responded(status);
        if status == 101 {
            self.listener.upgrades.fetch_add(1, Relaxed);
        }
        if let Some(assigned) = &self.assigned {
            assigned.requests.fetch_add(1, Relaxed);
        }
    }

    /// As [`ConnectionRecord::answered`], for an answer of the backend.
    pub(crate) fn answered_by_backend(&mut self, status: u16) {
        self.answered(status);
        if let Some(assigned) = &self.assigned {
            assigned.responded(status);
        }
        self.first_byte_passed(Side::Backend);
        self.count_first_byte();
    }

    /// Counts a WebSocket whose frames cannot be followed any more.
    pub(crate) fn lost_frames(&self) {
        self.listener.lost_frames.fetch_add(1, Relaxed);
    }

    /// Counts a WebSocket that is closed here without a Close frame.
    pub(crate) fn without_close(&self) {
        self.listener.without_close.fetch_add(1, Relaxed);
    }

    pub(crate) fn host(&self) -> Option<&str> {
        self.names.host()
    }

    pub(crate) fn path(&self) -> Option<&str> {
        self.names.path()
    }

    pub(crate) fn sni(&self) -> Option<&str> {
        self.names.sni()
    }

    /// Tag of the session.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.names.tag()
    }

    /// Subject of the client's certificate.
    pub(crate) fn client_subject(&self) -> Option<&str> {
        self.names.client_subject()
    }

    /// Time since accept (of an HTTP request: since its record was made).
    pub(crate) fn age(&self) -> Duration {
        self.accepted.elapsed()
    }

    /// Notes that the connection is established; writes the line of `log_at` "open", when it is
    /// wanted. One that gets another backend before the first byte is opened again, and is counted
    /// once.
    pub(crate) fn opened(&mut self) {
        self.phase = Phase::Relay;
        if std::mem::replace(&mut self.stage, RecordStage::Opened) != RecordStage::SetUp {
            return;
        }
        self.listener.times.setup.observe(self.age());
        self.trace_opened();
        if self.listener.journal.log_at().open {
            self.listener.journal.write(&self.line(LogEvent::Open));
        }
    }

    /// Time until the next interval line, zero when it is due; `None` when no such lines are
    /// wanted. A reload of `[access_log]` changes it, so ask at every sweep.
    pub(crate) fn interval_due(&self) -> Option<Duration> {
        let latest = Duration::from_secs(self.last_line_seconds.into());
        let due = || {
            latest
                .saturating_add(self.listener.journal.interval())
                .saturating_sub(self.age())
        };
        self.listener.journal.log_at().interval.then(due)
    }

    /// Writes the interval line and updates the byte counters.
    pub(crate) fn interval(&mut self) {
        self.tally();
        self.last_line_seconds = u32::try_from(self.age().as_secs()).unwrap_or(u32::MAX);
        if self.listener.journal.log_at().interval {
            self.listener.journal.write(&self.line(LogEvent::Interval));
        }
    }

    /// Finishes the record: counts the connection and writes its line.
    pub(crate) fn finish(mut self, end: Termination) {
        self.close(end);
    }

    fn close(&mut self, end: Termination) {
        self.stage = RecordStage::Ended;
        self.tally();
        self.listener.ends.count(end);
        if self.phase == Phase::Relay {
            self.listener.times.session.observe(self.age());
        }
        if let Some(refusal) = Refusal::of(end) {
            self.listener.refused.count(refusal);
        }
        if end.phase == Phase::Tls {
            self.listener.handshake_failures.fetch_add(1, Relaxed);
        }
        if self.listener.journal.log_at().end
            && !self.is_left_out(end)
            && let Some(skipped) = self.admit_line(end.phase)
        {
            self.listener.journal.write(&LogLine {
                skipped,
                ..self.line(LogEvent::End(end))
            });
        }
        self.trace_ended(Some(end));
        // Behind the line: a drain that sees no connection left has all lines written.
        self.listener.live.fetch_sub(1, Release);
    }

    /// Whether no line is written: `log_null = false`, and no byte has come or gone, as with a
    /// probe or a connection opened in advance. Refused connections have a line, and so do those
    /// that one has reported as open.
    fn is_left_out(&self, end: Termination) -> bool {
        let moved = self.bytes_from_client + self.bytes_from_backend > 0;
        let spoke = self.heard || moved || self.status != 0;
        let theirs = end.side == Side::Client || end.how == Cause::Timeout;
        !spoke && theirs && self.listener.journal.leaves_null_out()
    }

    /// Returns how many lines were left out before this one; `None`: leave this one out, too.
    fn admit_line(&self, phase: Phase) -> Option<u64> {
        match phase {
            Phase::Accept | Phase::Tls | Phase::Head => self
                .listener
                .early_lines
                .admit(Timestamp::now().since_origin()),
            _ => Some(0),
        }
    }

    /// Updates the byte counters, so that a session of hours is seen in the metrics while it lasts.
    /// It costs two comparisons when nothing has moved.
    pub(crate) fn tally(&mut self) {
        self.count_first_byte();
        if self.counted == (self.bytes_from_client, self.bytes_from_backend) {
            return;
        }
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
            assigned.bytes_from_client.fetch_add(from_client, Relaxed);
            assigned.bytes_from_backend.fetch_add(from_backend, Relaxed);
        }
    }

    /// Name of the listener.
    pub(crate) fn listener(&self) -> &Arc<str> {
        &self.listener.name
    }

    /// Names of the assigned pool and backend.
    pub(crate) fn assignment(&self) -> Option<(&Arc<str>, &Arc<str>)> {
        let assigned = self.assigned.as_ref()?;
        Some((&assigned.pool, &assigned.name))
    }

    /// Copies what is known of the connection now.
    pub(crate) fn summary(&self) -> Summary {
        let assigned = self.assigned.as_ref();
        Summary {
            id: self.id,
            listener: Arc::clone(&self.listener.name),
            client: self.client,
            pool: assigned.map(|assigned| Arc::clone(&assigned.pool)),
            backend: assigned.map(|assigned| Arc::clone(&assigned.name)),
            age: self.age(),
            bytes_from_client: self.bytes_from_client,
            bytes_from_backend: self.bytes_from_backend,
            names: RequestNames::clone(&self.names),
        }
    }

    fn connect_time(&self) -> Option<Duration> {
        let known = self.connect_time != UNKNOWN_TIME;
        known.then(|| Duration::from_micros(self.connect_time.into()))
    }

    fn line(&self, event: LogEvent) -> LogLine<'_> {
        let assigned = self.assigned.as_deref();
        LogLine {
            time: SystemTime::now(),
            id: self.id,
            event,
            listener: &self.listener.name,
            client: self.client,
            names: &self.names,
            trace_id: self.trace_id(),
            status: (self.status != 0).then_some(self.status),
            pool: assigned.map(|assigned| &*assigned.pool),
            backend: assigned.map(|assigned| &*assigned.name),
            tries: self.tries.into(),
            connect_time: self.connect_time(),
            backend_tls: self.tls,
            duration: self.age(),
            bytes_from_client: self.bytes_from_client,
            bytes_from_backend: self.bytes_from_backend,
            resumed: None,
            skipped: 0,
        }
    }
}

impl Drop for ConnectionRecord {
    fn drop(&mut self) {
        if self.stage != RecordStage::Ended {
            self.close(Termination::new(Side::Evenkeel, self.phase, Cause::Panic));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::{AccessLog, LogAt, LogFormat, LogOutput};
    use crate::observe::Journal;

    fn journal(log_at: LogAt, path: &std::path::Path) -> Arc<Journal> {
        let settings = AccessLog {
            output: LogOutput::File(path.into()),
            format: LogFormat::Json,
            log_at,
            interval: Duration::from_secs(3600),
            max_queue: 100,
            log_null: true,
        };
        Journal::new(&settings).unwrap()
    }

    fn quiet() -> Arc<Journal> {
        journal(
            LogAt {
                open: false,
                interval: false,
                resume: false,
                end: false,
            },
            "/dev/null".as_ref(),
        )
    }

    fn listener(journal: &Arc<Journal>) -> Arc<ListenerCounters> {
        ListenerCounters::new("chat", journal)
    }

    fn record(listener: &Arc<ListenerCounters>) -> ConnectionRecord {
        ConnectionRecord::new(listener, Peer::Unix)
    }

    const FIN: Termination = Termination::new(Side::Client, Phase::Relay, Cause::Fin);

    #[test]
    fn the_query_is_never_kept() {
        let listener = listener(&quiet());
        let mut record = record(&listener);
        record.set_request("GET", Some("a.example"), "/socket?token=secret#x");
        assert_eq!(record.path(), Some("/socket"));
        record.finish(FIN);
    }

    #[test]
    fn host_and_path_are_cut_each() {
        let listener = listener(&quiet());
        let mut record = record(&listener);
        record.set_request("GET", Some(&"h".repeat(100)), &"/".repeat(100));
        assert_eq!(record.path().map(str::len), Some(100));
        record.set_request("GET", None, &"/".repeat(200));
        assert_eq!(record.path().map(str::len), Some(128));
        record.set_request("GET", Some(&"h".repeat(1000)), "/x");
        assert_eq!(
            (record.host().map(str::len), record.path()),
            (Some(128), Some("/x"))
        );
        record.finish(FIN);
    }

    #[test]
    fn an_end_counts_once_and_is_no_longer_live() {
        let listener = listener(&quiet());
        let record = record(&listener);
        assert_eq!(listener.live.load(Relaxed), 1);
        record.finish(FIN);
        assert_eq!(listener.live.load(Relaxed), 0);
        assert_eq!(listener.ends.seen(), vec![(FIN, 1)]);
    }

    /// A drain that saw no connection left answered before the last line was in the queue.
    #[test]
    fn a_connection_is_live_until_its_line_is_queued() {
        let log_at = LogAt {
            open: false,
            interval: false,
            resume: false,
            end: true,
        };
        let journal = journal(log_at, "/dev/null".as_ref());
        let listener = listener(&journal);
        let record = record(&listener);
        std::thread::scope(|scope| {
            let held = journal.hold();
            scope.spawn(move || record.finish(FIN));
            while listener.ends.seen().is_empty() {
                std::thread::yield_now();
            }
            assert_eq!(listener.live.load(Relaxed), 1);
            drop(held);
        });
        assert_eq!(listener.live.load(Relaxed), 0);
    }

    #[test]
    fn a_record_dropped_without_an_end_is_a_panic_of_ours() {
        let listener = listener(&quiet());
        let mut record = record(&listener);
        record.enter(Phase::Connect);
        drop(record);
        let panic = Termination::new(Side::Evenkeel, Phase::Connect, Cause::Panic);
        assert_eq!(listener.ends.seen(), vec![(panic, 1)]);
    }

    #[test]
    fn bytes_count_while_it_lasts_and_count_once() {
        let listener = listener(&quiet());
        let backend = BackendCounters::new("chat".into(), "n1".into(), Arc::default());
        let mut record = record(&listener);
        record.assigned(&backend);
        record.bytes_from_client = 10;
        record.tally();
        assert_eq!(listener.bytes_from_client.load(Relaxed), 10);
        record.interval();
        record.bytes_from_client = 25;
        record.bytes_from_backend = 5;
        record.finish(FIN);
        assert_eq!(listener.bytes_from_client.load(Relaxed), 25);
        assert_eq!(backend.bytes_from_client.load(Relaxed), 25);
        assert_eq!(backend.bytes_from_backend.load(Relaxed), 5);
    }

    #[test]
    fn each_moment_that_is_wanted_has_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let journal = journal(
            LogAt {
                open: true,
                interval: true,
                resume: false,
                end: true,
            },
            &path,
        );
        let mut record = record(&listener(&journal));
        record.opened();
        assert!(
            record
                .interval_due()
                .is_some_and(|due| due > Duration::from_secs(3000))
        );
        record.interval();
        record.finish(FIN);
        assert!(journal.flush(Duration::from_secs(30)));
        let events: Vec<String> = std::fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["event"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        assert_eq!(events, ["open", "interval", "end"]);
    }

    #[test]
    fn no_interval_line_is_due_when_none_is_wanted() {
        let record = record(&listener(&quiet()));
        assert_eq!(record.interval_due(), None);
        record.finish(FIN);
    }

    #[test]
    fn a_failed_handshake_is_counted_as_such() {
        let listener = listener(&quiet());
        record(&listener).finish(Termination::new(Side::Client, Phase::Tls, Cause::Invalid));
        assert_eq!(listener.handshake_failures.load(Relaxed), 1);
    }

    fn times(histogram: &crate::observe::Histogram) -> u64 {
        histogram.buckets().map(|(_, count)| count).sum()
    }

    #[test]
    fn a_connection_that_is_opened_again_is_counted_once_and_one_that_is_refused_is_no_session() {
        let listener = listener(&quiet());
        let mut served = record(&listener);
        served.opened();
        served.enter(Phase::Connect);
        served.opened();
        assert_eq!(times(&listener.times.setup), 1);
        served.finish(FIN);
        let mut refused = record(&listener);
        refused.opened();
        refused.enter(Phase::Connect);
        refused.finish(Termination::new(Side::Backend, Phase::Connect, Cause::Fin));
        assert_eq!(times(&listener.times.session), 1);
    }

    #[test]
    fn a_session_that_has_moved_waits_for_no_first_byte() {
        let backend = |name: &str| {
            let times = Arc::<crate::observe::PoolTimes>::default();
            BackendCounters::new("chat".into(), name.into(), times)
        };
        let (n1, n2) = (backend("n1"), backend("n2"));
        let mut record = record(&listener(&quiet()));
        record.assigned(&n1);
        record.connected(Duration::ZERO);
        record.opened();
        record.reassigned(&n2, Duration::ZERO);
        record.first_byte_passed(Side::Backend);
        record.tally();
        let seen =
            |one: &BackendCounters| (times(&one.times.connect), times(&one.times.first_byte));
        assert_eq!((seen(&n1), seen(&n2)), ((1, 0), (1, 0)));
        record.finish(FIN);
    }

    #[test]
    fn an_upgrade_is_a_request_too() {
        let listener = listener(&quiet());
        let mut record = record(&listener);
        record.answered(101);
        record.finish(FIN);
        assert_eq!(
            (
                listener.requests.load(Relaxed),
                listener.upgrades.load(Relaxed)
            ),
            (1, 1)
        );
    }
}
