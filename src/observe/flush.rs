//! Wait for a writer thread at the end of the process, as long as it makes progress.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Longest pause of a pipe that is not stuck: its reader is gone or stands still.
pub(super) const STUCK: Duration = Duration::from_millis(200);

/// Order that is acknowledged when all before it is written.
#[derive(Debug)]
pub(super) struct Flushed(SyncSender<()>);

impl Flushed {
    pub(super) fn acknowledge(self) {
        // The caller may have given up.
        let _ = self.0.try_send(());
    }
}

/// Orders a flush and waits for it, at most `timeout`.
pub(super) fn written_by(
    timeout: Duration,
    order: impl Fn(Flushed) -> Result<(), Flushed>,
) -> bool {
    let (done, acknowledged) = sync_channel(1);
    order(Flushed(done)).is_ok() && acknowledged.recv_timeout(timeout).is_ok()
}

/// Orders a flush and waits for it, at most `timeout`. `written` counts what the writer has
/// written; the wait ends when it does not grow for [`STUCK`]. `order` returns the flush while
/// there is no room for it.
pub(super) fn written_out(
    timeout: Duration,
    written: &AtomicU64,
    order: impl Fn(Flushed) -> Result<(), Flushed>,
) -> bool {
    let until = Instant::now() + timeout;
    let (done, acknowledged) = sync_channel(1);
    let mut unordered = Some(Flushed(done));
    loop {
        unordered = unordered.and_then(|flushed| order(flushed).err());
        let before = written.load(Relaxed);
        let left = until.saturating_duration_since(Instant::now());
        match acknowledged.recv_timeout(left.min(STUCK)) {
            Ok(()) => return true,
            Err(RecvTimeoutError::Timeout) if left > STUCK && written.load(Relaxed) != before => {}
            Err(_) => return false,
        }
    }
}
