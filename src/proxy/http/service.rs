//! The service behind hyper: each request is counted, recorded and routed here, then exchanged with
//! a backend as an ordinary request or an upgrade.

use http::header::HOST;
use http::{HeaderValue, Request};
use hyper::body::Incoming;

use super::connection::{HttpConnection, Routed};
use super::headers::{self, Purpose};
use super::request_record::RequestRecord;
use super::served::ServedRequest;
use super::tag::tag_of;
use super::{refusal, request, request_id, upgrade};
use crate::base::path::normalize_path;
use crate::net::Peer;
use crate::observe::{Phase, Refusal};
use crate::proxy::route::{ListenerSnapshot, RouteInput};
use crate::wire::http::parse_host;

/// Serves one request; refused ones are answered in their turn.
pub(super) async fn serve(client: &HttpConnection, request: Request<Incoming>) -> ServedRequest {
    let mut served = route(client, request).await;
    let closing = client.connection.closing.is_cancelled();
    if closing && served.upgraded.is_none() {
        headers::close(served.response.headers_mut());
    }
    served
}

async fn route(client: &HttpConnection, mut request: Request<Incoming>) -> ServedRequest {
    let number = client.next_request();
    let mut record = RequestRecord::new(client.record(), &client.gate_state);
    record.phase(Phase::Head);
    if let Some(refused) = client.gate_state.refused(number) {
        return refusal::by_gate(record, refused, Phase::Head).into();
    }
    let host = host_of(&request);
    record.note(|record| {
        record.set_request(
            request.method().as_str(),
            host.as_deref(),
            request.uri().path(),
        );
        record.phase = Phase::Route;
    });
    let purpose = Purpose::of(request.headers());
    let listener = client.connection.latest.load_full();
    let peer = identify(client, &listener, &mut request, &mut record);
    let path = request.uri().path();
    if listener.refuses_path(path) {
        client.connection.admission.refused(Refusal::EncodedSlash);
        return refusal::ambiguous(record, purpose).into();
    }
    let pool = {
        let (normal, ambiguous) = (normalize_path(path), listener.ambiguous(path));
        let input = RouteInput {
            ambiguous: ambiguous.as_ref(),
            ..client.route_input(host.as_deref(), &normal)
        };
        let pool = listener.select(&input, client.connection.peer.ip(), peer.ip());
        pool.cloned()
    };
    let pool = match pool {
        Ok(pool) => pool,
        Err(refusal) => {
            client.connection.admission.refused(refusal);
            return refusal::unrouted(record, refusal, purpose).into();
        }
    };
    if refuses_for_now(client, purpose, &mut record) {
        return refusal::come_again(record, &pool).into();
    }
    let routed = Routed {
        listener,
        pool,
        client: peer,
    };
    // On the heap: a client that has sent nothing yet is not to hold memory for what follows.
    match purpose {
        Purpose::Upgrade => {
            client.upgrade();
            Box::pin(upgrade::serve(client, &routed, request, record)).await
        }
        Purpose::Ordinary => {
            let serving = request::serve(client, &routed, request, record, number);
            Box::pin(serving).await.into()
        }
    }
}

/// Whether a request is refused, and counted so, because the process stops or the listener is
/// drained.
fn refuses_for_now(client: &HttpConnection, purpose: Purpose, record: &mut RequestRecord) -> bool {
    let admission = &client.connection.admission;
    if client.comes_too_late(purpose) {
        record.note(|record| record.refused(Refusal::Stopping));
    } else if admission.is_draining() {
        admission.refused(Refusal::Draining);
    } else {
        return false;
    }
    true
}

/// Writes tag and id of a request to its record, and returns the client it is for.
fn identify(
    client: &HttpConnection,
    listener: &ListenerSnapshot,
    request: &mut Request<Incoming>,
    record: &mut RequestRecord,
) -> Peer {
    let config = &listener.config;
    if let Some(tag) = &config.tag
        && let Some(value) = tag_of(tag, request.uri(), request.headers())
    {
        record.note(|record| record.set_tag(&value, tag.is_hashed));
    }
    let connection = &client.connection;
    if config.request_id {
        let is_believed = connection.is_believed(config);
        let id = request_id::ensure(request.headers_mut(), is_believed);
        record.note(|record| record.set_request_id(&id));
    }
    let Some(named) = connection.named(config, request.headers()) else {
        return connection.peer;
    };
    let proxied = connection.proxied.as_ref();
    let via = proxied.map_or(connection.peer, |proxied| proxied.via);
    let tlvs = proxied.and_then(|proxied| proxied.tlvs());
    record.note(|record| record.announce(named, via, tlvs));
    named
}

/// The host that is routed by, lower case and without its port. The gate has checked it.
fn host_of(request: &Request<Incoming>) -> Option<String> {
    let named = request.headers().get(HOST).map(HeaderValue::as_bytes);
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    parse_host(named.or(authority)?.trim_ascii()).map(|host| host.name)
}
