//! When messages of an open loop are due. A timer of the kernel wakes the loop: epoll's own timeout counts milliseconds, and
//! spinning would take the core from the backends.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// Ticks at a fixed rate from now on.
pub struct Ticker {
    timer: OwnedFd,
    raw: RawFd,
    interval: Duration,
    next: Instant,
}

impl Ticker {
    pub fn start(per_second: u32) -> io::Result<Self> {
        let interval = Duration::from_secs(1) / per_second.max(1);
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let every = Timespec {
            tv_sec: interval.as_secs().cast_signed(),
            tv_nsec: interval.subsec_nanos().into(),
        };
        let times = Itimerspec {
            it_interval: every,
            it_value: every,
        };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        Ok(Self {
            raw: timer.as_raw_fd(),
            timer,
            interval,
            next: Instant::now() + interval,
        })
    }

    /// What the loop registers.
    pub fn source(&self) -> SourceFd<'_> {
        SourceFd(&self.raw)
    }

    /// All times that have come since the last call.
    pub fn due(&mut self) -> io::Result<impl Iterator<Item = Instant>> {
        match rustix::io::read(&self.timer, &mut [0; 8]) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        let now = Instant::now();
        Ok(std::iter::from_fn(move || {
            let due = self.next;
            (due <= now).then(|| {
                self.next += self.interval;
                due
            })
        }))
    }
}
