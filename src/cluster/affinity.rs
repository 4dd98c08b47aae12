//! Where clients belong: questions of the pools to the store, over a connection of their own, so
//! that no exchange holds them up. Many are sent in one piece.
//!
//! An answer is sealed like all else: without the secret nobody sends a client to another backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::keys::{CLAIM, StoreKeys};
use super::seal::ClusterSecret;
use super::store::{Store, StoreError};
use crate::base::backoff::Backoff;
use crate::pool::{AffinityAnswer, AffinityAsk, AffinityQuestion, AffinityStore};
use crate::wire::resp::{RespValue, command};

/// Questions that wait: two seconds of the most that one balancer asks.
const MAX_QUESTIONS: usize = 1_024;
/// Questions in one piece: their answers come within a millisecond of each other.
const MAX_BATCH: usize = 64;
/// Waits after faults, each with full jitter.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Way of the pools to the store.
pub(super) struct AffinityQueue {
    questions: mpsc::Sender<WaitingQuestion>,
    is_there: Arc<AtomicBool>,
}

/// A question whose answer is waited for.
struct WaitingQuestion {
    question: AffinityQuestion,
    answer: oneshot::Sender<AffinityAnswer>,
}

/// The loop that asks.
pub(super) struct AffinityLoop {
    store: Store,
    keys: StoreKeys,
    secret: ClusterSecret,
    questions: mpsc::Receiver<WaitingQuestion>,
    is_there: Arc<AtomicBool>,
}

impl AffinityStore for AffinityQueue {
    fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }

    fn ask(&self, question: AffinityQuestion) -> Option<oneshot::Receiver<AffinityAnswer>> {
        if !self.is_there() {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        let waiting = WaitingQuestion { question, answer };
        self.questions.try_send(waiting).ok().map(|()| answered)
    }
}

impl AffinityLoop {
    pub(super) fn new(store: Store, secret: ClusterSecret) -> (AffinityQueue, AffinityLoop) {
        let (asked, questions) = mpsc::channel(MAX_QUESTIONS);
        // The first question finds out.
        let is_there = Arc::new(AtomicBool::new(true));
        let queue = AffinityQueue {
            questions: asked,
            is_there: Arc::clone(&is_there),
        };
        let asks = AffinityLoop {
            store,
            keys: StoreKeys::new(secret.cluster()),
            secret,
            questions,
            is_there,
        };
        (queue, asks)
    }

    /// Runs until nobody can ask any more.
    pub(super) async fn run(mut self) {
        let mut retries = Backoff::new(FIRST_RETRY, MAX_RETRY);
        let mut waiting = Vec::new();
        // No pool may ever ask: the first question connects.
        while self.questions.recv_many(&mut waiting, MAX_BATCH).await > 0 {
            self.answer(&mut waiting, &mut retries).await;
        }
    }

    /// Answers, and after a fault waits until the store does. Nobody is made to wait with it.
    async fn answer(&mut self, waiting: &mut Vec<WaitingQuestion>, retries: &mut Backoff) {
        let mut asked = std::mem::take(waiting);
        while self.put(std::mem::take(&mut asked)).await.is_err() {
            self.is_there.store(false, Ordering::Relaxed);
            // Those that have been put meanwhile get no answer.
            while self.questions.try_recv().is_ok() {}
            sleep(retries.next().mul_f64(fastrand::f64())).await;
        }
        retries.reset();
        self.is_there.store(true, Ordering::Relaxed);
    }

    /// Puts questions and gives the answers; without one only connects.
    async fn put(&mut self, asked: Vec<WaitingQuestion>) -> Result<(), StoreError> {
        let commands: Vec<_> = asked
            .iter()
            .map(|one| self.command(&one.question))
            .collect();
        let answers = self.store.call_all(&commands).await?;
        let mut again = Vec::new();
        for (waiting, value) in asked.into_iter().zip(answers) {
            let answer = self.read(&waiting.question, &value);
            if answer.is_none() && value != RespValue::Null {
                again.extend(self.overwrite(&waiting.question));
            }
            // Who has asked may have gone on without it.
            let _ = waiting
                .answer
                .send(answer.or_else(|| claimed(&waiting.question, &value)));
        }
        if !again.is_empty() {
            self.store.call_all(&again).await?;
        }
        Ok(())
    }

    fn command(&self, question: &AffinityQuestion) -> Vec<u8> {
        let place = place(question);
        let key = self.keys.client(&place);
        match &question.ask {
            AffinityAsk::Find => command(&[b"GET", key.as_bytes()]),
            AffinityAsk::Claim {
                backend,
                instead_of,
                ttl,
            } => {
                let own = self.secret.seal(&place, backend.as_bytes());
                let before = instead_of.as_ref();
                let before = before.map(|before| self.secret.seal(&place, before.as_bytes()));
                let before = before.unwrap_or_default();
                let ttl = milliseconds(*ttl);
                command(&[
                    b"EVAL",
                    CLAIM.as_bytes(),
                    b"1",
                    key.as_bytes(),
                    &own,
                    &before,
                    ttl.as_bytes(),
                ])
            }
        }
    }

    fn read(&self, question: &AffinityQuestion, value: &RespValue) -> AffinityAnswer {
        let RespValue::Bytes(sealed) = value else {
            return None;
        };
        let backend = self.secret.open(&place(question), sealed)?;
        String::from_utf8(backend.to_vec()).ok()
    }

    /// Command that writes a claim over what nobody with the secret has written.
    fn overwrite(&self, question: &AffinityQuestion) -> Option<Vec<u8>> {
        let AffinityAsk::Claim { backend, ttl, .. } = &question.ask else {
            return None;
        };
        let place = place(question);
        let own = self.secret.seal(&place, backend.as_bytes());
        let (key, ttl) = (self.keys.client(&place), milliseconds(*ttl));
        Some(command(&[
            b"SET",
            key.as_bytes(),
            &own,
            b"PX",
            ttl.as_bytes(),
        ]))
    }
}

/// The backend of a claim that is written over rubbish.
fn claimed(question: &AffinityQuestion, value: &RespValue) -> AffinityAnswer {
    match &question.ask {
        AffinityAsk::Claim { backend, .. } if *value != RespValue::Null => {
            Some(backend.to_string())
        }
        _ => None,
    }
}

/// Place of a client in the store.
fn place(question: &AffinityQuestion) -> String {
    format!("s:{}:{}", question.pool, HEXLOWER.encode(&question.client))
}

fn milliseconds(ttl: Duration) -> String {
    // Nothing expires at once: the store refuses that.
    ttl.as_millis().max(1).to_string()
}
