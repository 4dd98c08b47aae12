//! Backends of clients in the store, for pools with `affinity`. Clients wait for these answers, for
//! a bounded time: they have a connection of their own, and stand behind no exchange.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::keys::{CLAIM_CLIENT, StoreKeys};
use super::seal::ClusterSecret;
use super::store::{Store, StoreError};
use crate::base::backoff::Backoff;
use crate::config::Cluster;
use crate::pool::{AffinityAnswer, AffinityAsk, AffinityLink, AffinityQuestion, AffinityStore};
use crate::wire::resp::{self, RespValue};

/// Questions that wait for the connection. One that stands behind so many is late anyway.
const MAX_WAITING: usize = 512;
/// Questions that are sent in one piece.
const MAX_BATCH: usize = 64;
/// Waits after faults, each with full jitter.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Makes the link of pools to the store. Its task ends once no pool has it any more.
pub(super) fn link(
    settings: Arc<Cluster>,
    secret: ClusterSecret,
    runtime: &Handle,
) -> AffinityLink {
    let hash_key = secret.hash_key("clients");
    let (queue, waiting) = mpsc::channel(MAX_WAITING);
    let is_there = Arc::new(AtomicBool::new(true));
    let lookups = ClientLookups {
        keys: StoreKeys::new(secret.cluster()),
        secret,
        store: Store::new(settings),
        waiting,
        is_there: Arc::clone(&is_there),
    };
    runtime.spawn(lookups.run());
    AffinityLink::new(&hash_key, Box::new(LookupQueue { queue, is_there }))
}

/// The queue to the task, as pools see it.
struct LookupQueue {
    queue: mpsc::Sender<Waiting>,
    is_there: Arc<AtomicBool>,
}

/// A question that waits, and the place of its answer.
struct Waiting {
    question: AffinityQuestion,
    answer: oneshot::Sender<AffinityAnswer>,
}

impl AffinityStore for LookupQueue {
    fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }

    fn ask(&self, question: AffinityQuestion) -> Option<oneshot::Receiver<AffinityAnswer>> {
        if !self.is_there() {
            return None;
        }
        let (answer, receiver) = oneshot::channel();
        let waiting = Waiting { question, answer };
        self.queue.try_send(waiting).ok().map(|()| receiver)
    }
}

/// The task: sends what waits, and connects anew after a fault.
struct ClientLookups {
    keys: StoreKeys,
    secret: ClusterSecret,
    store: Store,
    waiting: mpsc::Receiver<Waiting>,
    is_there: Arc<AtomicBool>,
}

impl ClientLookups {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while self.waiting.recv_many(&mut batch, MAX_BATCH).await > 0 {
            if let Err(error) = self.answer(&mut batch).await {
                self.is_there.store(false, Ordering::Relaxed);
                tracing::warn!(%error, "clients cannot be looked up in the store of the cluster");
                self.wait_for_store().await;
                self.is_there.store(true, Ordering::Relaxed);
                tracing::info!("clients are looked up in the store of the cluster again");
            }
            batch.clear();
        }
    }

    /// Answers a batch. A connection that the store has closed meanwhile costs a second try.
    async fn answer(&mut self, batch: &mut Vec<Waiting>) -> Result<(), StoreError> {
        let commands: Vec<_> = batch
            .iter()
            .map(|one| self.command(&one.question))
            .collect();
        let was_connected = self.store.is_connected();
        let answers = match self.store.call_all(&commands).await {
            Err(StoreError::Remote(_)) if was_connected => self.store.call_all(&commands).await,
            answers => answers,
        }?;
        for (one, answer) in batch.drain(..).zip(answers) {
            let backend = self.backend(&one.question, &answer);
            // Who has asked may not wait any more.
            let _ = one.answer.send(backend);
        }
        Ok(())
    }

    /// Waits until the store takes commands again. Who asks meanwhile is told that it does not.
    async fn wait_for_store(&mut self) {
        let mut retries = Backoff::new(FIRST_RETRY, MAX_RETRY);
        while !self.waiting.is_closed() {
            // Their answers are given up.
            while self.waiting.try_recv().is_ok() {}
            sleep(retries.next().mul_f64(fastrand::f64())).await;
            if self.store.call_all(&[]).await.is_ok() {
                return;
            }
        }
    }

    fn command(&self, question: &AffinityQuestion) -> Vec<u8> {
        let place = place(question);
        let key = self.keys.client(&place);
        match &question.ask {
            AffinityAsk::Find => resp::command(&[b"GET", key.as_bytes()]),
            AffinityAsk::Claim {
                backend,
                instead_of,
                ttl,
            } => {
                let old = instead_of.as_ref().unwrap_or(backend);
                let sealed = |name: &Arc<str>| self.secret.seal(&place, name.as_bytes());
                let ttl = ttl.as_millis().to_string();
                resp::command(&[
                    b"EVAL",
                    CLAIM_CLIENT.as_bytes(),
                    b"1",
                    key.as_bytes(),
                    &sealed(backend),
                    &sealed(old),
                    ttl.as_bytes(),
                ])
            }
        }
    }

    /// The backend in an answer. `None`: nobody with the secret has written one.
    fn backend(&self, question: &AffinityQuestion, answer: &RespValue) -> AffinityAnswer {
        let RespValue::Bytes(sealed) = answer else {
            return None;
        };
        let name = self.secret.open(&place(question), sealed)?;
        std::str::from_utf8(name).ok().map(str::to_owned)
    }
}

/// Where a client of a pool stands in the store; its value is sealed for this place.
fn place(question: &AffinityQuestion) -> String {
    format!("s:{}:{}", question.pool, HEXLOWER.encode(&question.client))
}
