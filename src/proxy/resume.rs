//! Another backend for a WebSocket that has lost its own: pick, reach, the client's handshake once more with a header that
//! says what is taken over, and a 101 that agrees to the same as the first one did.
//!
//! The client knows nothing of it, so nothing of the second 101 is told to it.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::header::{HeaderName, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::backend_line::{self, Upload};
use super::dialogue::Dialogue;
use super::dispatch::charge;
use super::reach::Approach;
use super::{Held, Introduction, Proxy, SetupLeg};
use crate::base::backoff::Backoff;
use crate::config;
use crate::net::Peer;
use crate::pool::{Backend, Pick, Pool};
use crate::relay::{Gone, Resumption, Seeker, Successor};
use crate::wire::websocket::{self, Offer};

/// Handshakes of this kind under way at once: what a backend of thousands leaves behind must not come to the others in one
/// moment, and each takes a few milliseconds.
pub const MAX_RESUMING: usize = 128;
/// Between two tries of one session: the first after a moment in which a restarting node may have come back.
const RETRY_AFTER: Duration = Duration::from_millis(50);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);

/// What is kept of a client's handshake.
pub(super) struct Handshake {
    /// As it was sent to the first backend: the target, then a line for each field.
    head: Arc<[u8]>,
    offer: Offer,
    agreed: Agreed,
}

/// What an answer agrees to: what the client goes by to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Agreed {
    protocol: Option<String>,
    extensions: Option<String>,
}

/// A session's way to another backend.
pub(super) struct Way {
    pub proxy: Arc<Proxy>,
    /// Weak: a silent session of hours must not keep a configuration alive.
    pub pool: Weak<Pool>,
    pub client: Peer,
    /// For a pool that sends PROXY headers.
    pub introduction: Option<Box<Introduction>>,
    /// The value of the pool's `hash_key`.
    pub key: Option<Arc<[u8]>>,
    pub handshake: Handshake,
    pub header: HeaderName,
    /// Bounds the wait for a 101.
    pub upgrade_timeout: Duration,
    /// The record's.
    pub id: u64,
    /// Backends that it has lost.
    pub count: u32,
    /// Before a search, as long as each backend goes as soon as it comes.
    pub spacing: Backoff,
}

impl Handshake {
    /// Of a request as it was sent, and its answer. `None`: they agreed to what another backend could not go on with, as it
    /// is not known here.
    pub(super) fn of(
        target: &Uri,
        sent: &HeaderMap,
        offer: &Offer,
        answer: &HeaderMap,
    ) -> Option<Handshake> {
        let extensions = answer.get_all(SEC_WEBSOCKET_EXTENSIONS);
        if !extensions.iter().all(websocket::is_resumable) {
            return None;
        }
        let mut head = target.to_string().into_bytes();
        for (name, value) in sent {
            head.push(b'\n');
            head.extend_from_slice(name.as_str().as_bytes());
            head.push(b':');
            head.extend_from_slice(value.as_bytes());
        }
        Some(Handshake {
            head: head.into(),
            offer: offer.clone(),
            agreed: Agreed::of(answer),
        })
    }
}

impl Agreed {
    fn of(answer: &HeaderMap) -> Agreed {
        Agreed {
            protocol: list(answer, &SEC_WEBSOCKET_PROTOCOL),
            extensions: list(answer, &SEC_WEBSOCKET_EXTENSIONS),
        }
    }
}

/// The values of a field without what may be written in more than one way.
fn list(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values = headers.get_all(name).iter();
    let plain = |value: &HeaderValue| {
        let text = String::from_utf8_lossy(value.as_bytes()).to_string();
        text.split_ascii_whitespace().collect::<String>()
    };
    let values: Vec<String> = values.map(plain).collect();
    (!values.is_empty()).then(|| values.join(","))
}

impl Way {
    /// What [`Way::spacing`] begins with.
    pub(super) fn spacing() -> Backoff {
        Backoff::new(RETRY_AFTER, RETRY_AFTER_MAX)
    }

    /// As the relay takes it.
    pub(super) fn into_resumption(self, resume: &config::Resume) -> Box<Resumption<Held>> {
        Box::new(Resumption {
            max_buffer: resume.max_buffer as usize,
            timeout: resume.timeout,
            seeker: Box::new(self),
        })
    }
}

