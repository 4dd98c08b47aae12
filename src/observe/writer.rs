//! Thread that writes the access log. It formats lines and writes them in batches, and alone waits
//! for a disk or a pipe. An error is logged at most once a minute, and the lines it cost are
//! counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::flush::Flushed;
use super::line::LogLine;
use super::output::LogSink;
use crate::config::LogFormat;

/// Size of a batch: large enough to make system calls rare.
const MAX_BATCH_BYTES: usize = 64 * 1024;
/// Time between two messages about a log that cannot be written (a full disk fails every write).
const ERROR_INTERVAL: Duration = Duration::from_secs(60);

/// Order for the writer.
pub(super) enum WriterOrder {
    Write(Box<LogLine>),
    Replace(LogSink, LogFormat),
    Reopen,
    /// Acknowledged when everything before it is written.
    Flush(Flushed),
}

/// State that the writer shares with its journal.
#[derive(Debug, Default)]
pub(super) struct WriterShared {
    /// Lines ordered and not yet written.
    pub queued: AtomicUsize,
    /// Lines that were lost: the queue was full, or the output could not be written.
    pub dropped: AtomicU64,
    /// Batches that the writer has written or lost.
    pub batches: AtomicU64,
}

/// Starts the thread; it ends when every sender is gone and all is written.
pub(super) fn start(
    output: LogSink,
    format: LogFormat,
    load: Arc<WriterShared>,
) -> std::io::Result<Sender<WriterOrder>> {
    let (orders, received) = channel();
    let writer = LogWriter {
        output,
        format,
        load,
        batch: String::new(),
        lines: 0,
        error_logged_at: None,
    };
    std::thread::Builder::new()
        .name("access-log".into())
        .spawn(move || writer.run(&received))?;
    Ok(orders)
}

struct LogWriter {
    output: LogSink,
    format: LogFormat,
    load: Arc<WriterShared>,
    /// Formatted, not yet written.
    batch: String,
    /// Lines in `batch`.
    lines: u64,
    /// Time of the last message about an error.
    error_logged_at: Option<Instant>,
}

impl LogWriter {
    fn run(mut self, orders: &Receiver<WriterOrder>) {
        while let Ok(order) = orders.recv() {
            self.handle(order);
            while self.batch.len() < MAX_BATCH_BYTES
                && let Ok(order) = orders.try_recv()
            {
                self.handle(order);
            }
            self.write_batch();
        }
    }

    fn handle(&mut self, order: WriterOrder) {
        match order {
            WriterOrder::Write(line) => {
                self.load.queued.fetch_sub(1, Relaxed);
                line.format(self.format, &mut self.batch);
                self.lines += 1;
            }
            WriterOrder::Replace(output, format) => {
                self.write_batch();
                (self.output, self.format) = (output, format);
                self.error_logged_at = None;
            }
            WriterOrder::Reopen => {
                self.write_batch();
                self.reopen();
            }
            WriterOrder::Flush(done) => {
                self.write_batch();
                done.acknowledge();
            }
        }
    }

    fn reopen(&mut self) {
        match self.output.reopen() {
            Ok(()) => info!("access log reopened"),
            Err(error) => error!(%error, "access log not reopened, the present file stays in use"),
        }
    }

    fn write_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if let Err(error) = self.output.write(self.batch.as_bytes()) {
            self.load.dropped.fetch_add(self.lines, Relaxed);
            self.log_error(&error);
        }
        self.load.batches.fetch_add(1, Relaxed);
        self.batch.clear();
        self.lines = 0;
    }

    fn log_error(&mut self, error: &std::io::Error) {
        if self
            .error_logged_at
            .is_some_and(|latest| latest.elapsed() < ERROR_INTERVAL)
        {
            return;
        }
        self.error_logged_at = Some(Instant::now());
        let dropped = self.load.dropped.load(Relaxed);
        error!(%error, dropped, "access log cannot be written, its lines are lost");
    }
}
