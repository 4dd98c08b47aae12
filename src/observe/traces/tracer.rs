//! The process's tracer: decides which traces are recorded, and holds finished spans until they are
//! exported. When its queue is full, spans are dropped and counted; nobody waits.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::span::Span;
use crate::config::{ParentPolicy, Traces};
use crate::observe::metric::{Metric, counters};

counters! {
    /// Counters of the spans of the process. The queue adds to `dropped`, the exporter to all.
    pub(crate) struct TraceCounters {}

    /// Values of [`TraceCounters`] at one moment.
    pub(crate) struct TraceValues {
        /// Spans that the collector has taken
        sent = Metric::counter("trace_spans_sent"),
        /// Spans that were lost: the queue was full, or the collector did not take them
        dropped = Metric::counter("trace_spans_dropped"),
        /// Requests to the collector that failed, the repeated ones among them
        failed = Metric::counter("trace_export_failures"),
    }
}

/// Order for the exporter.
#[derive(Debug)]
pub(crate) enum Spans {
    Finished(Vec<Span>),
    /// Answer once all before it has gone, or is given up.
    Flush(oneshot::Sender<()>),
}

/// Queue of finished spans, on the exporter's side.
pub(crate) type SpanQueue = mpsc::UnboundedReceiver<Spans>;

#[derive(Debug)]
pub(crate) struct Tracer {
    is_on: AtomicBool,
    sample_percent: AtomicU8,
    parent: AtomicU8,
    max_queue: AtomicUsize,
    /// Spans that are queued, or on their way to the collector: they bound the channel.
    queued: AtomicUsize,
    sender: mpsc::UnboundedSender<Spans>,
    /// Present until the exporter has taken it.
    queue: Mutex<Option<SpanQueue>>,
    pub counters: TraceCounters,
}

impl Default for Tracer {
    fn default() -> Tracer {
        let (sender, queue) = mpsc::unbounded_channel();
        Tracer {
            is_on: AtomicBool::new(false),
            sample_percent: AtomicU8::new(0),
            parent: AtomicU8::new(0),
            max_queue: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            sender,
            queue: Mutex::new(Some(queue)),
            counters: TraceCounters::zero(),
        }
    }
}

impl Tracer {
    /// Takes the settings over, for connections that come from now on.
    pub(crate) fn apply(&self, settings: Option<&Traces>) {
        if let Some(settings) = settings {
            self.sample_percent.store(settings.sample_percent, Relaxed);
            self.parent.store(settings.parent as u8, Relaxed);
            self.max_queue.store(settings.max_queue, Relaxed);
        }
        self.is_on.store(settings.is_some(), Relaxed);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// Whether a client's trace is continued. `is_trusted`: it is in the listener's `trusted`.
    pub(crate) fn continues(&self, is_trusted: bool) -> bool {
        let parent = self.parent.load(Relaxed);
        parent == ParentPolicy::Any as u8 || parent == ParentPolicy::Trusted as u8 && is_trusted
    }

    /// Whether a trace that begins here is recorded. Its id decides, so that others who sample by
    /// it choose the same.
    pub(super) fn samples(&self, trace_id: u128) -> bool {
        let percent = u64::from(self.sample_percent.load(Relaxed));
        // 56 random bits, as the standard has them at the end of an id.
        let random = (trace_id as u64) & ((1 << 56) - 1);
        random < percent * ((1 << 56) / 100) || percent >= 100
    }

    /// Queues spans, or drops them where there is no room.
    pub(crate) fn queue(&self, spans: Vec<Span>) {
        let count = spans.len();
        let queued = self.queued.fetch_add(count, Relaxed);
        let has_room = queued + count <= self.max_queue.load(Relaxed);
        if !has_room || self.sender.send(Spans::Finished(spans)).is_err() {
            self.lose(count);
        }
    }

    /// Counts spans of the queue that the collector did not take.
    pub(crate) fn lose(&self, count: usize) {
        self.queued.fetch_sub(count, Relaxed);
        self.counters.dropped.fetch_add(count as u64, Relaxed);
    }

    /// Counts a request to the collector that has failed.
    pub(crate) fn failed(&self) {
        self.counters.failed.fetch_add(1, Relaxed);
    }

    /// Counts spans of the queue that the collector has taken.
    pub(crate) fn sent(&self, count: usize) {
        self.queued.fetch_sub(count, Relaxed);
        self.counters.sent.fetch_add(count as u64, Relaxed);
    }

    /// The queue, for the one exporter.
    pub(crate) fn take_queue(&self) -> Option<SpanQueue> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.take()
    }

    /// Waits until all spans so far are exported, or given up. The caller bounds the time.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.sender.send(Spans::Flush(done)).is_ok() {
            // An exporter that is gone has dropped it.
            let _ = flushed.await;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{RegistryUrl, Traces};

    /// Settings under which so many of a hundred traces are recorded.
    pub fn settings(sample_percent: u8, max_queue: usize) -> Traces {
        Traces {
            endpoint: RegistryUrl::parse("http://127.0.0.1:4318").unwrap(),
            sample_percent,
            parent: ParentPolicy::Any,
            service_name: "evenkeel".to_owned(),
            headers_file: None,
            tls: None,
            timeout: std::time::Duration::from_secs(10),
            max_queue,
        }
    }

    fn span() -> Span {
        Span {
            trace_id: 1,
            span_id: 1,
            parent: None,
            name: "accept",
            kind: super::super::SpanKind::Internal,
            begin: std::time::SystemTime::UNIX_EPOCH,
            end: std::time::SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            events: Vec::new(),
            dropped_events: 0,
            error: None,
        }
    }

    #[test]
    fn spans_beyond_the_queue_are_dropped_and_counted() {
        let tracer = Tracer::default();
        tracer.apply(Some(&settings(100, 3)));
        for _ in 0..3 {
            tracer.queue(vec![span(), span()]);
        }
        assert_eq!(tracer.counters.values().dropped, 4);
        tracer.sent(2);
        tracer.queue(vec![span(), span()]);
        let mut queue = tracer.take_queue().unwrap();
        for _ in 0..2 {
            assert!(matches!(queue.try_recv(), Ok(Spans::Finished(spans)) if spans.len() == 2));
        }
        assert!(queue.try_recv().is_err());
        assert_eq!(
            tracer.counters.values(),
            TraceValues {
                sent: 2,
                dropped: 4,
                failed: 0
            }
        );
    }

    #[test]
    fn the_share_of_recorded_traces_is_the_configured_one() {
        let tracer = Tracer::default();
        for (percent, expected) in [(0, 0..=0), (25, 2_000..=3_000), (100, 10_000..=10_000)] {
            tracer.apply(Some(&settings(percent, 1)));
            let mut random = fastrand::Rng::with_seed(7);
            let recorded = (0..10_000)
                .filter(|_| tracer.samples(random.u128(..)))
                .count();
            assert!(expected.contains(&recorded), "{percent}: {recorded}");
        }
    }

    #[test]
    fn whose_trace_is_continued_is_as_configured() {
        let tracer = Tracer::default();
        for (parent, expected) in [
            (ParentPolicy::Any, [true, true]),
            (ParentPolicy::Trusted, [false, true]),
            (ParentPolicy::None, [false, false]),
        ] {
            tracer.apply(Some(&Traces {
                parent,
                ..settings(1, 1)
            }));
            assert_eq!([false, true].map(|one| tracer.continues(one)), expected);
        }
    }
}
