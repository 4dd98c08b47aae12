//! State of the upgrades of one process: of one that it begins, and of the one that made it.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use rustix::fd::OwnedFd;
use rustix::process::{Signal, pidfd_send_signal};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::channel::Channel;
use super::document::{ProcessState, Totals};
use super::launch::CommandLine;
use super::message::FromOld;
use super::status::{
    PredecessorStatus, UpgradeCounters, UpgradePhase, UpgradeStatus, UpgradeTotals,
};
use crate::server::lock::lock;

/// Upgrades of a server.
pub(in crate::server) struct Upgrades {
    /// Set where the process can be started once more.
    command_line: OnceLock<CommandLine>,
    phase: watch::Sender<UpgradePhase>,
    counters: UpgradeCounters,
    /// In microseconds.
    longest_freeze: AtomicU64,
    last_error: Mutex<Option<(SystemTime, Vec<String>)>>,
    /// The state of the process before, until it is taken over.
    inherited: Mutex<Option<Arc<ProcessState>>>,
    /// The latest numbers of the process before.
    latest_totals: Mutex<Totals>,
    predecessor: Mutex<Option<Predecessor>>,
    /// False as long as the service manager may take the process before for the main one.
    leads: watch::Sender<bool>,
    /// By which the new process gets the signals that come here, as long as this one is the service
    /// manager's main process.
    successor: Mutex<Option<OwnedFd>>,
    /// Says what the new process is to hear from others than the thread that follows it.
    to_successor: Mutex<Option<Channel>>,
    /// How often the process before has passed a request to stop on.
    asked_by_old: watch::Sender<u32>,
    /// The process that is being started and built, until it may accept.
    in_building: Mutex<Option<OwnedFd>>,
    /// Notified by a signal that asks for an upgrade.
    pub(in crate::server) wanted: Notify,
    /// Notified when the new process stops, and this one with it.
    pub(in crate::server) stop_wanted: Notify,
    /// Notified when the service manager has been told of the new process.
    pub(in crate::server) manager_told: Notify,
    /// Cancelled when the probation is over: this process has nothing to do but to end its
    /// connections.
    pub(in crate::server) settled: CancellationToken,
    /// Whether the latest new process has ended.
    successor_ended: watch::Sender<bool>,
    /// Cancelled when the new process has failed, and nobody serves.
    pub(in crate::server) abandoned: CancellationToken,
    successor_error: OnceLock<SuccessorError>,
    /// The first process of the container ends with this one.
    is_guarded: AtomicBool,
    /// Whether a service manager is told of the life of this process.
    has_manager: AtomicBool,
}

/// The new process has failed beyond its probation: nothing serves any more.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the process that had taken over has failed ({status})")]
pub(crate) struct SuccessorError {
    status: String,
    /// As a shell has it: 128 and the signal's number where a signal has ended it. Never 0.
    pub code: u8,
}

impl SuccessorError {
    /// `None`: it has ended as it should.
    pub(super) fn of(status: ExitStatus) -> Option<SuccessorError> {
        let signal = || status.signal().map(|signal| signal.saturating_add(128));
        let code = status.code().or_else(signal).unwrap_or(1);
        (!status.success()).then(|| SuccessorError {
            status: status.to_string(),
            code: u8::try_from(code).unwrap_or(1),
        })
    }
}

/// The process that handed over to this one.
struct Predecessor {
    channel: Channel,
    status: PredecessorStatus,
}

impl Default for Upgrades {
    fn default() -> Upgrades {
        Upgrades {
            command_line: OnceLock::new(),
            phase: watch::Sender::new(UpgradePhase::None),
            counters: UpgradeCounters::default(),
            longest_freeze: AtomicU64::new(0),
            last_error: Mutex::default(),
            inherited: Mutex::default(),
            latest_totals: Mutex::default(),
            predecessor: Mutex::default(),
            leads: watch::Sender::new(true),
            successor: Mutex::default(),
            to_successor: Mutex::default(),
            asked_by_old: watch::Sender::new(0),
            in_building: Mutex::default(),
            wanted: Notify::new(),
            stop_wanted: Notify::new(),
            manager_told: Notify::new(),
            settled: CancellationToken::new(),
            successor_ended: watch::Sender::new(false),
            abandoned: CancellationToken::new(),
            successor_error: OnceLock::new(),
            is_guarded: AtomicBool::new(false),
            has_manager: AtomicBool::new(false),
        }
    }
}

impl Upgrades {
    pub(in crate::server) fn allow(&self, command_line: CommandLine) {
        let _ = self.command_line.set(command_line);
    }

