//! The interval lines of a long HTTP exchange, and its bytes in the counters while it lasts: the relay does the same for
//! its sessions.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::observe::ConnectionRecord;

/// Between two looks at most, so that interval lines switched on by a reload begin soon; as the relay's longest.
const LONGEST_LOOK_SPACING: Duration = Duration::from_secs(30);
/// Between two looks at least, so that a line that is due in no time does not spin.
const SHORTEST_LOOK_SPACING: Duration = Duration::from_millis(50);

/// Rings when the record is to be looked at.
#[derive(Debug)]
pub(super) struct Interval(Pin<Box<Sleep>>);

impl Interval {
    pub(super) fn of(record: &ConnectionRecord) -> Interval {
        Interval(Box::pin(tokio::time::sleep(spacing(record))))
    }

    /// True when it is time for a look; otherwise the task is woken then.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> bool {
        matches!(self.0.as_mut().poll(context), Poll::Ready(()))
    }

    /// Writes the line if one is due, and sets the time of the next look.
    pub(super) fn look(&mut self, record: &mut ConnectionRecord) {
        match record.interval_due() {
            Some(Duration::ZERO) => record.interval(),
            _ => record.tally(),
        }
        let next = Instant::now() + spacing(record);
        self.0.as_mut().reset(next);
    }
}

fn spacing(record: &ConnectionRecord) -> Duration {
    let due = record.interval_due().unwrap_or(LONGEST_LOOK_SPACING);
    due.clamp(SHORTEST_LOOK_SPACING, LONGEST_LOOK_SPACING)
}
