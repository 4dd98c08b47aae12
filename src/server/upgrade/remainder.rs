//! The old process after it has handed over. It ends its connections, and tells the new one each
//! second what they have counted. Within the probation it keeps the listening sockets open, and
//! accepts again if the new process ends.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::channel::ChannelError;
use super::departing::Departures;
use super::document::Totals;
use super::init::is_init;
use super::message::{FromNew, FromOld};
use super::progress::SuccessorError;
use super::status::UpgradePhase;
use super::successor::NewProcess;
use crate::net::Bound;
use crate::pool::OperatorState;
use crate::proxy::{ListenerOrigin, Listening};
use crate::server::lifecycle::StopStage;
use crate::server::lock::lock;
use crate::server::state::Server;

/// Between two messages with the totals, and two looks at the new process.
const SPACING: Duration = Duration::from_secs(1);

/// Time for the service manager to take the word who the main process is now: it may be busy with a
/// reload of its units.
const MANAGER_TIMEOUT: Duration = Duration::from_secs(30);

/// A listener, and its socket where that was left to the new process. Without it the new one has no
/// use for the listener, and this one serves there until the probation is over.
pub(super) type LeftListener = (Arc<Listening>, Option<Arc<Bound>>);

/// The rest of an upgrade.
pub(super) struct Remainder {
    server: Weak<Server>,
    new: NewProcess,
    listeners: Vec<LeftListener>,
    /// All sockets that the new process was given.
    sockets: Vec<Arc<Bound>>,
    departures: Departures,
    /// `None`: the probation is over.
    probation_until: Option<Instant>,
    told_at: Instant,
    /// The new process is being stopped, by whoever: its end is no failure.
    is_stopping: bool,
    /// The other end of the channel is closed, or is not read.
    is_deaf: bool,
    /// The new process has handed over itself, and is no one's to take back from.
    is_settled: bool,
    /// Why the new process was ended from here.
    ended_for: Option<&'static str>,
}

/// Whether the remainder goes on.
#[derive(PartialEq, Eq)]
enum Turn {
    Next,
    Over,
}

impl Remainder {
    pub(super) fn new(
        server: &Arc<Server>,
        new: NewProcess,
        listeners: Vec<LeftListener>,
        sockets: Vec<Arc<Bound>>,
    ) -> Remainder {
        let now = Instant::now();
        Remainder {
            server: Arc::downgrade(server),
            new,
            listeners,
            sockets,
            departures: Departures::default(),
            probation_until: Some(now + server.config().upgrade.probation),
            told_at: now,
            is_stopping: false,
            is_deaf: false,
            is_settled: false,
            ended_for: None,
        }
    }

    /// Runs on a thread of its own, which ends with the server.
    pub(super) fn start(self) {
        let server = self.server.clone();
        let run = || {
            let mut remainder = self;
            if let Some(server) = remainder.server.upgrade() {
                if server.lifecycle.stop_stage() != StopStage::None {
                    // Asked while the new process was built, and meant for whoever serves.
                    server.upgrade.pass_stop_on();
                }
                remainder.move_sessions(&server);
            }
            while remainder.turn() == Turn::Next {}
        };
        if let Err(error) = thread::Builder::new().name("upgrade".to_owned()).spawn(run)
            && let Some(server) = server.upgrade()
        {
            // The sockets are closed with what was to run there; the new process has them.
            tracing::warn!(%error, "upgrade: no thread, so this process ends");
            server.upgrade.settled.cancel();
        }
    }

