//! Thread that writes the access log. It alone waits for a disk or a pipe. An error is logged at
//! most once a minute, and the lines it cost are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::output::LogSink;
use super::queue::{LineQueue, WriterOrder};

/// Time between two messages about a log that cannot be written (a full disk fails every write).
const ERROR_INTERVAL: Duration = Duration::from_secs(60);

/// Counts that the writer shares with its journal.
#[derive(Debug, Default)]
pub(super) struct WriterCounts {
    /// Lines that were lost: the queue was full, or the output could not be written.
    pub dropped: AtomicU64,
    /// Batches that the writer has written or lost.
    pub batches: AtomicU64,
}

/// Starts the thread; it ends when the queue is closed and all is written.
pub(super) fn start(
    output: LogSink,
    queue: Arc<LineQueue>,
    counts: Arc<WriterCounts>,
) -> std::io::Result<()> {
    let writer = LogWriter {
        output,
        queue,
        counts,
        error_logged_at: None,
    };
    std::thread::Builder::new()
        .name("access-log".into())
        .spawn(move || writer.run())?;
    Ok(())
}

struct LogWriter {
    output: LogSink,
    queue: Arc<LineQueue>,
    counts: Arc<WriterCounts>,
    /// Time of the last message about an error.
    error_logged_at: Option<Instant>,
}

impl LogWriter {
    fn run(mut self) {
        let mut taken_at = None;
        while let Some(orders) = self.queue.take(taken_at) {
            taken_at = Some(Instant::now());
            for order in orders {
                self.handle(order);
            }
        }
    }

    fn handle(&mut self, order: WriterOrder) {
        match order {
            WriterOrder::Lines(lines) => {
                self.write_batch(&lines);
                self.queue.give_back(lines);
            }
            WriterOrder::Replace(output) => {
                self.output = output;
                self.error_logged_at = None;
            }
            WriterOrder::Reopen => self.reopen(),
            WriterOrder::Flush(done) => done.acknowledge(),
        }
    }

    fn reopen(&mut self) {
        match self.output.reopen() {
            Ok(()) => info!("access log reopened"),
            Err(error) => error!(%error, "access log not reopened, the present file stays in use"),
        }
    }

    fn write_batch(&mut self, batch: &str) {
        let lines = batch.bytes().filter(|byte| *byte == b'\n').count();
        if let Err(error) = self.output.write(batch.as_bytes()) {
            self.counts.dropped.fetch_add(lines as u64, Relaxed);
            self.log_error(&error);
        }
        self.counts.batches.fetch_add(1, Relaxed);
        self.queue.written(lines);
    }

    fn log_error(&mut self, error: &std::io::Error) {
        if self
            .error_logged_at
            .is_some_and(|latest| latest.elapsed() < ERROR_INTERVAL)
        {
            return;
        }
        self.error_logged_at = Some(Instant::now());
        let dropped = self.counts.dropped.load(Relaxed);
        error!(%error, dropped, "access log cannot be written, its lines are lost");
    }
}
