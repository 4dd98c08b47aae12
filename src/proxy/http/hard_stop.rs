//! Moments at which HTTP exchanges that outlast a stop are ended: each at random in the stop's last
//! part, so that its client does not come back together with all the others. The relay spreads its
//! sessions by itself.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// The part of the time that the moments are spread over. In the rest the last ones are recorded
/// before the process ends.
const USED: f64 = 0.95;

/// A plan of these moments, made once, when the stop begins.
#[derive(Debug, Default)]
pub(crate) struct HardStop(OnceLock<(Instant, Duration)>);

impl HardStop {
    /// Plans to end what is live at `from` within `spread` after it. The first plan counts.
    pub(crate) fn plan(&self, from: Instant, spread: Duration) {
        let _ = self.0.set((from, spread));
    }

    /// Waits for the moment of one exchange; for ever when nothing was planned.
    ///
    /// # Cancel safety
    /// A later call waits for another moment.
    pub(super) async fn moment(&self) {
        match self.0.get() {
            Some((from, spread)) => {
                let share = USED * fastrand::f64();
                tokio::time::sleep_until(*from + spread.mul_f64(share)).await;
            }
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every exchange once ended in the same moment, when the process left.
    #[tokio::test(start_paused = true)]
    async fn moments_are_spread_over_the_planned_time() {
        let (start, stop) = (Instant::now(), HardStop::default());
        let (wait, spread) = (Duration::from_secs(10), Duration::from_secs(100));
        stop.plan(start + wait, spread);
        let waiting = (0..1_000).map(|_| async {
            stop.moment().await;
            start.elapsed()
        });
        let mut ends = futures_util::future::join_all(waiting).await;
        ends.sort();
        for (tenth, ended) in ends.chunks(100).enumerate() {
            let middle = wait + spread.mul_f64(USED * (tenth as f64 + 0.5) / 10.0);
            assert!(ended[50].abs_diff(middle) < spread / 10, "{:?}", ended[50]);
        }
        assert!(ends[0] >= wait && ends[999] < wait + spread);
    }
}
