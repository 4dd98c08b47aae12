//! The errand of a connection that is classified and routed: get it a backend and hand both to the relay. It is run
//! again when the backend resets before any byte went either way: nothing was sent to it, so another may serve.
//!
//! The client is out of tokio here, with its bytes unread. While it waits only its hang-up is watched for: a FIN is
//! no end, as a client may have said all it has to say.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::dispatch::{Wanted, dispatch};
use super::{Proxy, Slot};
use crate::net::options::reset_on_close;
use crate::net::{Stream, hung_up};
use crate::observe::{End, How, Phase, Record, Side};
use crate::pool::{Backend, Lease, Pool};
use crate::relay::{Leg, Policy, Session, Transport};

/// The wait after which a client is watched: nearly every connect is done before, and pays no system call for it.
const WATCH_AFTER: Duration = Duration::from_millis(50);

pub(super) struct Errand {
    pub proxy: Arc<Proxy>,
    /// Weak: a silent session of hours must not keep a configuration alive.
    pub pool: Weak<Pool>,
    pub client: Option<IpAddr>,
    /// The value of the pool's `hash_key`.
    pub key: Option<Box<[u8]>>,
    /// Backends that failed this connection.
    pub tried: Vec<Arc<Backend>>,
    pub slot: Arc<Slot>,
}

impl Errand {
    /// Gives the client a backend, or a RST.
    pub async fn run(mut self, client: Leg, mut record: Box<Record>) {
        // A pool that lets its clients wait must not use up the places in set-up of all listeners.
        self.slot.adopted();
        let Some(pool) = self.pool.upgrade() else {
            return refuse(
                client,
                *record,
                End::new(Side::Evenkeel, Phase::Route, How::Refused),
            );
        };
        let mut wanted = Wanted {
            client: self.client,
            key: self.key.as_deref(),
            tried: std::mem::take(&mut self.tried),
        };
        // Both may be dropped: dispatch leaves the queue or gives its lease back, the watch takes nothing.
        let dispatched = tokio::select! {
            biased;
            dispatched = dispatch(&pool, &mut wanted, &mut record) => Some(dispatched),
            () = left_waiting(client.socket.as_fd()) => None,
        };
        match dispatched {
            Some(Ok((backend, lease))) => {
                self.tried = wanted.tried;
                self.adopt(&pool, client, backend, lease, record);
            }
            None => {
                let end = End::new(Side::Client, record.phase, How::Rst);
                refuse(client, *record, end);
            }
            Some(Err(error)) => {
                tracing::debug!(pool = %pool.name(), %error, "refused");
                refuse(client, *record, error.end());
            }
        }
    }

    /// Hands the session to the relay and is done with it, unless it comes back.
    fn adopt(
        self,
        pool: &Pool,
        client: Leg,
        backend: Stream,
        lease: Lease,
        mut record: Box<Record>,
    ) {
        let socket = match backend.into_owned_fd() {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be handed to the relay");
                return refuse(
                    client,
                    *record,
                    End::new(Side::Evenkeel, Phase::Connect, How::Error),
                );
            }
        };
        record.opened();
        let proxy = Arc::clone(&self.proxy);
        let picked = Arc::clone(lease.backend());
        let slot = Arc::clone(&self.slot);
        proxy.relay.adopt(Session {
            client,
            backend: Leg {
                socket,
                transport: Transport::Raw,
                read: Vec::new(),
            },
            policy: Policy::of(&pool.settings()),
            record,
            lease: Box::new((lease, slot)),
            give_back: Some(Box::new(move |client, record| {
                self.again(picked, client, record)
            })),
        });
    }

    /// The backend accepted the connection and reset it untouched: a failed connect in all but name.
    fn again(mut self, failed: Arc<Backend>, client: Leg, record: Box<Record>) {
        failed.connect_failed(Instant::now(), "reset before the first byte");
        let pool = self.pool.upgrade();
        let Some(pool) = pool.filter(|pool| self.tried.len() < pool.settings().retries as usize)
        else {
            return refuse(
                client,
                *record,
                End::new(Side::Backend, Phase::Connect, How::Rst),
            );
        };
        pool.counters().retries.fetch_add(1, Ordering::Relaxed);
        self.tried.push(failed);
        let runtime = self.proxy.runtime.clone();
        runtime.spawn(self.run(client, record));
    }
}

/// The client hung up while it waited for long.
async fn left_waiting(client: BorrowedFd<'_>) {
    tokio::time::sleep(WATCH_AFTER).await;
    hung_up(client).await;
}

/// A refusal is a RST: nothing must look like an orderly, empty answer.
pub(super) fn refuse(client: Leg, record: Record, end: End) {
    reset_on_close(client.socket.as_fd());
    drop(client);
    record.finish(end);
}
