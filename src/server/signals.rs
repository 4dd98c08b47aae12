//! The signals that a running balancer answers.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::net::signals::unblock;

/// Meaning of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM, SIGINT, SIGQUIT
    Stop,
    /// SIGHUP
    Reload,
    /// SIGUSR1
    Reopen,
    /// SIGUSR2
    Upgrade,
}

/// Installed handlers. Install them before anything is announced.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Stream,
    interrupt: Stream,
    quit: Stream,
    hangup: Stream,
    user1: Stream,
    user2: Stream,
    /// Handler that is never read: with it SIGALRM no longer ends the process.
    _alarm: Stream,
}

impl Signals {
    /// Installs the handlers. Call it inside a tokio runtime, in the thread that blocked the
    /// signals: those that came meanwhile are answered.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn install() -> io::Result<Signals> {
        let signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            _alarm: signal(SignalKind::alarm())?,
        };
        unblock();
        Ok(signals)
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.quit.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user1.recv() => Signal::Reopen,
            _ = self.user2.recv() => Signal::Upgrade,
        }
    }
}
