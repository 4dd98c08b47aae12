//! Output of the process's own log: a bounded queue and one thread that writes. No caller waits for
//! a terminal, a pipe or a journal that is stuck; lines that do not fit are dropped, counted and
//! reported.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing::warn;

use super::flush::{Flushed, written_out};

/// Limit of waiting lines; about 1 MB.
const MAX_LINES: usize = 8_192;

/// Dropped lines. Static, as a process has one log.
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum LogOrder {
    Write(Vec<u8>),
    Flush(Flushed),
}

/// Handle that accepts lines.
#[derive(Debug, Clone)]
pub(crate) struct ProcessLog {
    orders: SyncSender<LogOrder>,
    counts: Arc<LineCounts>,
}

#[derive(Debug, Default)]
struct LineCounts {
    /// Lines dropped as the queue was full.
    full: AtomicU64,
    /// Lines that the thread has written or lost.
    written: AtomicU64,
}

impl ProcessLog {
    /// Starts the thread; it ends with the last clone of this.
    ///
    /// # Errors
    /// The kernel refused a thread.
    pub(crate) fn start(output: impl Write + Send + 'static) -> io::Result<ProcessLog> {
        let (orders, received) = sync_channel(MAX_LINES);
        let counts = Arc::default();
        let log = ProcessLog {
            orders,
            counts: Arc::clone(&counts),
        };
        let thread = std::thread::Builder::new().name("log".into());
        thread.spawn(move || write_all(&received, output, &counts))?;
        Ok(log)
    }

    /// Queues one line; never waits.
    pub(crate) fn write(&self, line: &[u8]) {
        if self
            .orders
            .try_send(LogOrder::Write(line.to_vec()))
            .is_err()
        {
            self.counts.full.fetch_add(1, Relaxed);
            DROPPED.fetch_add(1, Relaxed);
        }
    }

    /// Waits until all lines so far are written, at most `timeout`, and no longer than the output
    /// accepts lines; blocks the thread.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        written_out(timeout, &self.counts.written, |flushed| {
            match self.orders.try_send(LogOrder::Flush(flushed)) {
                Ok(()) => Ok(()),
                Err(TrySendError::Full(LogOrder::Flush(flushed))) => Err(flushed),
                // The thread is gone, with its queue.
                Err(_) => Ok(()),
            }
        })
    }
}

/// Counts lines that another process has lost.
pub(crate) fn add_dropped_log_lines(lines: u64) {
    DROPPED.fetch_add(lines, Relaxed);
}

/// Counts the lines that were dropped since the start of the process.
pub(crate) fn dropped_log_lines() -> u64 {
    DROPPED.load(Relaxed)
}

fn write_all(orders: &Receiver<LogOrder>, mut output: impl Write, counts: &LineCounts) {
    let mut reported = 0;
    while let Ok(order) = orders.recv() {
        match order {
            LogOrder::Write(line) => {
                // A log that cannot be written cannot report it: a line about it would fail as
                // well.
                if output
                    .write_all(&line)
                    .and_then(|()| output.flush())
                    .is_err()
                {
                    DROPPED.fetch_add(1, Relaxed);
                }
                counts.written.fetch_add(1, Relaxed);
            }
            LogOrder::Flush(flushed) => flushed.acknowledge(),
        }
        let full = counts.full.load(Relaxed);
        if full != reported {
            reported = full;
            let dropped = dropped_log_lines();
            // Goes through the queue as any other line, in the log's own format.
            warn!(dropped, "log lines were dropped: the output was too slow");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Takes nothing until it is let go; then tells what it gets.
    struct Stuck {
        gate: Option<Receiver<()>>,
        lines: std::sync::mpsc::Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(gate) = self.gate.take() {
                let _ = gate.recv();
            }
            let _ = self.lines.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_output_blocks_nobody_and_its_losses_are_counted() {
        let (open, gate) = channel();
        let (lines, received) = channel();
        let gate = Some(gate);
        let log = ProcessLog::start(Stuck { gate, lines }).unwrap();
        let before = dropped_log_lines();
        // One is in the hands of the thread, at least.
        let all = MAX_LINES + 10;
        (0..all).for_each(|_| log.write(b"x\n"));
        let dropped = dropped_log_lines() - before;
        assert!((9..=10).contains(&dropped), "{dropped}");
        assert!(!log.flush(Duration::from_secs(3600)), "nothing moves");
        open.send(()).unwrap();
        let patience = Duration::from_secs(30);
        let taken = all - usize::try_from(dropped).unwrap();
        for _ in 0..taken {
            received.recv_timeout(patience).unwrap();
        }
        assert!(log.flush(patience));
    }
}