    pub(super) fn command_line(&self) -> Option<&CommandLine> {
        self.command_line.get()
    }

    pub(in crate::server) fn phase(&self) -> UpgradePhase {
        *self.phase.borrow()
    }

    /// Begins an upgrade; false where one is under way or done.
    pub(super) fn begin(&self) -> bool {
        self.phase.send_if_modified(|phase| {
            let begins = *phase == UpgradePhase::None;
            if begins {
                *phase = UpgradePhase::Running;
            }
            begins
        })
    }

    /// Returns when no upgrade is under way: it has handed over, or was refused. That takes as long
    /// as the new process is waited for, at most.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(in crate::server) async fn concluded(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as this.
        let _ = phase
            .wait_for(|phase| *phase != UpgradePhase::Running)
            .await;
    }

    /// Returns when another process serves: at once if it does now.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(in crate::server) async fn handed_over(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as this.
        let _ = phase
            .wait_for(|phase| *phase == UpgradePhase::HandedOver)
            .await;
    }

    pub(super) fn enter(&self, phase: UpgradePhase) {
        self.phase.send_replace(phase);
    }

    pub(super) fn refused(&self, reasons: &[String]) {
        self.counters.refused.fetch_add(1, Relaxed);
        *lock(&self.last_error) = Some((SystemTime::now(), reasons.to_vec()));
    }

    pub(super) fn failed(&self, reason: String) {
        self.counters.failed.fetch_add(1, Relaxed);
        *lock(&self.last_error) = Some((SystemTime::now(), vec![reason]));
    }

    pub(super) fn succeeded(&self) {
        self.counters.ok.fetch_add(1, Relaxed);
    }

    /// Counts sessions that were offered to the new process.
    pub(super) fn moved(&self, moved: u64, declined: u64, is_late: bool) {
        let counters = &self.counters;
        let count = if is_late {
            &counters.late
        } else {
            &counters.moved
        };
        count.fetch_add(moved, Relaxed);
        counters.declined.fetch_add(declined, Relaxed);
    }

    /// Notes how long the sessions of a batch stood still, at most.
    pub(super) fn froze_for(&self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.longest_freeze.fetch_max(time, Relaxed);
    }

    /// Forgets the freezes of the upgrade that has made this process: another one begins.
    pub(super) fn forget_freezes(&self) {
        self.longest_freeze.store(0, Relaxed);
    }

    /// Longest time that a session stood still in the latest upgrade.
    pub(in crate::server) fn longest_freeze(&self) -> Duration {
        Duration::from_micros(self.longest_freeze.load(Relaxed))
    }

    pub(in crate::server) fn totals(&self) -> UpgradeTotals {
        self.counters.values()
    }

    pub(super) fn add_growth(&self, before: &UpgradeTotals, now: &UpgradeTotals) {
        self.counters.grow(before, now);
    }

    pub(in crate::server) fn status(&self) -> UpgradeStatus {
        let predecessor = lock(&self.predecessor);
        UpgradeStatus {
            longest_freeze: self.longest_freeze(),
            last_error: lock(&self.last_error).clone(),
            predecessor: predecessor.as_ref().map(|one| one.status.clone()),
        }
    }

    /// Keeps what the process before has handed over, until the first configuration serves.
    pub(super) fn inherit(&self, state: Arc<ProcessState>, is_guarded: bool) {
        self.is_guarded.store(is_guarded, Relaxed);
        *lock(&self.inherited) = Some(state);
        self.leads.send_replace(false);
    }

    pub(in crate::server) fn inherited(&self) -> Option<Arc<ProcessState>> {
        lock(&self.inherited).clone()
    }

    pub(super) fn forget_inherited(&self) -> Option<Arc<ProcessState>> {
        lock(&self.inherited).take()
    }

    /// Replaces the latest numbers of the process before, and returns those before them.
    pub(super) fn replace_totals(&self, totals: Totals) -> Totals {
        if let Some(predecessor) = &mut *lock(&self.predecessor) {
            predecessor.status.connections = totals.live;
        }
        std::mem::replace(&mut *lock(&self.latest_totals), totals)
    }

    /// Changes the latest numbers of the process before; returns its live connections before and
    /// after that.
    pub(super) fn change_totals(&self, change: impl FnOnce(&mut Totals)) -> (u64, u64) {
        let mut totals = lock(&self.latest_totals);
        let before = totals.live;
        change(&mut totals);
        let now = totals.live;
        drop(totals);
        if let Some(predecessor) = &mut *lock(&self.predecessor) {
            predecessor.status.connections = now;
        }
        (before, now)
    }

    pub(super) fn latest_totals(&self) -> Totals {
        lock(&self.latest_totals).clone()
    }

    pub(super) fn set_predecessor(&self, channel: Channel, status: PredecessorStatus) {
        *lock(&self.predecessor) = Some(Predecessor { channel, status });
    }

    /// The process before is gone.
    pub(super) fn forget_predecessor(&self) {
        *lock(&self.predecessor) = None;
        self.lead();
    }

    /// Tells the process before, if it is there.
    pub(in crate::server) fn tell_predecessor(&self, message: &impl Serialize) {
        if let Some(predecessor) = &*lock(&self.predecessor) {
            // One that is gone needs to hear nothing.
            let _ = predecessor.channel.send(message);
        }
    }

    /// The service manager takes this process for the main one.
    pub(super) fn lead(&self) {
        self.leads.send_replace(true);
    }

    pub(in crate::server) fn leading(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// A service manager is told of the life of this process.
    pub(in crate::server) fn found_manager(&self) {
        self.has_manager.store(true, Relaxed);
    }

    pub(super) fn is_guarded(&self) -> bool {
        self.is_guarded.load(Relaxed)
    }

    pub(super) fn has_manager(&self) -> bool {
        self.has_manager.load(Relaxed)
    }

    pub(in crate::server) fn has_successor(&self) -> bool {
        lock(&self.successor).is_some()
    }

    /// Notes that the new process has ended.
    pub(super) fn note_end_of_successor(&self) {
        self.set_successor(None);
        self.successor_ended.send_replace(true);
    }

    /// Notes that the new process has failed, and will not be replaced by this one.
    pub(super) fn abandon(&self, error: SuccessorError) {
        let _ = self.successor_error.set(error);
        self.abandoned.cancel();
    }

    /// How the new process has failed, where it has.
    pub(in crate::server) fn successor_error(&self) -> Option<SuccessorError> {
        self.successor_error.get().cloned()
    }

    /// Returns when the latest new process has ended.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(in crate::server) async fn outlived_successor(&self) {
        let mut ended = self.successor_ended.subscribe();
        // The sender lives as long as this.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    pub(super) fn set_successor(&self, process: Option<OwnedFd>) {
        if process.is_some() {
            self.successor_ended.send_replace(false);
        }
        *lock(&self.successor) = process;
    }

    /// Keeps the channel of the process that has taken over.
    pub(super) fn set_channel(&self, channel: Option<Channel>) {
        *lock(&self.to_successor) = channel;
    }

    /// Tells the process that has taken over what has grown to the last: nothing follows. It may be
    /// gone.
    pub(in crate::server) fn tell_last(&self, totals: &Totals) {
        if let Some(channel) = &*lock(&self.to_successor) {
            let _ = channel.send_document(&FromOld::Totals, totals);
        }
    }

    /// Passes a request to stop on to the new process. By the channel: a signal to the process
    /// group has reached that process already, and must not count twice. False where it
    /// gets its signals itself.
    pub(in crate::server) fn pass_stop_on(&self) -> bool {
        if !self.has_successor() {
            return false;
        }
        let channel = lock(&self.to_successor);
        let told = channel.as_ref().map(|channel| channel.send(&FromOld::Stop));
        drop(channel);
        matches!(told, Some(Ok(()))) || self.forward(Signal::TERM)
    }

    /// The process before was asked to stop, and so is this one.
    pub(super) fn ask_to_stop(&self) {
        self.asked_by_old.send_modify(|count| *count += 1);
    }

    /// Returns when the process before has passed so many requests to stop on.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(in crate::server) async fn asked_by_old(&self, times: u32) {
        let mut asked = self.asked_by_old.subscribe();
        // The sender lives as long as this.
        let _ = asked.wait_for(|count| *count >= times).await;
    }

    /// Keeps a handle of the process that is being started.
    pub(super) fn set_in_building(&self, process: Option<OwnedFd>) {
        *lock(&self.in_building) = process;
    }

    /// From now on the process that was started is not ended by a stop. Ask for the stop after it.
    pub(super) fn is_built(&self) {
        *lock(&self.in_building) = None;
    }

    /// Ends the process that is being started, as this one stops. Set the stage of the stop before.
    pub(in crate::server) fn end_building(&self) {
        if let Some(process) = lock(&self.in_building).take() {
            // One that has ended by itself is told by its exit.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }

    /// Passes a signal on to the new process; false where that gets its signals itself.
    pub(in crate::server) fn forward(&self, signal: Signal) -> bool {
        match &*lock(&self.successor) {
            Some(process) => pidfd_send_signal(process, signal).is_ok(),
            None => false,
        }
    }
}
