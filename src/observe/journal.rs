//! Journal: front of the access log. A line goes to the writer thread through a bounded queue. When
//! that is full the line is dropped and counted, so the data path never waits for a disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::flush::{written_by, written_out};
use super::line::LogLine;
use super::output::LogSink;
use super::queue::{LineQueue, WriterOrder};
use super::traces::Tracer;
use super::writer::{self, WriterCounts};
use crate::config::{AccessLog, LogAt, LogOutput};

#[derive(Debug)]
pub struct Journal {
    settings: ArcSwap<AccessLog>,
    counts: Arc<WriterCounts>,
    /// Its lines are bounded by `max_queue`, the other orders are rare.
    queue: Arc<LineQueue>,
    latest_id: AtomicU64,
    tracer: Tracer,
}

/// Access log that is opened and ready to replace the present one.
#[derive(Debug)]
pub struct Prepared {
    settings: AccessLog,
    output: LogSink,
}

impl Journal {
    /// # Errors
    /// When the file cannot be opened or the thread not started.
    pub fn new(settings: &AccessLog) -> io::Result<Arc<Journal>> {
        let output = LogSink::open(&settings.output)?;
        let counts = Arc::new(WriterCounts::default());
        let queue = Arc::new(LineQueue::new(settings.format));
        writer::start(output, Arc::clone(&queue), Arc::clone(&counts))?;
        let settings = ArcSwap::from_pointee(settings.clone());
        Ok(Arc::new(Journal {
            settings,
            counts,
            queue,
            latest_id: AtomicU64::new(0),
            tracer: Tracer::default(),
        }))
    }

    /// Opens the log of `settings` and changes nothing yet: the part of a reload that may fail.
    ///
    /// # Errors
    /// When the file cannot be opened; the error names it.
    pub fn prepare(settings: &AccessLog) -> io::Result<Prepared> {
        Ok(Prepared {
            settings: settings.clone(),
            output: LogSink::open(&settings.output)?,
        })
    }

    /// Replaces the log from the next line on; what was ordered before goes to the former output.
    pub fn apply(&self, prepared: Prepared) {
        let order = WriterOrder::Replace(prepared.output);
        self.queue.replace(order, prepared.settings.format);
        self.settings.store(Arc::new(prepared.settings));
    }

    /// Opens the file again by its path (SIGUSR1, after a rotation). An error is logged and the
    /// present file stays.
    pub fn reopen(&self) {
        self.queue.order(WriterOrder::Reopen);
    }

