//! The old process's part of an upgrade, up to the moment at which the new one serves. Until then a
//! refusal, a timeout or the death of the new process changes nothing here.

use std::os::fd::AsFd as _;
use std::process::Child;
use std::sync::{Arc, TryLockError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::channel::{Channel, ChannelError};
use super::document::{ProcessState, Totals};
use super::launch::CommandLine;
use super::message::{FromNew, FromOld, Hello, SocketNames};
use super::remainder::Remainder;
use super::status::{UpgradePhase, Upgraded};
use crate::config::Bind;
use crate::net::{Bound, MAX_PACKET_DESCRIPTORS};
use crate::proxy::Listening;
use crate::server::lifecycle::StopStage;
use crate::server::listeners;
use crate::server::lock::lock;
use crate::server::state::Server;
use crate::server::status::ListenerState;

/// Time for the new process to say who it is: it is executed and nothing more.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to load its file, with all certificates, and to bind.
const BUILT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time to accept, once it is built: a few pointers are swapped.
const SERVING_TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing was handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// Not now; nothing was tried.
    #[error("{0}")]
    Busy(String),
    /// The reasons of the new process, or what kept it from being asked.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
}

/// The process that is to take over.
pub(super) struct NewProcess {
    pub child: Child,
    pub channel: Channel,
    pub hello: Hello,
}

/// A socket with its configured address.
pub(super) type ConfiguredSocket = (Bind, Arc<Bound>);

/// A listener that was left to the new process, and its socket.
pub(super) type LeftListener = (Arc<Listening>, Arc<Bound>);

impl Server {
    /// Lets this process be started once more by an upgrade.
    pub(crate) fn allow_upgrades(&self, command_line: CommandLine) {
        self.upgrade.allow(command_line);
    }

    /// Starts the binary anew and hands over to it. Goes on to its end when this future is dropped.
    ///
    /// # Errors
    /// Every reason why this process serves on as if nothing had been asked.
    pub(crate) async fn upgrade(self: &Arc<Self>) -> Result<Upgraded, UpgradeError> {
        let server = Arc::clone(self);
        let upgrade = move || server.upgrade_now();
        match self.control_runtime().spawn_blocking(upgrade).await {
            Ok(result) => result,
            Err(error) => Err(UpgradeError::Refused(vec![format!("upgrade: {error}")])),
        }
    }

