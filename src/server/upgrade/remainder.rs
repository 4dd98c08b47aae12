//! The old process after it has handed over. It ends its connections, and tells the new one each
//! second what they have counted. Within the probation it keeps the listening sockets open, and
//! accepts again if the new process ends.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

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

/// A listener that was left to the new process, and its socket.
pub(super) type LeftListener = (Arc<Listening>, Arc<Bound>);

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
    /// The other end of the channel is closed.
    is_deaf: bool,
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
                    server.upgrade.forward(Signal::TERM);
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
        }
        if self
            .probation_until
            .is_some_and(|until| until <= Instant::now())
        {
            self.settle(&server);
        }
        Turn::Next
    }

    /// Tells the new process what is counted here.
    fn tell(&mut self, server: &Server) {
        self.told_at = Instant::now();
        if !self.is_deaf {
            let totals = Totals::of(server);
            let told = self.new.channel.send_document(&FromOld::Totals, &totals);
            // One that does not read is not waited for again.
            self.is_deaf = told.is_err();
        }
    }

    /// Moves what can move: all at first, later what was in set-up and is established now.
    fn move_sessions(&mut self, server: &Arc<Server>) {
        if self.is_deaf || self.is_stopping || server.relay().live() == 0 {
            return;
        }
        if let Err(error) = self.departures.pass(server, &mut self.new) {
            tracing::warn!(%error, "upgrade: sessions stay in this process for now");
        }
        // What the new process knows of this one's connections is outdated.
        self.tell(server);
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
            FromNew::Settled => self.probation_until = Some(Instant::now()),
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
        let status = self.new.end();
        let is_stopping = self.is_stopping || server.lifecycle.stop_stage() != StopStage::None;
        if is_stopping || self.probation_until.is_none() {
            tracing::info!(status, "upgrade: the new process has ended");
            // Nobody serves: the sooner this process fails, the sooner both are started again.
            if let Some(error) = exit.and_then(SuccessorError::of) {
                server.upgrade.abandon(error);
            }
            // Not before: the guard that waits for it ends with that error.
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
        self.listeners.clear();
        self.sockets.clear();
        server.give_up_listeners();
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
                let wait = async { tokio::time::timeout(SPACING, told).await };
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
