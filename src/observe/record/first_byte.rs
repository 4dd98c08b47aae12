//! The wait for a backend's first byte. The data path notes it in the record, without a write that
//! other threads would see; the next look at the byte counters adds it to the pool's histogram.

use std::time::Duration;

use super::ConnectionRecord;
use crate::observe::termination::Side;

/// Steps of the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstByte {
    /// Nothing to measure, or measured.
    None,
    /// The backend was asked at `ConnectionRecord::first_byte`, an age in microseconds.
    Awaited,
    /// The backend took `ConnectionRecord::first_byte` microseconds, not yet in the histogram.
    Measured,
}

impl ConnectionRecord {
    /// Begins the wait for the backend, which is connected. A connection that is older than an hour
    /// is not measured: its age does not fit.
    pub(super) fn await_first_byte(&mut self) {
        self.set_first_byte(self.age(), FirstByte::Awaited);
    }

    /// Notes that the first byte of a side has passed. The client's begins the wait anew: before it
    /// most backends have nothing to say.
    pub(crate) fn first_byte_passed(&mut self, side: Side) {
        if self.first_byte_step != FirstByte::Awaited {
            return;
        }
        if side == Side::Client {
            return self.await_first_byte();
        }
        let asked = Duration::from_micros(self.first_byte.into());
        self.set_first_byte(self.age().saturating_sub(asked), FirstByte::Measured);
    }

    /// Gives up a wait that is not over.
    pub(super) fn forget_first_byte(&mut self) {
        self.first_byte_step = FirstByte::None;
    }

    fn set_first_byte(&mut self, time: Duration, step: FirstByte) {
        self.first_byte_step = FirstByte::None;
        if let Ok(time) = u32::try_from(time.as_micros()) {
            self.first_byte = time;
            self.first_byte_step = step;
        }
    }

    /// Adds the wait to the histogram of the backend's pool, once.
    pub(super) fn count_first_byte(&mut self) {
        if self.first_byte_step != FirstByte::Measured {
            return;
        }
        self.first_byte_step = FirstByte::None;
        if let Some(assigned) = &self.assigned {
            let waited = Duration::from_micros(self.first_byte.into());
            assigned.times.first_byte.observe(waited);
        }
    }
}
