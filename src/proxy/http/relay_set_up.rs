//! The set-up of a plain WebSocket on a relay thread: its request is read, routed and sent on, and
//! its 101 verified, without a change of threads. Whatever waits, or is no such request, goes on in
//! the set-up plane from where it is.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend_stream::BackendStream;
use super::client_stream::{ClientStream, Request};
use super::connection::HttpConnection;
use super::own_response::OwnResponse;
use super::request_record::RequestRecord;
use super::upgrade::{PendingUpgrade, SentUpgrade, UpgradeStart};
use super::upgraded::SessionTerms;
use super::{Begin, refusal, routing, serve_from};
use crate::admission::ConnectionPermit;
use crate::net::{ConnectError, Endpoint, OVERDUE_AFTER, Peer, Stream};
use crate::observe::{ConnectionRecord, Phase, Termination};
use crate::pool::Lease;
use crate::proxy::client::ClientConnection;
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::proxy::connect::repeat::Contact;
use crate::proxy::connect::{ConnectAttempt, ConnectNow, RetryState, RetryStep, connect_now};
use crate::relay::{
    ConnectFailure, LeftBackend, LeftSetUp, NewSession, SetUp, SetUpStep, SocketHandoff,
};
use crate::wire::http::{Asked, Event, NextHop, RequestReader, ResponseReader};

/// A client of a plain `websocket` listener, on a relay thread.
pub(in crate::proxy) struct RelaySetUp {
    permit: ConnectionPermit,
    /// `None`: only while it takes a step.
    state: Option<SetUpState>,
}

enum SetUpState {
    Head(Box<AwaitedHead>),
    Upgrade(Box<RelayUpgrade>),
    Refused(Box<RefusedRequest>),
}

/// A client whose head has not come.
struct AwaitedHead {
    client: ClientConnection,
    record: ConnectionRecord,
    reader: RequestReader,
}

/// A request that is answered by the set-up plane.
struct RefusedRequest {
    http: Arc<HttpConnection>,
    request: Request,
    record: ConnectionRecord,
    response: OwnResponse,
    /// Bytes of its head.
    length: usize,
}

/// An upgrade on its way.
struct RelayUpgrade {
    pending: PendingUpgrade,
    record: ConnectionRecord,
    /// Bytes of its head, until they are taken.
    length: usize,
    /// Present where the next step waits.
    step: Option<RetryStep>,
    /// Present while a backend is connected, or about to be.
    attempt: Option<(Lease, ConnectAttempt, Instant)>,
    /// Present behind a verified 101.
    terms: Option<SessionTerms>,
}

impl RelaySetUp {
    pub(in crate::proxy) fn new(client: ClientConnection, permit: ConnectionPermit) -> RelaySetUp {
        let mut record = client.record();
        record.enter(Phase::Head);
        let limits = client.listener.config.head_limits();
        let reader = RequestReader::new(limits);
        let head = AwaitedHead {
            client,
            record,
            reader,
        };
        RelaySetUp {
            permit,
            state: Some(SetUpState::Head(Box::new(head))),
        }
    }

    /// Begins with a request, if it is one that can be served here.
    fn begin(&mut self, read: &[u8], length: usize) -> SetUpStep {
        let Some(SetUpState::Head(mut awaited)) = self.state.take() else {
            return SetUpStep::Leave;
        };
        let head = read.get(..length).unwrap_or_default();
        if !awaited.reader.head(head).is_upgrade() {
            self.state = Some(SetUpState::Head(awaited));
            return SetUpStep::Leave;
        }
        let request = Request::new(head.to_vec(), awaited.reader.take_parsed());
        let http = Arc::new(HttpConnection::plain(awaited.client, awaited.record));
        http.count_request();
        let mut record = RequestRecord::new(&http);
        record.begins();
        let refused = match routing::route(&http, request.view(), &mut record) {
            Err(response) => Box::new((request, response)),
            Ok(routed) => match PendingUpgrade::new(&http, routed, request) {
                Err(refused) => refused,
                Ok(pending) => return self.start(pending, record, length),
            },
        };
        let Some(record) = record.into_record() else {
            return SetUpStep::Leave;
        };
        let (request, response) = *refused;
        self.state = Some(SetUpState::Refused(Box::new(RefusedRequest {
            http,
            request,
            record,
            response,
            length,
        })));
        SetUpStep::Leave
    }

    /// Begins the search for a backend.
    fn start(
        &mut self,
        pending: PendingUpgrade,
        record: RequestRecord,
        length: usize,
    ) -> SetUpStep {
        let Some(mut record) = record.into_record() else {
            return SetUpStep::Leave;
        };
        let step = RetryState::begin(&mut record);
        let upgrade = Box::new(RelayUpgrade {
            pending,
            record,
            length,
            step: None,
            attempt: None,
            terms: None,
        });
        self.advance(upgrade, step)
    }