impl Seeker<Held> for Way {
    fn seek(&mut self, gone: Gone, held: &mut Held) -> DropGuard {
        let before = held.lease.take().map(|lease| Arc::clone(lease.backend()));
        self.count = self.count.saturating_add(1);
        let wait = match gone.was_short {
            true => jittered(self.spacing.next()),
            false => {
                self.spacing.reset();
                Duration::ZERO
            }
        };
        let stop = CancellationToken::new();
        let search = Search {
            proxy: Arc::clone(&self.proxy),
            pool: self.pool.clone(),
            client: self.client.ip(),
            introduction: self.introduction.clone(),
            key: self.key.clone(),
            head: Arc::clone(&self.handshake.head),
            offer: self.handshake.offer.clone(),
            agreed: self.handshake.agreed.clone(),
            note: (self.header.clone(), note(self.count, &gone)),
            upgrade_timeout: self.upgrade_timeout,
            id: self.id,
        };
        let (proxy, stopped) = (Arc::clone(&self.proxy), stop.clone());
        proxy.runtime.clone().spawn(async move {
            let tried = before.into_iter().collect();
            // Dropping the search closes what it has begun.
            let found = tokio::select! {
                biased;
                () = stopped.cancelled() => return,
                found = async {
                    sleep(wait).await;
                    search.run(tried).await
                } => found,
            };
            match found {
                Some(successor) => proxy.relay.attach(gone.session, successor),
                None => proxy.relay.forsake(gone.session),
            }
        });
        stop.drop_guard()
    }
}

/// What the next backend is told: how many there were, the latest of them, and how many messages of the client may be lost.
/// In the form of parameters (RFC 9110 section 5.6.6).
fn note(count: u32, gone: &Gone) -> HeaderValue {
    let from = gone.from.as_deref().unwrap_or("");
    let escaped = from.replace('\\', "\\\\").replace('"', "\\\"");
    let text = format!("count={count}; from=\"{escaped}\"; lost={}", gone.lost);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("count=1; lost=unknown"))
}

/// One search for a backend.
struct Search {
    proxy: Arc<Proxy>,
    pool: Weak<Pool>,
    client: Option<IpAddr>,
    introduction: Option<Box<Introduction>>,
    key: Option<Arc<[u8]>>,
    head: Arc<[u8]>,
    offer: Offer,
    agreed: Agreed,
    note: (HeaderName, HeaderValue),
    upgrade_timeout: Duration,
    id: u64,
}

/// Why a backend did not take it.
enum Refused {
    /// Another one may, or the same one later.
    ForNow(String),
    /// No other will.
    ForGood(String),
}

impl Search {
    /// Goes on until it is dropped: the relay bounds it. `None`: there will be no other.
    async fn run(&self, mut tried: Vec<Arc<Backend>>) -> Option<Successor<Held>> {
        let mut spacing = Way::spacing();
        loop {
            // Looked up each time: a reload may have removed it.
            let pool = self.pool.upgrade()?;
            let refused = match self.try_one(&pool, &mut tried).await {
                Ok(successor) => return Some(successor),
                Err(refused) => refused,
            };
            match refused {
                Refused::ForNow(why) => {
                    tracing::debug!(id = self.id, pool = %pool.name(), why, "not resumed yet");
                }
                Refused::ForGood(why) => {
                    tracing::debug!(id = self.id, pool = %pool.name(), why, "not resumed");
                    return None;
                }
            }
            sleep(jittered(spacing.next())).await;
        }
    }

    /// One pick, one connect and one handshake.
    async fn try_one(
        &self,
        pool: &Arc<Pool>,
        tried: &mut Vec<Arc<Backend>>,
    ) -> Result<Successor<Held>, Refused> {
        let pick = Pick {
            client: self.client,
            key: self.key.as_deref(),
            preferred: None,
            tried,
        };
        let lease = pool.acquire(&pick).await;
        let lease = lease.map_err(|error| Refused::ForNow(error.to_string()))?;
        let backend = Arc::clone(lease.backend());
        // Behind the pick: who waits in the queue of one pool must not keep those of others from theirs.
        let turn = self.proxy.resuming.acquire().await;
        let turn = turn.map_err(|error| Refused::ForGood(error.to_string()))?;
        let taken = self.take(pool, &backend).await;
        drop(turn);
        if taken.is_err() && !tried.iter().any(|one| Arc::ptr_eq(one, &backend)) {
            tried.push(Arc::clone(&backend));
        }
        let (leg, read, connect_time) = taken?;
        let tls = leg.tls_version();
        let leg = leg
            .into_leg(read)
            .map_err(|error| Refused::ForNow(error.to_string()))?;
        Ok(Successor {
            leg,
            seat: Box::new(move |held, record| {
                record.reassigned(lease.backend().counters());
                record.connected(connect_time);
                record.encrypted(tls);
                held.lease = Some(lease);
            }),
        })
    }

