//! From a request's head to its pool, by the newest configuration.

use super::connection::{HttpConnection, Routed};
use super::own_response::OwnResponse;
use super::request_record::RequestRecord;
use super::tag::tag_of;
use super::{refusal, request_id, trace};
use crate::base::path::normalize_path;
use crate::net::Peer;
use crate::observe::{Phase, Refusal};
use crate::proxy::route::{ListenerSnapshot, RouteInput};
use crate::wire::http::RequestHead;

/// Routes a request. The record gets what is known of it.
///
/// # Errors
/// The response to a request that is refused.
pub(super) fn route(
    http: &HttpConnection,
    head: RequestHead<'_>,
    record: &mut RequestRecord,
) -> Result<Routed, OwnResponse> {
    let host = head.host().map(|host| &*host.name);
    let path = head.path_str();
    record.note(|record| {
        record.set_request(head.method_str(), host, path);
        record.enter(Phase::Route);
    });
    let listener = http.connection.latest.load_full();
    let (client, request_id) = identify(http, &listener, head, record);
    let trace = trace::place(http, &listener, head, record);
    if listener.refuses_path(path) {
        http.connection.admission.refused(Refusal::EncodedSlash);
        return Err(refusal::ambiguous());
    }
    let pool = {
        let (normal, ambiguous) = (normalize_path(path), listener.ambiguous(path));
        let input = RouteInput {
            ambiguous: ambiguous.as_ref(),
            ..http.route_input(host, &normal)
        };
        let pool = listener.select(&input, http.connection.peer.ip(), client.ip());
        pool.cloned()
    };
    let pool = pool.map_err(|refusal| {
        http.connection.admission.refused(refusal);
        refusal::unrouted(refusal)
    })?;
    if refuses_for_now(http, head.is_upgrade(), record) {
        return Err(refusal::come_again(&pool));
    }
    Ok(Routed {
        settings: pool.settings(),
        listener,
        pool,
        client,
        request_id,
        trace,
    })
}

/// Whether a request is refused, and counted so, because the process stops or the listener is
/// drained.
fn refuses_for_now(http: &HttpConnection, is_upgrade: bool, record: &mut RequestRecord) -> bool {
    let admission = &http.connection.admission;
    if http.comes_too_late(is_upgrade) {
        record.note(|record| record.refused(Refusal::Stopping));
    } else if admission.is_draining() {
        admission.refused(Refusal::Draining);
    } else {
        return false;
    }
    true
}

/// Writes tag and id of a request to its record, and returns the client it is for and the id.
fn identify(
    http: &HttpConnection,
    listener: &ListenerSnapshot,
    head: RequestHead<'_>,
    record: &mut RequestRecord,
) -> (Peer, Option<String>) {
    let config = &listener.config;
    if let Some(tag) = &config.tag
        && let Some(value) = tag_of(tag, head)
    {
        record.note(|record| record.set_tag(&value, tag.is_hashed));
    }
    let connection = &http.connection;
    let id = config.request_id.then(|| {
        let id = request_id::request_id(head, connection.is_believed(config));
        record.note(|record| record.set_request_id(&id));
        id
    });
    let Some(named) = connection.named(config, head.fields()) else {
        return (connection.peer, id);
    };
    let proxied = connection.proxied.as_ref();
    let via = proxied.map_or(connection.peer, |proxied| proxied.via);
    let tlvs = proxied.and_then(|proxied| proxied.tlvs());
    record.note(|record| record.announce(named, via, tlvs));
    (named, id)
}
