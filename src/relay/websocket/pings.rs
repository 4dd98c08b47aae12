//! Pings of our own: when each leg was heard last, and which ping it has to answer.

mod moved;

use std::time::Duration;

use crate::config::Ping;
use crate::relay::clock::{Tick, Ticks};
use crate::wire::control::PING_BYTES;

/// Pings of one session.
pub(super) struct Pings {
    interval: Ticks,
    timeout: Ticks,
    count: u32,
    /// The client's and the backend's.
    legs: [PingedLeg; 2],
}

/// Bytes that a leg has taken and given.
#[derive(Clone, Copy)]
pub(in crate::relay) struct LegProgress {
    /// Bytes that it has still to take, ours before its answer.
    pub unsent: usize,
    /// Bytes that it has taken.
    pub delivered: u64,
    /// Bytes of it are not read, because the other leg takes nothing: its answer may be among them.
    pub is_unread: bool,
}

/// Outcome of a look at the legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) enum PingOutcome {
    AllAlive,
    /// A ping is to be written.
    Pinged,
    /// This side has not answered.
    Dead(usize),
}

struct PingedLeg {
    /// The policy has pings for it.
    is_watched: bool,
    heard: Tick,
    /// When our ping that was not answered yet was written, or was to be.
    asked: Option<Tick>,
    /// Bytes that the leg had taken at the last look.
    delivered: u64,
}

impl Pings {
    pub(super) fn new(ping: &Ping, now: Tick) -> Pings {
        let [client, backend] = [ping.client, ping.backend].map(|is_watched| PingedLeg {
            is_watched,
            heard: now,
            asked: None,
            delivered: 0,
        });
        Pings {
            interval: ping.interval.into(),
            timeout: ping.timeout.into(),
            count: 0,
            legs: [client, backend],
        }
    }

    /// A frame has come from this leg.
    pub(super) fn heard(&mut self, side: usize, now: Tick) {
        let leg = &mut self.legs[side & 1];
        leg.heard = now;
        leg.asked = None;
    }

    /// A frame of ours went to this leg.
    pub(super) fn written(&mut self, side: usize, now: Tick) {
        let leg = &mut self.legs[side & 1];
        leg.asked = leg.asked.map(|_| now);
    }

    /// Time until this leg is to be pinged, or is dead.
    pub(super) fn due_in(&self, side: usize, now: Tick) -> Option<Duration> {
        let leg = &self.legs[side & 1];
        // A leg that was asked once is awaited, whatever the policy says.
        (leg.is_watched || leg.asked.is_some()).then(|| match leg.asked {
            Some(asked) => self.timeout.left(now.since(asked)),
            None => self.interval.left(now.since(leg.heard)),
        })
    }

    /// Whether an answer of this leg is awaited.
    pub(super) fn is_asked(&self, side: usize) -> bool {
        self.legs[side & 1].asked.is_some()
    }

    /// Gives a leg whose time is over as much once more where it may have answered, or takes the
    /// bytes before our ping one by one: it is slow, not dead. False: it is dead.
    pub(super) fn wait_longer(
        &mut self,
        side: usize,
        has_insert: bool,
        taken: LegProgress,
        now: Tick,
    ) -> bool {
        let leg = &mut self.legs[side & 1];
        let is_slow = has_insert || {
            let before = std::mem::replace(&mut leg.delivered, taken.delivered);
            taken.is_unread || (taken.unsent > 0 && taken.delivered > before)
        };
        if is_slow {
            leg.asked = Some(now);
        }
        is_slow
    }

    /// The payload of a ping for this leg, which has taken so many bytes. `None`: an answer is
    /// awaited already.
    pub(super) fn ask(
        &mut self,
        side: usize,
        delivered: u64,
        now: Tick,
    ) -> Option<[u8; PING_BYTES]> {
        let leg = &mut self.legs[side & 1];
        if leg.asked.is_some() {
            return None;
        }
        leg.asked = Some(now);
        leg.delivered = delivered;
        self.count = self.count.wrapping_add(1);
        Some(payload(self.count))
    }
}

/// Payload that no peer's own pong has: it begins with a secret of this process.
fn payload(count: u32) -> [u8; PING_BYTES] {
    use std::sync::LazyLock;
    static SECRET: LazyLock<[u8; 4]> = LazyLock::new(|| fastrand::u32(..).to_be_bytes());
    let [a, b, c, d] = *SECRET;
    let [e, f, g, h] = count.to_be_bytes();
    [a, b, c, d, e, f, g, h]
}