    /// Takes the search as far as it goes without a wait.
    fn advance(&mut self, mut upgrade: Box<RelayUpgrade>, step: RetryStep) -> SetUpStep {
        let RelayUpgrade {
            pending, record, ..
        } = &mut *upgrade;
        let pool = Arc::clone(&pending.routed.pool);
        let next = match connect_now(&mut pending.search, step, &pool, record) {
            ConnectNow::Begun(socket, lease, attempt) => {
                let idle = &pending.http.connection.proxy.idle;
                idle.make_room(lease.backend());
                let request = pending.outgoing().write(lease.backend(), NextHop::Upgrade);
                let taken = std::mem::take(&mut upgrade.length);
                upgrade.attempt = Some((lease, attempt, Instant::now()));
                SetUpStep::Connect {
                    socket,
                    request,
                    taken,
                }
            }
            ConnectNow::Waits(step) | ConnectNow::Short(step) => {
                upgrade.step = Some(step);
                SetUpStep::Leave
            }
            ConnectNow::Refused(error) => {
                let response = refusal::unavailable(&pool, &error, upgrade.record.id);
                self.state = Some(SetUpState::Refused(Box::new(upgrade.refused(response))));
                return SetUpStep::Leave;
            }
        };
        self.state = Some(SetUpState::Upgrade(upgrade));
        next
    }

    fn upgrade(&mut self) -> Option<&mut RelayUpgrade> {
        match &mut self.state {
            Some(SetUpState::Upgrade(upgrade)) => Some(upgrade),
            _ => None,
        }
    }
}

impl RelayUpgrade {
    fn refused(self: Box<Self>, response: OwnResponse) -> RefusedRequest {
        RefusedRequest {
            http: self.pending.http,
            request: self.pending.request,
            record: self.record,
            response,
            length: self.length,
        }
    }

    /// Looks at all that the backend has sent.
    fn answer(&mut self, read: &[u8]) -> SetUpStep {
        let Some((lease, ..)) = &self.attempt else {
            return SetUpStep::Leave;
        };
        let limits = self.pending.routed.settings.http.head_limits();
        let mut reader = ResponseReader::new(limits, Asked::Upgrade);
        let length = match reader.next(read) {
            Ok(None) => return SetUpStep::Wait,
            Ok(Some(Event::Head(length))) => length,
            Ok(Some(_)) | Err(_) => return SetUpStep::Leave,
        };
        let head = reader.head(read.get(..length).unwrap_or_default());
        if head.status() != 101 {
            return SetUpStep::Leave;
        }
        // A wrong one is told, and logged, by the set-up plane.
        let Ok(agreed) = self.pending.agree(head, lease, self.record.id) else {
            return SetUpStep::Leave;
        };
        self.terms = Some(agreed.session);
        self.record.answered_by_backend(101);
        SetUpStep::Switch {
            answer: agreed.head,
            taken: length,
        }
    }
}

impl SetUp for RelaySetUp {
    fn request(&mut self, read: &[u8]) -> SetUpStep {
        let Some(SetUpState::Head(awaited)) = &mut self.state else {
            return SetUpStep::Leave;
        };
        match awaited.reader.next(read) {
            Ok(None) => SetUpStep::Wait,
            Ok(Some(Event::Head(length))) => self.begin(read, length),
            Ok(Some(_)) | Err(_) => SetUpStep::Leave,
        }
    }

    fn connected(&mut self) {
        if let Some(upgrade) = self.upgrade()
            && let Some((_, attempt, begun)) = &mut upgrade.attempt
        {
            let now = Instant::now();
            attempt.connected(&mut upgrade.record, now);
            upgrade.record.enter(Phase::Upgrade);
            *begun = now;
        }
    }

    fn gives_up(&mut self, waited: Duration) -> Option<ConnectFailure> {
        let upgrade = self.upgrade()?;
        let (_, attempt, _) = upgrade.attempt.as_mut()?;
        let PendingUpgrade { routed, search, .. } = &upgrade.pending;
        if waited >= routed.settings.connect_timeout {
            return Some(ConnectFailure::ConnectTimeout);
        }
        let gives_up =
            waited >= OVERDUE_AFTER && search.gives_up(&routed.pool, attempt, Instant::now());
        gives_up.then_some(ConnectFailure::Connect(ConnectError::TimedOut(waited)))
    }

    fn failed(&mut self, failure: ConnectFailure) -> SetUpStep {
        let Some(SetUpState::Upgrade(mut upgrade)) = self.state.take() else {
            return SetUpStep::Leave;
        };
        let Some((lease, attempt, _)) = upgrade.attempt.take() else {
            self.state = Some(SetUpState::Upgrade(upgrade));
            return SetUpStep::Leave;
        };
        drop(lease);
        let RelayUpgrade {
            pending, record, ..
        } = &mut *upgrade;
        let pool = Arc::clone(&pending.routed.pool);
        let step = pending.search.failed(&pool, attempt, failure, record);
        self.advance(upgrade, step)
    }

