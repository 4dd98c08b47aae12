//! The loop of a member: an exchange each `interval`, a longer wait after each fault, and a look at
//! who is still there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::exchange::{OwnNumbers, StoreExchange};
use super::operator::{Merged, OperatorKey, OperatorValue};
use super::seal::ClusterSecret;
use super::shared::ClusterShared;
use super::state_file;
use super::status::MemberStatus;
use super::store::{Store, StoreError, shorten};
use super::stored::StoredTable;
use crate::base::backoff::Backoff;
use crate::base::log_throttle::LogThrottle;
use crate::config::Share;
use crate::wire::resp::RespValue;

/// Waits after faults, each with full jitter: soon enough for a restart of the store, and no storm
/// on one that is gone.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(30);
/// States that one exchange writes back; the next one goes on.
const MAX_WRITES: usize = 500;
/// Tries to write a state that others write, too.
const MAX_TRIES: usize = 5;
/// Between two tries to write the file of states: a full disk is no sooner empty.
const FILE_RETRY: Duration = Duration::from_secs(30);
/// Between two log lines of values that nobody with the secret has written.
const REJECTED_SPACING: Duration = Duration::from_secs(60);

/// Between two times that values of another secret are replaced: members with different secrets,
/// as while it is changed, do not write against each other at each exchange.
const REPLACE_SPACING: Duration = Duration::from_secs(30);

/// Why a state is not shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShareError {
    #[error("the store of the cluster gives no answer: {0}")]
    Unavailable(String),
    /// It was sent, and may be in the store.
    #[error("the store of the cluster gives no answer: {0}; the state may be set all the same")]
    Unsure(String),
    #[error("other members set the same state at the same time; ask again")]
    Contended,
    #[error("there are too many states in the cluster")]
    Full,
}

/// A state that the operator sets.
pub(super) struct SetRequest {
    pub key: OperatorKey,
    pub value: OperatorValue,
    pub answer: oneshot::Sender<Result<(), ShareError>>,
}