    /// Lines lost since the start: the queue was full, or the output could not be written.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Relaxed)
    }

    /// Waits until all lines so far are written, at most `timeout`, and no longer than standard
    /// output accepts lines; blocks the thread. False when something was left.
    pub fn flush(&self, timeout: Duration) -> bool {
        let order = |flushed| {
            self.queue.order(WriterOrder::Flush(flushed));
            Ok(())
        };
        match self.settings.load().output {
            LogOutput::Stdout => written_out(timeout, &self.counts.batches, order),
            // A disk may pause, and its lines are nowhere else.
            LogOutput::Off | LogOutput::File(_) => written_by(timeout, order),
        }
    }

    /// Stops all who write a line.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Drop + '_ {
        self.queue.hold()
    }

    /// Events that have a line: none while the log is off.
    pub(super) fn log_at(&self) -> LogAt {
        let settings = self.settings.load();
        match settings.output {
            LogOutput::Off => LogAt {
                open: false,
                interval: false,
                resume: false,
                end: false,
            },
            LogOutput::Stdout | LogOutput::File(_) => settings.log_at,
        }
    }

    /// Whether connections without a byte get no line: none has said that they opened.
    pub(super) fn leaves_null_out(&self) -> bool {
        let settings = self.settings.load();
        !settings.log_null && !settings.log_at.open
    }

    /// Time between two interval lines.
    pub(super) fn interval(&self) -> Duration {
        self.settings.load().interval
    }

    /// Traces of the connections that have a line here.
    pub(crate) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    pub(super) fn next_id(&self) -> u64 {
        self.latest_id.fetch_add(1, Relaxed) + 1
    }

    /// The last id that was given.
    pub(crate) fn latest_id(&self) -> u64 {
        self.latest_id.load(Relaxed)
    }

    /// Gives ids above `id` only, from now on.
    pub(crate) fn skip_ids_to(&self, id: u64) {
        self.latest_id.fetch_max(id, Relaxed);
    }

    /// Counts lines that another process has lost.
    pub(crate) fn add_dropped(&self, lines: u64) {
        self.counts.dropped.fetch_add(lines, Relaxed);
    }

    pub(super) fn write(&self, line: &LogLine<'_>) {
        if !self.queue.push(line, self.settings.load().max_queue) {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;
    use crate::net::Peer;
    use crate::observe::{Cause, ConnectionRecord, ListenerCounters, Phase, Side, Termination};

    const END: Termination = Termination::new(Side::Client, Phase::Relay, Cause::Fin);
    const PATIENCE: Duration = Duration::from_secs(30);

    fn settings(output: LogOutput) -> AccessLog {
        AccessLog {
            output,
            format: LogFormat::Json,
            log_at: LogAt {
                open: false,
                interval: false,
                resume: false,
                end: true,
            },
            interval: Duration::from_secs(3600),
            max_queue: 8,
            log_null: true,
        }
    }

    fn file(path: &std::path::Path) -> AccessLog {
        settings(LogOutput::File(path.into()))
    }

    fn finish_one(journal: &Arc<Journal>) {
        ConnectionRecord::new(&ListenerCounters::new("chat", journal), Peer::Unix).finish(END);
    }

    fn lines(path: &std::path::Path) -> usize {
        std::fs::read_to_string(path).unwrap().lines().count()
    }

    #[test]
    fn what_does_not_fit_the_queue_is_dropped_and_counted() {
        let queue = Arc::new(LineQueue::new(LogFormat::Json));
        let journal = Arc::new(Journal {
            settings: ArcSwap::from_pointee(settings(LogOutput::Stdout)),
            counts: Arc::default(),
            queue: Arc::clone(&queue),
            latest_id: AtomicU64::new(0),
            tracer: Tracer::default(),
        });
        (0..11).for_each(|_| finish_one(&journal));
        assert_eq!(journal.dropped(), 3);
        let orders = queue.take(None).unwrap();
        let [WriterOrder::Lines(lines)] = orders.as_slice() else {
            panic!("{orders:?}")
        };
        assert_eq!(lines.lines().count(), 8);
    }

    #[test]
    fn lines_on_a_full_disk_are_counted_and_nothing_blocks() {
        let journal = Journal::new(&file("/dev/full".as_ref())).unwrap();
        finish_one(&journal);
        assert!(journal.flush(PATIENCE));
        assert_eq!(journal.dropped(), 1);
    }

    #[test]
    fn flush_waits_for_every_line_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let journal = Journal::new(&file(&path)).unwrap();
        (0..5).for_each(|_| finish_one(&journal));
        assert!(journal.flush(PATIENCE));
        assert_eq!(lines(&path), 5);
    }

    #[test]
    fn a_new_output_takes_over_with_the_next_line() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a.log"), folder.path().join("b.log"));
        let journal = Journal::new(&file(&first)).unwrap();
        finish_one(&journal);
        journal.apply(Journal::prepare(&file(&second)).unwrap());
        finish_one(&journal);
        assert!(journal.flush(PATIENCE));
        assert_eq!((lines(&first), lines(&second)), (1, 1));
    }

    #[test]
    fn an_output_that_cannot_be_opened_keeps_the_present_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let journal = Journal::new(&file(&path)).unwrap();
        assert!(Journal::prepare(&file("/nowhere/b.log".as_ref())).is_err());
        finish_one(&journal);
        assert!(journal.flush(PATIENCE));
        assert_eq!(lines(&path), 1);
    }

    #[test]
    fn reopen_follows_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("a.log"), folder.path().join("a.log.1"));
        let journal = Journal::new(&file(&path)).unwrap();
        finish_one(&journal);
        assert!(journal.flush(PATIENCE));
        std::fs::rename(&path, &rotated).unwrap();
        journal.reopen();
        finish_one(&journal);
        assert!(journal.flush(PATIENCE));
        assert_eq!((lines(&path), lines(&rotated)), (1, 1));
    }

    #[test]
    fn nothing_is_ordered_while_the_log_is_off() {
        let journal = Journal::new(&AccessLog {
            max_queue: 0,
            ..settings(LogOutput::Off)
        })
        .unwrap();
        finish_one(&journal);
        assert_eq!(journal.dropped(), 0);
    }
}
