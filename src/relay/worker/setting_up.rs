//! A worker's connections in set-up.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use mio::unix::SourceFd;

use super::Worker;
use crate::observe::Termination;
use crate::relay::handoff::Transport;
use crate::relay::key::SessionKey;
use crate::relay::leg::Leg;
use crate::relay::scratch::Scratch;
use crate::relay::set_up::{LOOK_AFTER, SetUp, SetUpOutcome, SettingUp};
use crate::relay::side::{BACKEND, CLIENT};

/// Room that an empty table keeps: a storm's is given back.
const KEPT: usize = 256;

/// Connections in set-up. Each has the key of the session that it is to become.
#[derive(Default)]
pub(super) struct SetUps {
    table: HashMap<SessionKey, SettingUp>,
    /// Those that an event has named.
    again: Vec<SessionKey>,
    /// When each is looked at, in order.
    looks: VecDeque<(Instant, SessionKey)>,
}

impl SetUps {
    /// The time at which the worker must look here again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.looks.front().map(|(at, _)| *at)
    }

    /// Takes in an event, unless the key names none.
    pub(super) fn note_event(&mut self, key: SessionKey, side: usize, event: &mio::event::Event) {
        let Some(setting_up) = self.table.get_mut(&key) else {
            return;
        };
        let leg = if side == CLIENT {
            Some(setting_up.client())
        } else {
            setting_up.backend()
        };
        if let Some(leg) = leg {
            leg.note_event(event);
        }
        if setting_up.queue() {
            self.again.push(key);
        }
    }

    fn keys(&self) -> Vec<SessionKey> {
        self.table.keys().copied().collect()
    }

    fn remove(&mut self, key: SessionKey) -> Option<SettingUp> {
        let removed = self.table.remove(&key);
        if self.table.is_empty() {
            self.table.shrink_to(KEPT);
            self.looks.clear();
            self.looks.shrink_to(KEPT);
        }
        removed
    }
}

impl Worker {
    /// Begins to set an accepted connection up, which is counted already.
    pub(super) fn set_up(&mut self, set_up: Box<dyn SetUp>, socket: OwnedFd, now: Instant) {
        let key = self.table.reserve();
        let client = Leg::new(socket, Transport::Raw, false);
        let registered = self.register(key, CLIENT, client.raw_fd());
        let setting_up = SettingUp::new(set_up, client, now);
        if let Err(error) = registered {
            tracing::warn!(%error, "a connection cannot be watched");
            self.table.release(key);
            self.workers.uncount(&self.inbox);
            return leave(setting_up);
        }
        self.set_ups.table.insert(key, setting_up);
        self.set_ups.looks.push_back((now + LOOK_AFTER, key));
    }

    /// Gives those a turn that have had an event.
    pub(super) fn take_set_up_turns(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.set_ups.again) {
            self.set_up_turn(key, now, |one, scratch| one.turn(scratch, now));
        }
        while let Some((at, key)) = self.set_ups.looks.front().copied() {
            if at > now {
                break;
            }
            self.set_ups.looks.pop_front();
            self.set_up_turn(key, now, |one, _| one.look(now));
            if self.set_ups.table.contains_key(&key) {
                self.set_ups.looks.push_back((now + LOOK_AFTER, key));
            }
        }
    }

    fn set_up_turn(
        &mut self,
        key: SessionKey,
        now: Instant,
        turn: impl FnOnce(&mut SettingUp, &mut Scratch) -> SetUpOutcome,
    ) {
        let Some(setting_up) = self.set_ups.table.get_mut(&key) else {
            return;
        };
        let scratch = &mut self.scratch;
        match catch_unwind(AssertUnwindSafe(|| turn(setting_up, scratch))) {
            Ok(SetUpOutcome::Wait) => {}
            Ok(SetUpOutcome::Watch) => self.watch_backend(key),
            Ok(SetUpOutcome::Session) => self.begin_session(key, now),
            Ok(SetUpOutcome::Leave) => self.leave_set_up(key),
            Ok(SetUpOutcome::Ended(end)) => self.end_set_up(key, Some(end)),
            Err(_) => {
                tracing::error!("a connection in set-up panicked and was closed");
                self.end_set_up(key, None);
            }
        }
    }

    fn watch_backend(&mut self, key: SessionKey) {
        let leg = self.set_ups.table.get_mut(&key);
        let Some(fd) = leg.and_then(|one| Some(one.backend()?.raw_fd())) else {
            return;
        };
        if let Err(error) = self.register(key, BACKEND, fd) {
            tracing::warn!(%error, "a backend's connection cannot be watched");
            self.leave_set_up(key);
        }
    }

    fn begin_session(&mut self, key: SessionKey, now: Instant) {
        let Some(setting_up) = self.set_ups.remove(key) else {
            return;
        };
        match catch_unwind(AssertUnwindSafe(|| setting_up.into_session())) {
            Ok(Some((session, readiness))) => self.adopt_watched(key, session, readiness, now),
            Ok(None) => self.forget_set_up(key),
            Err(_) => {
                tracing::error!("a connection in set-up panicked and was closed");
                self.forget_set_up(key);
            }
        }
    }

    fn leave_set_up(&mut self, key: SessionKey) {
        let Some(mut setting_up) = self.set_ups.remove(key) else {
            return;
        };
        let client = setting_up.client().raw_fd();
        let backend = setting_up.backend().map(|leg| leg.raw_fd());
        for fd in [Some(client), backend].into_iter().flatten() {
            // Fails where it was never registered.
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        }
        self.forget_set_up(key);
        leave(setting_up);
    }

    fn end_set_up(&mut self, key: SessionKey, end: Option<Termination>) {
        let Some(setting_up) = self.set_ups.remove(key) else {
            return;
        };
        self.forget_set_up(key);
        let ending = || {
            if let Some(end) = end {
                setting_up.end(end);
            }
        };
        if catch_unwind(AssertUnwindSafe(ending)).is_err() {
            tracing::error!("the end of a connection panicked");
        }
    }

    /// Takes all to the set-up plane, which knows when each is to end.
    pub(super) fn leave_set_ups(&mut self) {
        for key in self.set_ups.keys() {
            self.leave_set_up(key);
        }
    }

    /// Ends all.
    pub(super) fn stop_set_ups(&mut self) {
        for key in self.set_ups.keys() {
            if let Some(setting_up) = self.set_ups.remove(key) {
                self.forget_set_up(key);
                if catch_unwind(AssertUnwindSafe(|| setting_up.stop())).is_err() {
                    tracing::error!("the end of a connection panicked");
                }
            }
        }
    }

    fn forget_set_up(&mut self, key: SessionKey) {
        self.table.release(key);
        self.workers.uncount(&self.inbox);
    }
}

/// Takes a connection to the set-up plane. It is others' code that takes it.
fn leave(setting_up: SettingUp) {
    if catch_unwind(AssertUnwindSafe(|| setting_up.leave())).is_err() {
        tracing::error!("a connection in set-up panicked and was closed");
    }
}