    fn turn(&mut self) -> Turn {
        let waited = self.wait();
        let Some(server) = self.server.upgrade() else {
            return Turn::Over;
        };
        if let Some(message) = waited {
            self.answer(&server, message);
        }
        if !self.new_has_ended() {
            self.move_sessions(&server);
        }
        if self.new_has_ended() {
            return self.ended(&server);
        }
        if self.told_at.elapsed() >= SPACING {
            self.tell(&server);
            if self.probation_until.is_some() && !self.is_answered(&server) {
                return Turn::Next;
            }
        }
        let is_over = |until| until <= Instant::now();
        // One that hangs is not left alone with the sockets.
        if self.probation_until.is_some_and(is_over) && (self.is_answered(&server) || self.is_deaf)
        {
            self.settle(&server);
        }
        Turn::Next
    }

    /// Tells the new process what is counted here.
    fn tell(&mut self, server: &Arc<Server>) {
        self.told_at = Instant::now();
        if !self.is_deaf {
            let totals = Totals::of(server);
            match self.new.channel.send_document(&FromOld::Totals, &totals) {
                Ok(()) => {}
                Err(error) if error.is_silence() => {
                    self.is_answered(server);
                }
                Err(_) => self.is_deaf = true,
            }
        }
    }

    /// Asks the new process for an answer. One that gives none within the probation is ended, and
    /// this one takes back what it had; later it is not asked for anything again.
    fn is_answered(&mut self, server: &Arc<Server>) -> bool {
        if self.is_deaf {
            return true;
        }
        let is_answered = self.departures.is_answered(&self.new);
        self.answer_others(server);
        if is_answered {
            return true;
        }
        let is_stopping = self.is_stopping || server.lifecycle.stop_stage() != StopStage::None;
        if self.probation_until.is_some() && !self.is_settled && !is_stopping {
            tracing::error!("upgrade: the new process does not answer, so it is ended");
            self.ended_for = Some("it did not answer");
            self.new.end();
        } else {
            tracing::warn!("upgrade: the new process does not answer, nothing more moves to it");
            self.is_deaf = true;
        }
        false
    }

    /// Moves what can move: all at first, later what was in set-up and is established now.
    fn move_sessions(&mut self, server: &Arc<Server>) {
        if self.is_deaf || self.is_stopping || server.relay().live() == 0 {
            return;
        }
        if let Err(error) = self.departures.pass(server, &mut self.new) {
            tracing::warn!(%error, "upgrade: sessions stay in this process for now");
            if error.is_silent && !self.is_answered(server) {
                return;
            }
        }
        // What the new process knows of this one's connections is outdated.
        self.tell(server);
        self.answer_others(server);
    }

    /// Answers what came while something else was waited for.
    fn answer_others(&mut self, server: &Arc<Server>) {
        for message in std::mem::take(&mut self.departures.others) {
            self.answer(server, message);
        }
    }

    fn wait(&mut self) -> Option<FromNew> {
        match self.new.channel.receive(SPACING) {
            Ok(received) => Some(received.message),
            Err(ChannelError::Silent(_)) => None,
            Err(error) => {
                if !self.is_deaf && !matches!(error, ChannelError::Gone) {
                    tracing::warn!(%error, "upgrade: the new process is not understood");
                }
                self.is_deaf = true;
                // The channel tells nothing any more; the end of the process is looked for.
                let server = self.server.upgrade()?;
                let moment = async { tokio::time::sleep(SPACING / 10).await };
                server.control_runtime().block_on(moment);
                None
            }
        }
    }

    fn answer(&mut self, server: &Arc<Server>, message: FromNew) {
        match message {
            FromNew::Reopen => server.journal().reopen(),
            FromNew::Stop => {
                self.is_stopping = true;
                server.upgrade.stop_wanted.notify_one();
            }
            FromNew::Settled => {
                self.is_settled = true;
                self.probation_until = Some(Instant::now());
            }
            FromNew::Operate {
                pool,
                backend,
                state,
            } => operate(server, &pool, &backend, &state),
            FromNew::StartJob(job) => {
                // A backend of a later configuration is not here, and has no connection here.
                let _ = server.go_on_with(&job);
            }
            FromNew::AbortJob { id } => {
                let _ = server.jobs().abort(id);
            }
            FromNew::Hello(_)
            | FromNew::Built { .. }
            | FromNew::Refused { .. }
            | FromNew::Serving
            | FromNew::Ready { .. }
            | FromNew::Unknown => {}
        }
    }