    fn answer(&mut self, read: &[u8]) -> SetUpStep {
        match self.upgrade() {
            Some(upgrade) => upgrade.answer(read),
            None => SetUpStep::Leave,
        }
    }

    fn into_session(
        self: Box<Self>,
        client: SocketHandoff,
        backend: SocketHandoff,
    ) -> Option<NewSession> {
        let Some(SetUpState::Upgrade(upgrade)) = self.state else {
            return None;
        };
        let (lease, ..) = upgrade.attempt?;
        let upgraded = upgrade
            .pending
            .upgraded(upgrade.terms?, upgrade.record, lease);
        Some(upgraded.into_session(client, backend, self.permit))
    }

    fn leave(self: Box<Self>, left: LeftSetUp) {
        let RelaySetUp { permit, state } = *self;
        let Some(state) = state else { return };
        let connection = match &state {
            SetUpState::Head(awaited) => &awaited.client,
            SetUpState::Upgrade(upgrade) => &upgrade.pending.http.connection,
            SetUpState::Refused(refused) => &refused.http.connection,
        };
        let runtime = connection.proxy.runtime.clone();
        runtime.spawn(go_on(state, left, permit));
    }

    fn end(self: Box<Self>, end: Termination) {
        match self.state {
            Some(SetUpState::Head(awaited)) => awaited.record.finish(end),
            Some(SetUpState::Upgrade(upgrade)) => {
                let RelayUpgrade {
                    record, attempt, ..
                } = *upgrade;
                // Its line is written before a drain can see the lease gone.
                record.finish(end);
                drop(attempt);
            }
            Some(SetUpState::Refused(refused)) => refused.record.finish(end),
            None => {}
        }
    }
}

/// Goes on in the set-up plane.
async fn go_on(state: SetUpState, left: LeftSetUp, permit: ConnectionPermit) {
    let SocketHandoff {
        socket, mut read, ..
    } = left.client;
    let (http, mut begin, taken) = match state {
        SetUpState::Head(awaited) => {
            let http = HttpConnection::plain(awaited.client, awaited.record);
            (Arc::new(http), Begin::Requests, 0)
        }
        SetUpState::Refused(refused) => {
            let record = RequestRecord::of(&refused.http, refused.record);
            let begin = Begin::Refused(refused.request, record, refused.response);
            (refused.http, begin, refused.length)
        }
        SetUpState::Upgrade(upgrade) => {
            let http = Arc::clone(&upgrade.pending.http);
            let length = upgrade.length;
            (http, upgrade.begin(left.backend), length)
        }
    };
    read.drain(..taken.min(read.len()));
    match Stream::from_owned_fd(socket, http.connection.peer) {
        Ok(stream) => {
            let stream = MaybeTlsStream::Plain(stream);
            let limits = http.connection.listener.config.head_limits();
            let mut client = ClientStream::going_on(stream, read, limits, http.timeouts());
            client.is_finished = left.has_finished;
            client.is_ending = left.is_ending;
            if let Begin::Upgrade(pending, ..) = &mut begin {
                pending.proxy_header = http.proxy_header(&pending.routed.settings, &client);
            }
            let end = serve_from(client, &http, begin).await;
            end.conclude(&http, permit);
        }
        Err(error) => {
            tracing::warn!(%error, "a connection cannot be watched and is closed");
            begin.fail(&http);
        }
    }
}

impl RelayUpgrade {
    /// The place where the set-up plane begins with it.
    fn begin(self: Box<Self>, backend: Option<LeftBackend>) -> Begin {
        let start = match (self.attempt, backend) {
            (Some((lease, _, begun)), Some(backend)) => sent(lease, begun, backend),
            _ => UpgradeStart::Search(self.step),
        };
        let record = RequestRecord::of(&self.pending.http, self.record);
        Begin::Upgrade(Box::new(self.pending), record, start)
    }
}

/// Goes on with a backend that has been sent the request.
fn sent(lease: Lease, begun: Instant, backend: LeftBackend) -> UpgradeStart {
    let LeftBackend {
        handoff,
        unsent,
        has_sent,
        was_reset,
    } = backend;
    match Stream::from_owned_fd(handoff.socket, peer_of(&lease)) {
        Ok(stream) => {
            let stream = MaybeTlsStream::Plain(stream);
            let contact = Contact::going_on(has_sent, !handoff.read.is_empty(), was_reset);
            UpgradeStart::Sent(SentUpgrade {
                backend: BackendStream::going_on(stream, handoff.read, contact),
                lease,
                begun,
                unsent,
            })
        }
        // The process is short of something; the search finds that, too.
        Err(_) => UpgradeStart::Search(None),
    }
}

/// The kind of a backend's socket.
fn peer_of(lease: &Lease) -> Peer {
    match lease.backend().endpoint() {
        Some(Endpoint::Unix(_)) => Peer::Unix,
        _ => Peer::V4(Ipv4Addr::UNSPECIFIED, 0),
    }
}
