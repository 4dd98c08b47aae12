//! The new process, as the old one sees it: it is given state and sockets, and asked what it can do
//! with them.

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::channel::{Channel, ChannelError};
use super::document::{ProcessState, Totals};
use super::init::is_init;
use super::launch::CommandLine;
use super::message::{FromNew, FromOld, Hello, SocketNames};
use crate::config::Bind;
use crate::net::{Bound, MAX_PACKET_DESCRIPTORS};

/// Time for the new process to say who it is: it is executed and nothing more.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to load its file, with all certificates, and to bind.
const BUILT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time to accept, once it is built: a few pointers are swapped.
const SERVING_TIMEOUT: Duration = Duration::from_secs(10);

/// The process that is to take over.
pub(super) struct NewProcess {
    pub child: Child,
    pub channel: Channel,
    pub hello: Hello,
}

/// A socket with its configured address.
pub(super) type ConfiguredSocket = (Bind, Arc<Bound>);

impl NewProcess {
    /// # Errors
    /// Names the program that could not be started.
    pub(super) fn start(command_line: &CommandLine) -> Result<NewProcess, String> {
        let (child, channel) = command_line.start()?;
        Ok(NewProcess {
            child,
            channel,
            hello: Hello::default(),
        })
    }

    /// A handle by which it gets signals.
    pub(super) fn handle(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).ok()?)?;
        pidfd_open(pid, PidfdFlags::empty()).ok()
    }

    /// Gives it state and sockets, and waits until it has built everything; returns the places of
    /// the sockets that it has no use for.
    pub(super) fn build(
        &mut self,
        (state, live): (&ProcessState, u64),
        sockets: &[ConfiguredSocket],
    ) -> Result<Vec<usize>, Vec<String>> {
        self.send(&FromOld::Hello(Hello::own()))?;
        match self.receive(HELLO_TIMEOUT, "to say who it is")? {
            FromNew::Hello(hello) => self.hello = hello,
            other => return Err(self.unexpected(other)),
        }
        self.hello.verify().map_err(|why| vec![why])?;
        let process = FromOld::Process {
            sockets: sockets.len(),
            live,
            is_init: is_init(),
        };
        let sent = self.channel.send_document(&process, state);
        sent.map_err(|error| self.failed(&error))?;
        for some in sockets.chunks(MAX_PACKET_DESCRIPTORS) {
            self.send_sockets(some)?;
        }
        match self.receive(BUILT_TIMEOUT, "to load its configuration")? {
            FromNew::Built { unused } => Ok(unused),
            other => Err(self.unexpected(other)),
        }
    }

    fn send_sockets(&mut self, sockets: &[ConfiguredSocket]) -> Result<(), Vec<String>> {
        let copies: Result<Vec<_>, _> = sockets.iter().map(|(_, one)| one.duplicate()).collect();
        let copies = copies.map_err(|error| vec![format!("duplicate a socket: {error}")])?;
        let names = sockets.iter().map(|(configured, bound)| SocketNames {
            configured: configured.to_string(),
            local: bound.local().to_string(),
            is_inherited: bound.is_inherited(),
        });
        let message = FromOld::Sockets {
            sockets: names.collect(),
        };
        let copies: Vec<_> = copies.iter().map(|copy| copy.as_fd()).collect();
        let sent = self.channel.send_with(&message, &copies);
        sent.map_err(|error| self.failed(&error))
    }

    /// Lets it accept.
    pub(super) fn switch(&mut self, totals: &Totals) -> Result<(), Vec<String>> {
        let sent = self.channel.send_document(&FromOld::Switch, totals);
        sent.map_err(|error| self.failed(&error))?;
        match self.receive(SERVING_TIMEOUT, "to accept")? {
            FromNew::Serving => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    fn send(&mut self, message: &FromOld) -> Result<(), Vec<String>> {
        let sent = self.channel.send(message);
        sent.map_err(|error| self.failed(&error))
    }

    fn receive(&mut self, timeout: Duration, what: &str) -> Result<FromNew, Vec<String>> {
        match self.channel.receive(timeout) {
            Ok(received) => Ok(received.message),
            Err(ChannelError::Silent(timeout)) => Err(vec![format!(
                "the new process took more than {} s {what}",
                timeout.as_secs()
            )]),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// The reason that follows from an error of the channel.
    fn failed(&mut self, error: &ChannelError) -> Vec<String> {
        if !matches!(error, ChannelError::Gone) {
            return vec![format!("the new process: {error}")];
        }
        // The refusal of one that ended at once may be unread.
        if let Ok(last) = self.channel.receive::<FromNew>(Duration::ZERO)
            && let FromNew::Refused { reasons } = last.message
        {
            return reasons;
        }
        let ended = self.end();
        vec![format!(
            "the new process ended before it could take over ({ended})"
        )]
    }

    fn unexpected(&mut self, message: FromNew) -> Vec<String> {
        match message {
            FromNew::Refused { reasons } => reasons,
            _ => vec!["the new process sent what was not expected".to_owned()],
        }
    }

    /// Ends it, however it is, and says how it ended.
    pub(super) fn end(&mut self) -> String {
        // One that has ended by itself keeps its own status.
        if let Ok(Some(status)) = self.child.try_wait() {
            return status.to_string();
        }
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}
