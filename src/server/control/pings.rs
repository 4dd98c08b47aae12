//! Pings the sessions of a backend that its check has taken down, each once, so that dead ones end
//! and live ones go on, whatever `ping.to` says. Paced: a node in trouble need not answer thousands
//! at once, and the clients of a dead one do not come back in one moment.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::jobs::backend_filter;
use crate::config::defaults;
use crate::pool::{Backend, Pool};
use crate::relay::Relay;

/// Between two portions.
const SPACING: Duration = Duration::from_millis(100);

/// Follows the checks of `pool` until `stop` is cancelled.
///
/// # Cancel safety
/// Dropping the future ends the pings; those that were sent are sent.
pub(in crate::server) async fn follow(pool: Arc<Pool>, relay: Arc<Relay>, stop: CancellationToken) {
    let mut falls = pool.falls();
    let mut pinging = JoinSet::new();
    loop {
        // Each may be dropped: a fall stays marked until it is taken.
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = pinging.join_next() => continue,
            fall = falls.changed() => if fall.is_err() { return },
        }
        let Some(ping) = pool.settings().ping else {
            continue;
        };
        for backend in pool.backends() {
            if backend.take_fall() {
                pinging.spawn(ping_all(Arc::clone(&relay), backend, ping.interval));
            }
        }
    }
}

/// Pings all sessions of `backend` within `interval`, until it is up again.
async fn ping_all(relay: Arc<Relay>, backend: Arc<Backend>, interval: Duration) {
    let sessions = relay.list_all(backend_filter(&backend)).await;
    if !sessions.is_empty() {
        tracing::info!(pool = %backend.pool(), backend = %backend.name(), sessions = sessions.len(), "sessions of a backend that is down are pinged");
    }
    for portion in sessions.chunks(portion(sessions.len(), interval)) {
        if backend.check_up() {
            return;
        }
        for session in portion {
            relay.ping_backend(session.handle);
        }
        tokio::time::sleep(SPACING).await;
    }
}

/// Sessions of `count` to ping at once: the rate of a drain, or more where that would take longer
/// than `within`.
fn portion(count: usize, within: Duration) -> usize {
    let rate = defaults::DRAIN_RATE;
    let usual = rate.count() as f64 * SPACING.as_secs_f64() / rate.per().as_secs_f64();
    let portions = (within.as_secs_f64() / SPACING.as_secs_f64()).max(1.0);
    (count as f64 / portions).max(usual).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_is_that_of_a_drain_or_what_the_interval_needs() {
        let half_a_minute = Duration::from_secs(30);
        assert_eq!(portion(0, half_a_minute), 10);
        assert_eq!(portion(3_000, half_a_minute), 10);
        assert_eq!(portion(30_000, half_a_minute), 100);
        assert_eq!(portion(30_000, Duration::from_millis(1)), 30_000);
    }
}