    fn new_has_ended(&mut self) -> bool {
        matches!(self.new.child.try_wait(), Ok(Some(_)))
    }

    /// The new process has ended. Within the probation, unless it was told to, this one serves
    /// again.
    fn ended(&mut self, server: &Arc<Server>) -> Turn {
        let exit = self.new.child.try_wait().ok().flatten();
        let mut status = self.new.end();
        if let Some(why) = self.ended_for {
            status = format!("{why}: {status}");
        }
        server.upgrade.set_channel(None);
        let is_stopping = self.is_stopping || server.lifecycle.stop_stage() != StopStage::None;
        if is_stopping || self.probation_until.is_none() {
            tracing::info!(status, "upgrade: the new process has ended");
            // Nobody serves: the sooner this process fails, the sooner both are started again.
            if let Some(error) = exit.and_then(SuccessorError::of) {
                server.upgrade.abandon(error);
            }
            // Behind the status, which whoever waits for this end asks for.
            server.upgrade.note_end_of_successor();
            server.upgrade.settled.cancel();
            return Turn::Over;
        }
        server.upgrade.note_end_of_successor();
        tracing::error!(
            status,
            "upgrade: the new process ended within its probation, this one accepts again"
        );
        server.upgrade.failed(format!(
            "the new process ended within its probation ({status})"
        ));
        self.sockets.iter().for_each(|bound| bound.take_back());
        for pool in server.pools() {
            pool.forget_handed_over();
        }
        let listeners = std::mem::take(&mut self.listeners).into_iter();
        let listeners = listeners.map(|(old, bound)| {
            let Some(bound) = bound else {
                return old;
            };
            let origin = ListenerOrigin::Moved(&old);
            Arc::new(Listening::start(&server.proxy, bound, old.rules(), origin))
        });
        let listeners = listeners.collect();
        lock(&server.live).listeners = listeners;
        for participant in &*lock(&server.participants) {
            participant.resume();
        }
        server.upgrade.enter(UpgradePhase::None);
        Turn::Over
    }

    /// Ends the probation: the new process has the sockets alone, and is the service manager's main
    /// one.
    fn settle(&mut self, server: &Arc<Server>) {
        self.probation_until = None;
        let listeners = std::mem::take(&mut self.listeners);
        self.sockets.clear();
        server.give_up_listeners();
        for (listening, _) in listeners.iter().filter(|(_, bound)| bound.is_none()) {
            // Whoever is queued there is served.
            server.proxy.runtime.block_on(listening.stop());
        }
        drop(listeners);
        if is_init() {
            tracing::info!(
                "upgrade: the probation is over; process 1 stays, for the container's sake"
            );
        } else {
            tracing::info!(
                live = server.limits().live(),
                "upgrade: the probation is over"
            );
            server.upgrade.set_successor(None);
            server.lifecycle.succeeded_by(self.new.child.id());
            if server.upgrade.has_manager() {
                let told = server.upgrade.manager_told.notified();
                let wait = async { tokio::time::timeout(MANAGER_TIMEOUT, told).await };
                let _ = server.control_runtime().block_on(wait);
            }
            let _ = self.new.channel.send(&FromOld::Lead);
        }
        server.upgrade.settled.cancel();
    }
}

fn operate(server: &Server, pool: &str, backend: &str, state: &str) {
    let state = match state {
        "ready" => OperatorState::Ready,
        "drain" => OperatorState::Drain,
        "maint" => OperatorState::Maint,
        _ => return,
    };
    let backend = server.pool(pool).and_then(|pool| pool.backend(backend));
    if let Some(backend) = backend {
        server.set_operator(&backend, state);
    }
}
