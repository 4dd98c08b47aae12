//! The errand of a connection that is classified and routed: get it a backend and hand both to the relay. It is run
//! again when the backend does not serve and no byte went either way: nothing was sent to it, so another may.
//!
//! The client is out of tokio here, with its bytes unread. While it waits only its hang-up is watched for: a FIN is
//! no end, as a client may have said all it has to say.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::dispatch::{DispatchError, Wanted, dispatch, failed, tell_of_refusal, try_another};
use super::{Held, Introduction, Place, Proxy, SetupLeg};
use crate::config::Dial;
use crate::net::options::reset_on_close;
use crate::net::{ConnectError, Endpoint, Peer, begin_connect, hung_up, local_address};
use crate::observe::{End, How, Phase, Record, Side};
use crate::pool::{Backend, Lease, Pick, Pool};
use crate::relay::{Framing, Leg, Origin, Policy, Session, Transport, Unserved};

/// The wait after which a client is watched: nearly every connect is done before, and pays no system call for it.
const WATCH_AFTER: Duration = Duration::from_millis(50);

/// The wait for a descriptor: one may be freed by others than our connections.
const RETRY_SHORTAGE: Duration = Duration::from_millis(50);

pub(super) struct Errand {
    pub proxy: Arc<Proxy>,
    /// Weak: a silent session of hours must not keep a configuration alive.
    pub pool: Weak<Pool>,
    pub client: Peer,
    /// For a pool that sends PROXY headers; without it the client's addresses are all that is known.
    pub introduction: Option<Box<Introduction>>,
    /// The value of the pool's `hash_key`.
    pub key: Option<Box<[u8]>>,
    /// Backends that did not serve this connection.
    pub tried: Vec<Arc<Backend>>,
}

impl Errand {
    /// Gives the client a backend, or a RST.
    pub async fn run(mut self, client: Leg, mut record: Record, place: Place) {
        let Some(pool) = self.pool.upgrade() else {
            return refuse(client, record, route_gone());
        };
        let introduced = || Introduction::plain(self.client, local_address(client.socket.as_fd()));
        if pool.settings().send_proxy.is_some() && self.introduction.is_none() {
            self.introduction = Some(Box::new(introduced()));
        }
        let mut wanted = Wanted {
            client: self.client.ip(),
            introduction: self.introduction.as_deref(),
            key: self.key.as_deref(),
            tried: std::mem::take(&mut self.tried),
            ..Wanted::default()
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
                self.adopt(&pool, client, backend, record, lease, place);
            }
            None => {
                let end = End::new(Side::Client, record.phase, How::Rst);
                refuse(client, record, end);
            }
            Some(Err(error)) => {
                tracing::debug!(pool = %pool.name(), %error, "refused");
                refuse(client, record, error.end());
            }
        }
    }

    /// The same without a wait, on a relay thread: picks and begins to connect. What needs a wait (a queue, a handshake
    /// with the backend, another try after one that failed at once) is run by the set-up plane instead, and there is no
    /// session yet.
    pub fn begin(
        self,
        pool: &Arc<Pool>,
        client: Leg,
        mut record: Record,
        place: Place,
    ) -> Option<Session<Held>> {
        let settings = pool.settings();
        record.phase = Phase::Queue;
        // A PROXY header and a handshake are made where they may wait.
        if settings.send_proxy.is_some() || pool.has_tls() {
            self.wait(client, record, place);
            return None;
        }
        let pick = Pick {
            client: self.client.ip(),
            key: self.key.as_deref(),
            ..Pick::default()
        };
        let lease = match pool.acquire_now(&pick) {
            Some(Ok(lease)) => lease,
            Some(Err(error)) => {
                let error = DispatchError::from(error);
                tell_of_refusal(pool, &error);
                refuse(client, record, error.end());
                return None;
            }
            None => {
                self.wait(client, record, place);
                return None;
            }
        };
        let endpoint = lease.backend().endpoint();
        // A reload that came meanwhile sets the TLS before the addresses.
        if pool.has_tls() {
            drop(lease);
            self.wait(client, record, place);
            return None;
        }
        record.phase = Phase::Connect;
        record.assigned(lease.backend().counters());
        let begun = self.begun(pool, Arc::clone(lease.backend()));
        let held = Held::new(lease, place);
        match begin(endpoint, &settings.dial) {
            Ok(socket) => {
                let backend = Leg {
                    socket,
                    transport: Transport::Raw,
                    read: Vec::new(),
                };
                Some(begun.session(pool, client, backend, record, held, true))
            }
            // The client took the last descriptor: it waits, and the next accept finds none and pauses.
            Err(error) if error.is_ours() => {
                begun.errand.wait_for_room(client, record, held.place);
                None
            }
            Err(error) => {
                Box::new(begun).unserved(Unserved::Connect(error), client, record, held);
                None
            }
        }
    }

    /// Hands the session to the relay and is done with it, unless it comes back.
    fn adopt(
        self,
        pool: &Pool,
        client: Leg,
        backend: SetupLeg,
        mut record: Record,
        lease: Lease,
        place: Place,
    ) {
        let backend = match backend.into_leg(Vec::new()) {
            Ok(backend) => backend,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be handed to the relay");
                let end = End::new(Side::Evenkeel, Phase::Connect, How::Error);
                return refuse(client, record, end);
            }
        };
        record.opened();
        let proxy = Arc::clone(&self.proxy);
        let begun = self.begun(pool, Arc::clone(lease.backend()));
        let held = Held::new(lease, place);
        let session = begun.session(pool, client, backend, record, held, false);
        proxy.relay.adopt(session);
    }

    fn begun(self, pool: &Pool, backend: Arc<Backend>) -> Begun {
        Begun {
            connect_timeout: pool.settings().connect_timeout,
            backend,
            at: Instant::now(),
            errand: self,
        }
    }

    /// Goes on in the set-up plane when something was freed, or soon.
    fn wait_for_room(self, client: Leg, record: Record, place: Place) {
        let proxy = Arc::clone(&self.proxy);
        proxy.runtime.clone().spawn(async move {
            let _ = tokio::time::timeout(RETRY_SHORTAGE, proxy.limits.freed()).await;
            self.run(client, record, place).await;
        });
    }

    /// Goes on in the set-up plane.
    fn wait(self, client: Leg, record: Record, place: Place) {
        let runtime = self.proxy.runtime.clone();
        runtime.spawn(self.run(client, record, place));
    }
}