    /// Connects and shakes hands: the leg, what was read of it behind its 101, and how long the connect took.
    async fn take(
        &self,
        pool: &Pool,
        backend: &Backend,
    ) -> Result<(SetupLeg, Vec<u8>, Duration), Refused> {
        let approach = Approach::to(backend, pool);
        let settings = &approach.settings;
        let begun = Instant::now();
        let header = settings.send_proxy.map(|version| {
            let nobody = || Introduction::plain(Peer::Unix, None);
            let known = self.introduction.as_deref().cloned();
            known.unwrap_or_else(nobody).header(version, self.id)
        });
        let leg = match approach.reach(backend, header).await {
            Ok(leg) => leg,
            Err(error) => {
                charge(backend, &error, Instant::now());
                return Err(Refused::ForNow(format!(
                    "connect to {}: {error}",
                    backend.name()
                )));
            }
        };
        let now = Instant::now();
        backend.connected(now);
        let shaken = timeout(self.upgrade_timeout, self.shake(leg, settings)).await;
        let (leg, read) =
            shaken.unwrap_or_else(|_| Err(Refused::ForNow("no 101 in time".to_owned())))?;
        Ok((leg, read, now - begun))
    }

    async fn shake(
        &self,
        leg: SetupLeg,
        settings: &config::Pool,
    ) -> Result<(SetupLeg, Vec<u8>), Refused> {
        let for_now = |error: &dyn std::fmt::Display| Refused::ForNow(error.to_string());
        let dialogue = Arc::new(Dialogue::new(settings.idle_timeout));
        let line = backend_line::open(leg, &dialogue, settings).await;
        let mut line = line.map_err(|error| for_now(&error))?;
        let request = self.request(Upload::new(None, &dialogue));
        let request = request.ok_or_else(|| Refused::ForGood("no head is kept".to_owned()))?;
        let response = line.sender.send_request(request).await;
        let response = response.map_err(|error| for_now(&error))?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(match status.is_client_error() && !may_change(status) {
                true => Refused::ForGood(format!("the answer is {status}")),
                false => Refused::ForNow(format!("the answer is {status}")),
            });
        }
        websocket::check_response(status, response.headers(), &self.offer)
            .map_err(|error| for_now(&error))?;
        let agreed = Agreed::of(response.headers());
        if agreed != self.agreed {
            let why = format!("it agrees to {agreed:?} in place of {:?}", self.agreed);
            return Err(Refused::ForGood(why));
        }
        drop((response, line.sender));
        match line.driver.await {
            Ok(Some(parts)) => Ok((parts.io.into_inner().into_inner(), parts.read_buf.to_vec())),
            _ => Err(Refused::ForNow("it ended behind its 101".to_owned())),
        }
    }

    fn request(&self, body: Upload) -> Option<Request<Upload>> {
        let mut lines = self.head.split(|byte| *byte == b'\n');
        let target = std::str::from_utf8(lines.next()?).ok()?;
        let mut request = Request::builder().uri(target).body(body).ok()?;
        let headers = request.headers_mut();
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at(colon);
            headers.append(
                HeaderName::from_bytes(name).ok()?,
                HeaderValue::from_bytes(&value[1..]).ok()?,
            );
        }
        let (name, value) = self.note.clone();
        headers.insert(name, value);
        Some(request)
    }
}

/// So that what was lost together does not come together.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + fastrand::f64())
}

/// A client's error that may be none at the next try: 408, 425, 429 (RFC 9110, 8470, 6585).
fn may_change(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_head_comes_back_as_it_was_with_the_note_behind() {
        let mut sent = HeaderMap::new();
        for (name, value) in [
            ("host", "a.example"),
            ("x-odd", "a:b \u{e9}"),
            ("x-twice", "1"),
            ("x-twice", "2"),
        ] {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            sent.append(HeaderName::from_static(name), value);
        }
        let offer = Offer {
            key: "k".to_owned(),
            protocols: Vec::new(),
        };
        let mut answer = HeaderMap::new();
        let deflate = HeaderValue::from_static("permessage-deflate;  Server_no_context_takeover");
        answer.insert(SEC_WEBSOCKET_EXTENSIONS, deflate);
        let target: Uri = "/x?y=1".parse().unwrap();
        let kept = Handshake::of(&target, &sent, &offer, &answer).unwrap();
        let text = String::from_utf8_lossy(&kept.head).to_string();
        assert!(
            text.starts_with("/x?y=1\nhost:a.example\nx-odd:a:b"),
            "{text}"
        );
        assert_eq!(text.matches("\nx-twice:").count(), 2);
        let spaced = HeaderValue::from_static("permessage-deflate; Server_no_context_takeover");
        answer.insert(SEC_WEBSOCKET_EXTENSIONS, spaced);
        assert_eq!(Agreed::of(&answer), kept.agreed);
        answer.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static("x-own"));
        assert!(Handshake::of(&target, &sent, &offer, &answer).is_none());
    }
}
