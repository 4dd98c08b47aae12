//! Tasks beside a pool that follow its membership, such as checks and lookups.

use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

use super::backend_pool::Pool;

/// Calls `adjust` at once and after every change of the pool's membership, addresses or settings,
/// until `stop` is cancelled. Changes that come close together are one.
///
/// # Cancel safety
/// Nothing is lost by dropping it; tasks that `adjust` started belong to its owner.
pub(crate) async fn watch_membership(
    pool: &Pool,
    stop: &CancellationToken,
    mut adjust: impl FnMut(),
) {
    let mut changes = pool.changed();
    loop {
        changes.borrow_and_update();
        adjust();
        if !membership_changed(&mut changes, stop).await {
            return;
        }
    }
}

/// Waits for a change since `changes`, of [`Pool::changed`], was read; false when `stop` is
/// cancelled or the pool is gone.
pub(crate) async fn membership_changed(
    changes: &mut Receiver<u64>,
    stop: &CancellationToken,
) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        change = changes.changed() => change.is_ok(),
    }
}