/// See the module.
pub(super) struct Driver {
    shared: Arc<ClusterShared>,
    store: Store,
    exchange: StoreExchange,
    sources_key: [u8; 16],
    secret: ClusterSecret,
    requests: mpsc::Receiver<SetRequest>,
    retries: Backoff,
    next_try: Instant,
    last_good: Instant,
    /// Members at the latest good exchange, this one among them; before it, as handed over.
    members: u32,
    /// Whether there was a good exchange: until then what was known of the others stays.
    has_heard: bool,
    is_alone: bool,
    has_twin: bool,
    /// Digest of the table that is in the file.
    kept: [u8; 16],
    keeping: Option<JoinHandle<Result<(), String>>>,
    keep_after: Instant,
    rejected_log: LogThrottle,
    replace_after: Instant,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<ClusterShared>,
        secret: ClusterSecret,
        requests: mpsc::Receiver<SetRequest>,
        members: u32,
    ) -> Driver {
        let (settings, now) = (Arc::clone(&shared.settings), Instant::now());
        // States that are known already are in no file of these settings yet.
        let is_empty = shared.table().entries().is_empty();
        let kept = if is_empty {
            shared.table().digest()
        } else {
            [0; 16]
        };
        Driver {
            exchange: StoreExchange::new(
                &shared.id,
                fastrand::u64(..),
                settings.expire,
                secret.clone(),
            ),
            store: Store::new(settings),
            sources_key: secret.hash_key("sources"),
            secret,
            requests,
            retries: Backoff::new(FIRST_RETRY, MAX_RETRY),
            next_try: now,
            last_good: now,
            members,
            has_heard: false,
            is_alone: false,
            has_twin: false,
            kept,
            keeping: None,
            keep_after: now,
            rejected_log: LogThrottle::new(REJECTED_SPACING),
            replace_after: now,
            shared,
        }
    }

    /// Runs until it is told to stop. Then it leaves the cluster.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let now = Instant::now();
            let due = self.next_try.min(now + self.shared.settings.interval);
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(due.saturating_duration_since(now)) => {}
                () = self.shared.wake.notified() => {
                    self.next_try = Instant::now();
                    self.exchange.restart(self.next_try);
                }
                Some(request) = self.requests.recv() => self.set(request).await,
            }
            if Instant::now() >= self.next_try {
                self.attempt().await;
            }
            self.judge();
            self.keep().await;
        }
        if !self.shared.host.is_silent() {
            // The store forgets it anyway.
            let _ = self.store.call_all(&self.exchange.leave()).await;
        }
    }

    /// Makes an exchange, and says when the next one is due.
    async fn attempt(&mut self) {
        let interval = self.shared.settings.interval;
        if self.shared.host.is_silent() {
            self.next_try = Instant::now() + interval;
            return;
        }
        let made = self.exchange_once().await;
        let now = Instant::now();
        match made {
            Ok(()) => {
                self.retries.reset();
                let gap = now.saturating_duration_since(self.last_good);
                self.exchange.members.forgive(gap, now);
                (self.last_good, self.has_heard) = (now, true);
                // Members that have started together do not ask together.
                self.next_try = now + interval.mul_f64(0.95 + 0.1 * fastrand::f64());
                self.members = u32::try_from(self.exchange.members.count() + 1).unwrap_or(u32::MAX);
                let mut status = self.shared.status();
                status.exchanges += 1;
                status.known_members = self.members;
                status.exchanged_at = Some(now);
                status.last_error = None;
            }
            Err(error) => {
                self.next_try = now + self.retries.next().mul_f64(fastrand::f64());
                let error = error.to_string();
                let mut status = self.shared.status();
                status.failures += 1;
                if status.last_error.as_ref() != Some(&error) {
                    tracing::warn!(error, "no exchange with the store of the cluster");
                }
                status.last_error = Some(error);
            }
        }
    }

    async fn exchange_once(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        if !self.store.is_connected() {
            self.exchange.restart(now);
        }
        let own = self.own_numbers();
        let digest = self.shared.applied_digest();
        let commands = self.exchange.first_round(own, digest, now);
        let answers = self.store.call_all(&commands).await?;
        let round = self.exchange.first_answers(answers, Instant::now())?;
        let commands = self.exchange.second_round(&round);
        if commands.is_empty() {
            return Ok(());
        }
        let answers = self.store.call_all(&commands).await?;
        let table = self
            .exchange
            .second_answers(&round, answers, Instant::now())?;
        match table {
            Some(table) if self.shared.shares(Share::Operator) => self.merge(&table).await,
            _ => Ok(()),
        }
    }

    fn own_numbers(&self) -> OwnNumbers {
        let (host, mut own) = (&self.shared.host, OwnNumbers::default());
        if self.shared.shares(Share::Load) || self.shared.shares(Share::Drain) {
            own.loads = host.loads();
        }
        if self.shared.shares(Share::Limits) {
            own.sources = host.sources(self.sources_key, self.members);
        }
        own
    }

    /// Merges the states in the store with those that are known, and writes back what it lacks.
    async fn merge(&mut self, stored: &StoredTable) -> Result<(), StoreError> {
        for (key, entry) in &stored.entries {
            self.shared.take(key, entry);
        }
        let mut missing = self.shared.table().missing_in(&stored.entries);
        missing.retain(|(key, _)| !stored.is_foreign(key));
        let now = Instant::now();
        if missing.iter().any(|(key, _)| stored.is_rejected(key)) {
            if now >= self.replace_after {
                self.replace_after = now + REPLACE_SPACING;
            } else {
                missing.retain(|(key, _)| !stored.is_rejected(key));
            }
        }
        if missing.is_empty() {
            let forgotten = self.exchange.forget(stored);
            if !forgotten.is_empty() {
                self.store.call_all(&forgotten).await?;
            }
            return Ok(());
        }
        let is_whole = missing.len() <= MAX_WRITES;
        let mut commands = Vec::new();
        for (key, entry) in missing.iter().take(MAX_WRITES) {
            let there = stored.entries.get(key).map(|entry| entry.value.to_string());
            tracing::info!(
                pool = key.pool,
                backend = key.backend,
                state = %entry.value,
                by = entry.by,
                rev = entry.rev,
                there,
                "the store lacks a state of the operator: it is written back"
            );
            commands.push(self.exchange.write(key, entry, stored));
        }
        let answers = self.store.call_all(&commands).await?;
        if !is_whole || answers.iter().any(|answer| *answer != RespValue::Number(1)) {
            // Somebody else has written meanwhile.
            self.exchange.restart(Instant::now());
        }
        Ok(())
    }

    async fn set(&mut self, request: SetRequest) {
        // Who has asked may have gone, and was told that nothing was changed.
        if request.answer.is_closed() {
            return;
        }
        let written = self.write(&request).await;
        let SetRequest { key, value, answer } = request;
        if let Err(Ok(())) = answer.send(written) {
            // Nobody else does it here any more.
            self.shared.apply(&key, &value);
        }
    }

    /// Writes a state above all others, and takes it over.
    async fn write(&mut self, request: &SetRequest) -> Result<(), ShareError> {
        let (key, value) = (&request.key, &request.value);
        let unavailable = |error: StoreError| ShareError::Unavailable(error.to_string());
        let unsure = |error: StoreError| ShareError::Unsure(error.to_string());
        for _ in 0..MAX_TRIES {
            let read = self.exchange.read_field(key);
            let answers = self.store.call_all(&[read]).await.map_err(unavailable)?;
            let answer = answers.into_iter().next().unwrap_or(RespValue::Null);
            let stored = self.exchange.field(key, answer);
            for (key, entry) in &stored.entries {
                self.shared.take(key, entry);
            }
            if request.answer.is_closed() {
                return Err(ShareError::Unavailable("no answer in time".to_owned()));
            }
            if !self.shared.table().has_room(key) {
                return Err(ShareError::Full);
            }
            let entry = self.shared.table().next(value.clone(), &self.shared.id);
            let write = self.exchange.write(key, &entry, &stored);
            let answers = self.store.call_all(&[write]).await.map_err(unsure)?;
            match answers.first() {
                Some(RespValue::Number(1)) => {
                    return match self.shared.put_written(key, entry) {
                        Merged::Full => Err(ShareError::Full),
                        _ => Ok(()),
                    };
                }
                Some(RespValue::Error(text)) => return Err(ShareError::Unavailable(shorten(text))),
                _ => {}
            }
        }
        Err(ShareError::Contended)
    }

    /// Looks at who is there, and tells the balancer.
    fn judge(&mut self) {
        let now = Instant::now();
        // They age only while this one hears: without the store all would be gone, and their
        // connections with them.
        for member in self.exchange.members.retire(self.last_good) {
            tracing::warn!(member, "a balancer is gone from the cluster");
        }
        let shared = Arc::clone(&self.shared);
        let is_alone = now.saturating_duration_since(self.last_good) >= shared.settings.expire;
        if shared.host.is_silent() {
            return;
        }
        if is_alone != std::mem::replace(&mut self.is_alone, is_alone) {
            self.log_alone();
        }
        if is_alone {
            shared.host.be_alone(self.members);
        } else if self.has_heard {
            let members = u32::try_from(self.exchange.members.count() + 1).unwrap_or(u32::MAX);
            shared
                .host
                .take_loads(&self.exchange.members.loads(), members);
            if shared.shares(Share::Limits) {
                let sources = self.exchange.members.sources();
                shared.host.take_sources(self.sources_key, sources);
            }
        }
        if shared.shares(Share::Operator) {
            shared.apply_pending();
            shared.host.reconcile(&shared.values());
        }
        let rejected = self.exchange.rejected;
        if rejected > shared.status().rejected && self.rejected_log.is_due(now) {
            tracing::warn!(
                rejected,
                "the store has values that nobody with the secret has written"
            );
        }
        let has_twin = self.exchange.has_twin(now);
        if !std::mem::replace(&mut self.has_twin, has_twin) && has_twin {
            tracing::error!(
                id = shared.id,
                "another balancer of the cluster has the same id"
            );
        }
        self.note_status(now);
    }

    fn log_alone(&self) {
        let cluster = self.shared.settings.name.as_str();
        if self.is_alone {
            let error = self.shared.status().last_error.clone();
            tracing::warn!(
                cluster,
                error,
                "alone: the store cannot be reached, and this balancer goes on by itself"
            );
        } else {
            tracing::info!(cluster, "not alone any more: the store answers");
        }
    }

    fn note_status(&self, now: Instant) {
        let digest = self.shared.table().digest();
        let sights = self.exchange.members.sights(now).into_iter();
        let members = sights.map(|sight| MemberStatus {
            id: sight.id,
            age: sight.age,
            connections: sight.connections,
            operator: sight.operator,
            is_up_to_date: sight.operator == digest,
        });
        let (members, states) = (members.collect(), self.shared.states());
        let mut status = self.shared.status();
        status.is_alone = self.is_alone;
        status.has_twin = self.has_twin;
        status.rejected = self.exchange.rejected;
        status.members = members;
        status.states = states;
        let exchanges = status.exchanges;
        drop(status);
        self.shared
            .exchanges
            .send_if_modified(|count| std::mem::replace(count, exchanges) != exchanges);
    }

    /// Has the states written to their file, once they have changed. A disk that hangs holds up
    /// nobody.
    async fn keep(&mut self) {
        let Some(file) = self.shared.settings.state_file.clone() else {
            return;
        };
        if let Some(keeping) = self.keeping.take_if(|keeping| keeping.is_finished()) {
            let kept = keeping.await.unwrap_or_else(|error| Err(error.to_string()));
            if let Err(error) = kept {
                tracing::warn!(error, "the operator's states cannot be kept in their file");
                self.kept = [0; 16];
                self.keep_after = Instant::now() + FILE_RETRY;
            }
        }
        let digest = self.shared.table().digest();
        if digest == self.kept || self.keeping.is_some() || Instant::now() < self.keep_after {
            return;
        }
        self.kept = digest;
        let (entries, secret) = (self.shared.entries(), self.secret.clone());
        let write = move || state_file::write(&file, &secret, &entries);
        self.keeping = Some(tokio::task::spawn_blocking(write));
    }
}