fn begin(endpoint: Option<Endpoint>, dial: &Dial) -> Result<OwnedFd, ConnectError> {
    match endpoint {
        Some(endpoint) => begin_connect(&endpoint, dial),
        None => Err(ConnectError::unresolved()),
    }
}

/// An errand whose backend is connected, or about to be, and has not served yet.
struct Begun {
    errand: Errand,
    backend: Arc<Backend>,
    /// When the connect began; of one that the set-up plane made, when it was done.
    at: Instant,
    connect_timeout: Duration,
}

impl Begun {
    fn session(
        self,
        pool: &Pool,
        client: Leg,
        backend: Leg,
        record: Record,
        held: Held,
        connecting: bool,
    ) -> Session<Held> {
        Session {
            client,
            backend,
            framing: Framing::Bytes,
            connecting,
            policy: Policy::of(&pool.settings()),
            record,
            lease: held,
            origin: Some(Box::new(self)),
            resumption: None,
        }
    }

    /// Whether another try is to be made. A failed connect is charged to the backend, and so is a reset so early that it
    /// can be no answer to a client's silence: that would let silent clients eject good backends. A FIN is the backend's
    /// orderly word and charged to nobody.
    fn may_try_another(&mut self, pool: &Pool, why: Unserved) -> Result<(), End> {
        let failed = |tried: &mut Vec<_>, backend, error| {
            failed(pool, tried, backend, error).map_err(|error| {
                tell_of_refusal(pool, &error);
                error.end()
            })
        };
        let (backend, tried) = (Arc::clone(&self.backend), &mut self.errand.tried);
        match why {
            Unserved::Connect(error) => failed(tried, backend, error),
            Unserved::ConnectTimeout => {
                let error = ConnectError::TimedOut(self.connect_timeout);
                failed(tried, backend, error)
            }
            Unserved::Reset => {
                let now = Instant::now();
                if now.duration_since(self.at) <= self.connect_timeout {
                    backend.connect_failed(now, "reset before the first byte");
                }
                let end = End::new(Side::Backend, Phase::Connect, How::Rst);
                try_another(pool, tried, backend).then_some(()).ok_or(end)
            }
            Unserved::Fin => {
                let end = End::new(Side::Backend, Phase::Connect, How::Fin);
                try_another(pool, tried, backend).then_some(()).ok_or(end)
            }
        }
    }
}

impl Origin<Held> for Begun {
    fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    fn connected(&mut self, record: &mut Record) {
        let now = Instant::now();
        self.backend.connected(now);
        record.connected(now.duration_since(self.at));
        record.opened();
    }

    fn has_other(&self) -> bool {
        let Some(pool) = self.errand.pool.upgrade() else {
            return false;
        };
        let mut tried = self.errand.tried.clone();
        tried.push(Arc::clone(&self.backend));
        tried.len() <= pool.settings().retries as usize && pool.has_other(&tried)
    }

    fn unserved(mut self: Box<Self>, why: Unserved, client: Leg, mut record: Record, held: Held) {
        let Held { lease, place } = held;
        drop(lease);
        record.phase = Phase::Connect;
        let Some(pool) = self.errand.pool.upgrade() else {
            return refuse(client, record, route_gone());
        };
        match self.may_try_another(&pool, why) {
            Ok(()) => self.errand.wait(client, record, place),
            Err(end) => refuse(client, record, end),
        }
    }
}

/// The client hung up while it waited for long.
async fn left_waiting(client: BorrowedFd<'_>) {
    tokio::time::sleep(WATCH_AFTER).await;
    hung_up(client).await;
}

/// A reload has removed its pool.
fn route_gone() -> End {
    End::new(Side::Evenkeel, Phase::Route, How::Refused)
}

/// A refusal is a RST: nothing must look like an orderly, empty answer.
pub(super) fn refuse(client: Leg, record: Record, end: End) {
    reset_on_close(client.socket.as_fd());
    drop(client);
    record.finish(end);
}
