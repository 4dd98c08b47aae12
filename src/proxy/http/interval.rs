//! The interval lines of a long HTTP exchange, and its bytes in the counters while it lasts: the
//! relay does the same for its sessions.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::observe::ConnectionRecord;

/// Longest time between two updates, so that interval lines switched on by a reload begin soon; as
/// the relay's longest.
const MAX_SPACING: Duration = Duration::from_secs(30);
/// Shortest time between two updates, so that a line that is due in no time does not spin.
const MIN_SPACING: Duration = Duration::from_millis(50);

/// A timer for the updates of a record.
#[derive(Debug)]
pub(super) struct Interval(Pin<Box<Sleep>>);

impl Interval {
    pub(super) fn of(record: &ConnectionRecord) -> Interval {
        Interval(Box::pin(tokio::time::sleep(spacing(record))))
    }

    /// Whether an update is due; otherwise the task is woken then.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> bool {
        matches!(self.0.as_mut().poll(context), Poll::Ready(()))
    }

    /// Writes the line if one is due, and sets the time of the next update.
    pub(super) fn update(&mut self, record: &mut ConnectionRecord) {
        match record.interval_due() {
            Some(Duration::ZERO) => record.interval(),
            _ => record.tally(),
        }
        let next = Instant::now() + spacing(record);
        self.0.as_mut().reset(next);
    }
}

fn spacing(record: &ConnectionRecord) -> Duration {
    let due = record.interval_due().unwrap_or(MAX_SPACING);
    due.clamp(MIN_SPACING, MAX_SPACING)
}
