//! The old process's part of an upgrade, up to the moment at which the new one serves. Until then a
//! refusal, a timeout or the death of the new process changes nothing here.

use std::sync::{Arc, TryLockError};
use std::time::Instant;

use super::document::{ProcessState, Totals};
use super::launch::CommandLine;
use super::message::FromNew;
use super::remainder::{LeftListener, Remainder};
use super::status::{UpgradePhase, Upgraded};
use super::successor::{ConfiguredSocket, NewProcess};
use crate::net::Bound;
use crate::proxy::Listening;
use crate::server::lifecycle::StopStage;
use crate::server::listeners;
use crate::server::lock::lock;
use crate::server::state::Server;
use crate::server::status::ListenerState;

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
        if self.upgrade.is_guarded() {
            let why =
                "the first process of the container would end with this one: restart the container";
            return Err(UpgradeError::Refused(vec![why.to_owned()]));
        }
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
        let mut new = NewProcess::start(command_line).map_err(|error| vec![error])?;
        self.upgrade.set_in_building(new.handle());
        if self.lifecycle.stop_stage() != StopStage::None {
            self.upgrade.end_building();
        }
        let sockets = self.sockets();
        let state = (&ProcessState::of(self), self.limits().live());
        let built = new.build(state, &sockets).and_then(|unused| {
            self.upgrade.is_built();
            if self.lifecycle.stop_stage() != StopStage::None {
                return Err(vec!["the server is stopping".to_owned()]);
            }
            new.switch(&Totals::with_jobs(self))?;
            Ok(unused)
        });
        let unused = match built {
            Ok(unused) => unused,
            Err(reasons) => {
                self.upgrade.is_built();
                new.end();
                return Err(reasons);
            }
        };
        // The new process accepts from here on; whatever happens now, it is not undone.
        let left = self.leave_listeners(&sockets, &unused);
        self.upgrade.set_successor(new.handle());
        self.upgrade.set_channel(new.channel.try_clone().ok());
        self.upgrade.forget_freezes();
        self.upgrade.enter(UpgradePhase::HandedOver);
        // A process between two others is no one's to take back from.
        self.upgrade.tell_predecessor(&FromNew::Settled);
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
        let taken = sockets.into_iter().enumerate();
        let taken = taken.filter(|(place, _)| !unused.contains(place));
        let sockets: Vec<_> = taken.map(|(_, (_, bound))| bound).collect();
        // Their files are the new process's, even if this one ends soon.
        sockets.iter().for_each(|bound| bound.give_up());
        Ok((upgraded, Remainder::new(self, new, left, sockets)))
    }

    /// The listening sockets, those of the endpoints above behind.
    pub(super) fn sockets(&self) -> Vec<ConfiguredSocket> {
        let present = lock(&self.live).listeners.clone();
        let own = present.iter().map(|listening| {
            let configured = listening.rules().config.bind.clone();
            (configured, Arc::clone(listening.bound()))
        });
        let participants = lock(&self.participants).clone();
        let above = participants.iter().flat_map(|one| one.sockets());
        own.chain(above).collect()
    }

    /// Accepts no more. What is queued in the sockets stays there for the new process. Those that
    /// it has no use for are served on: this process may have to serve again.
    fn leave_listeners(&self, sockets: &[ConfiguredSocket], unused: &[usize]) -> Vec<LeftListener> {
        let present = lock(&self.live).listeners.clone();
        let is_unused = |listening: &Listening| {
            let of_socket = |(_, bound): &ConfiguredSocket| Arc::ptr_eq(bound, listening.bound());
            let place = sockets.iter().position(of_socket);
            place.is_some_and(|place| unused.contains(&place))
        };
        let left = present.into_iter().map(|listening| {
            let is_left = !is_unused(&listening);
            let bound = is_left.then(|| self.proxy.runtime.block_on(listening.leave()));
            (listening, bound)
        });
        let left = left.collect();
        let unused: Vec<_> = unused
            .iter()
            .filter_map(|place| sockets.get(*place))
            .collect();
        let is_unused = |bound: &Arc<Bound>| unused.iter().any(|(_, one)| Arc::ptr_eq(one, bound));
        for participant in &*lock(&self.participants) {
            participant.leave(&is_unused);
        }
        left
    }

    /// Closes this process's handles of the sockets; the new one has them alone from now on.
    pub(super) fn give_up_listeners(&self) {
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
