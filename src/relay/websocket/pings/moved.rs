//! Pings on their way to another relay.

use super::{PingedLeg, Pings};
use crate::relay::clock::{Tick, Ticks};
use crate::wire::moved::{MovedPing, MovedPings};

impl Pings {
    pub(in crate::relay::websocket) fn export(&self, now: Tick) -> MovedPings {
        let [client, backend] = self.legs.each_ref().map(|leg| MovedPing {
            is_watched: leg.is_watched,
            heard_ms: now.age_ms(leg.heard),
            asked_ms: leg.asked.map(|asked| now.age_ms(asked)),
            delivered: leg.delivered,
        });
        MovedPings {
            interval_ms: self.interval.milliseconds(),
            timeout_ms: self.timeout.milliseconds(),
            count: self.count,
            client,
            backend,
        }
    }

    pub(in crate::relay::websocket) fn import(moved: &MovedPings, now: Tick) -> Pings {
        Pings {
            interval: Ticks::of_milliseconds(moved.interval_ms),
            timeout: Ticks::of_milliseconds(moved.timeout_ms),
            count: moved.count,
            legs: [moved.client, moved.backend].map(|leg| PingedLeg {
                is_watched: leg.is_watched,
                heard: now.before_ms(leg.heard_ms),
                asked: leg.asked_ms.map(|asked| now.before_ms(asked)),
                delivered: leg.delivered,
            }),
        }
    }
}
