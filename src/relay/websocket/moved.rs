//! Numbers of a WebSocket that moves to another relay.

use std::time::Duration;

use crate::base::rate::{Bucket, Rate};
use crate::relay::clock::Tick;
use crate::wire::moved::MovedRate;

pub(super) fn export_rate(rate: Rate) -> MovedRate {
    MovedRate {
        count: rate.count(),
        per_ns: nanoseconds(rate.per()),
    }
}

/// `None`: it is out of bounds.
pub(super) fn import_rate(moved: MovedRate) -> Option<Rate> {
    Rate::new(moved.count, Duration::from_nanos(moved.per_ns))
}

/// Nanoseconds until a bucket of this worker is full again.
pub(super) fn left_until_full(bucket: &Bucket, now: Tick) -> u64 {
    nanoseconds(bucket.full_at().saturating_sub(now.since_origin()))
}

/// A bucket of this worker that is full again so much later.
pub(super) fn full_in(left_ns: u64, now: Tick) -> Bucket {
    let left = Duration::from_nanos(left_ns);
    Bucket::full_again_at(now.since_origin().saturating_add(left))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