    /// Upgrades, counts and logs the result. Blocks; one at a time.
    fn upgrade_now(self: &Arc<Self>) -> Result<Upgraded, UpgradeError> {
        let Some(command_line) = self.upgrade.command_line() else {
            let why = "this process was not started by `evenkeel run`";
            return Err(UpgradeError::Refused(vec![why.to_owned()]));
        };
        let busy = |why: &str| Err(UpgradeError::Busy(why.to_owned()));
        if !self.upgrade.begin() {
            return busy(match self.upgrade.phase() {
                UpgradePhase::HandedOver => "this process has handed over already",
                UpgradePhase::Running | UpgradePhase::None => "an upgrade is under way already",
            });
        }
        let began = BegunUpgrade { server: self };
        let _no_reload = match self.reloading.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return busy("a reload is under way"),
        };
        if self.lifecycle.stop_stage() != StopStage::None {
            return busy("the server is stopping");
        }
        tracing::info!(program = %command_line.program(), "upgrade: starting the new process");
        match self.hand_over(command_line) {
            Ok((upgraded, remainder)) => {
                std::mem::forget(began);
                remainder.start();
                Ok(upgraded)
            }
            Err(reasons) => {
                self.upgrade.refused(&reasons);
                for reason in &reasons {
                    tracing::error!(%reason, "upgrade refused");
                }
                tracing::error!("upgrade refused, this process serves on");
                Err(UpgradeError::Refused(reasons))
            }
        }
    }

    fn hand_over(
        self: &Arc<Self>,
        command_line: &CommandLine,
    ) -> Result<(Upgraded, Remainder), Vec<String>> {
        let started = Instant::now();
        let (child, channel) = command_line.start().map_err(|error| vec![error])?;
        let mut new = NewProcess {
            child,
            channel,
            hello: Hello::default(),
        };
        let sockets = self.sockets();
        let built = new.build(self, &sockets).and_then(|unused| {
            new.switch(self)?;
            Ok(unused)
        });
        let unused = match built {
            Ok(unused) => unused,
            Err(reasons) => {
                new.end();
                return Err(reasons);
            }
        };
        // The new process accepts from here on; whatever happens now, it is not undone.
        let left = self.leave_listeners(&sockets, &unused);
        let process = pid_of(&new.child).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        self.upgrade.set_successor(process);
        self.upgrade.enter(UpgradePhase::HandedOver);
        self.upgrade.succeeded();
        let upgraded = Upgraded {
            pid: new.child.id(),
            version: new.hello.version.clone(),
            left: self.limits().live(),
        };
        tracing::info!(
            pid = upgraded.pid,
            version = upgraded.version,
            left = upgraded.left,
            milliseconds = started.elapsed().as_millis(),
            "upgraded: the new process serves"
        );
        let sockets = sockets.into_iter().map(|(_, bound)| bound).collect();
        Ok((upgraded, Remainder::new(self, new, left, sockets)))
    }

    /// The listening sockets, those of the endpoints above behind.
    fn sockets(&self) -> Vec<ConfiguredSocket> {
        let present = lock(&self.live).listeners.clone();
        let own = present.iter().map(|listening| {
            let configured = listening.rules().config.bind.clone();
            (configured, Arc::clone(listening.bound()))
        });
        let participants = lock(&self.participants).clone();
        let above = participants.iter().flat_map(|one| one.sockets());
        own.chain(above).collect()
    }

    /// Accepts no more. What is queued in the sockets stays there for the new process; those that
    /// it has no use for are served to the end of their queue.
    fn leave_listeners(&self, sockets: &[ConfiguredSocket], unused: &[usize]) -> Vec<LeftListener> {
        let present = lock(&self.live).listeners.clone();
        let is_unused = |listening: &Listening| {
            let of_socket = |(_, bound): &ConfiguredSocket| Arc::ptr_eq(bound, listening.bound());
            let place = sockets.iter().position(of_socket);
            place.is_some_and(|place| unused.contains(&place))
        };
        let mut left = Vec::new();
        for listening in present {
            if is_unused(&listening) {
                self.proxy.runtime.block_on(listening.stop());
            } else {
                let bound = self.proxy.runtime.block_on(listening.leave());
                left.push((listening, bound));
            }
        }
        for participant in &*lock(&self.participants) {
            participant.leave();
        }
        left
    }

    /// Closes this process's handles of the sockets; the new one has them alone from now on.
    pub(super) fn give_up_listeners(&self, sockets: &[Arc<Bound>]) {
        for bound in sockets {
            bound.give_up();
        }
        let mut live = lock(&self.live);
        let taken = std::mem::take(&mut live.listeners);
        let status = |listening| listeners::status(listening, ListenerState::Stopped);
        live.stopped
            .get_or_insert_with(|| taken.iter().map(|one| status(one)).collect());
        drop(live);
        for participant in &*lock(&self.participants) {
            participant.give_up();
        }
    }
}

/// Ends an attempt that did not hand over.
struct BegunUpgrade<'a> {
    server: &'a Server,
}

impl Drop for BegunUpgrade<'_> {
    fn drop(&mut self) {
        self.server.upgrade.enter(UpgradePhase::None);
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

impl NewProcess {
    /// Gives it state and sockets, and waits until it has built everything; returns the places of
    /// the sockets that it has no use for.
    fn build(
        &mut self,
        server: &Server,
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
            live: server.limits().live(),
        };
        let state = ProcessState::of(server);
        let sent = self.channel.send_document(&process, &state);
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
    fn switch(&mut self, server: &Server) -> Result<(), Vec<String>> {
        let totals = Totals::with_jobs(server);
        let sent = self.channel.send_document(&FromOld::Switch, &totals);
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
