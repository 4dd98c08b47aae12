//! A long wait that wakes its thread once.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

/// Shortest wait that is worth a timer of the kernel: up to it tokio's wheel wakes a thread twice,
/// above it three times.
const LEAST: Duration = Duration::from_secs(4);

/// Waits for `time`, as tokio's `sleep` does. That moves a timer from one level of its wheel to the
/// next, and wakes a thread for each; an idle process would wake for nothing else.
///
/// # Cancel safety
/// Dropping the future ends the wait.
pub(crate) async fn rest(time: Duration) {
    // The kernel has no timer left: then the wheel has to do.
    if time < LEAST || alarm(time).await.is_err() {
        sleep(time).await;
    }
}

async fn alarm(time: Duration) -> io::Result<()> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let once = Itimerspec {
        it_interval: Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: Timespec::try_from(time).map_err(io::Error::other)?,
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
    // SAFETY: the descriptor is borrowed for longer than `watched` lives, so it stays open and the
    // same file until it is deregistered.
    let watched = unsafe { AsyncFd::register_with_interest(timer.as_fd(), Interest::READABLE) };
    watched?.readable().await?.retain_ready();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_alarm_comes_when_it_is_due_and_not_before() {
        let began = Instant::now();
        let time = Duration::from_millis(30);
        alarm(time).await.unwrap();
        assert!(began.elapsed() >= time);
        let far = rest(Duration::from_secs(3600)).now_or_never();
        assert_eq!(far, None);
    }
}
