//! Keeping work beside a pool in step with it: the loop of whoever starts and ends tasks as its membership changes.

use tokio_util::sync::CancellationToken;

use crate::pool::Pool;

/// Calls `adjust` at once and after every change of the pool's membership, addresses or settings, until `stop` is
/// cancelled. Changes that come close together are one.
///
/// # Cancel safety
/// Nothing is lost by dropping it; what `adjust` started is its owner's.
pub async fn watch_membership(pool: &Pool, stop: &CancellationToken, mut adjust: impl FnMut()) {
    let mut changed = pool.changed();
    loop {
        changed.borrow_and_update();
        adjust();
        let more = tokio::select! {
            () = stop.cancelled() => false,
            change = changed.changed() => change.is_ok(),
        };
        if !more {
            return;
        }
    }
}
