//! Producer: one task that looks at the server while somebody views.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::feed::Feed;
use super::observer::Observer;
use crate::server::Server;

/// Between two looks: soon enough for a person who waits for the effect of a click.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks from one measurement of the rates to the next: one second.
const LOOKS_PER_RATE: u32 = 4;
/// Time that events are still kept after the last viewer, who may come back.
const LINGER: Duration = Duration::from_secs(30);

impl Feed {
    /// Sees to it that there is a producer.
    pub(in crate::admin) fn produce(self: &Arc<Self>, server: &Arc<Server>) {
        if self.begin() {
            let run = run(Arc::clone(self), Arc::downgrade(server));
            server.control_runtime().spawn(run);
        }
    }
}

async fn run(feed: Arc<Feed>, server: Weak<Server>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut observer = Observer::default();
    let (mut number, mut viewed) = (0_u32, Instant::now());
    loop {
        looks.tick().await;
        if feed.has_viewers() {
            viewed = Instant::now();
        } else if viewed.elapsed() >= LINGER && feed.end() {
            return;
        }
        let Some(server) = server.upgrade() else {
            return;
        };
        let with_rates = number.is_multiple_of(LOOKS_PER_RATE);
        number = number.wrapping_add(1);
        if with_rates {
            server.relay().tally().await;
        }
        feed.publish(observer.look(&server, with_rates));
        feed.note_look();
    }
}
