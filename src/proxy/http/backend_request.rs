//! A client's request as a backend is to get it: the backend is told who asked. PHP socket servers
//! cannot read PROXY protocol and depend on these fields.

use std::sync::Arc;

use super::client_stream::Request;
use super::connection::{HttpConnection, Routed};
use super::forwarded::{self, Origin};
use super::sticky::Stickiness;
use super::{client_certificate, request_id, trace};
use crate::base::names::SESSION_COOKIES;
use crate::config;
use crate::net::Endpoint;
use crate::pool::Backend;
use crate::proxy::connect::RetryState;
use crate::wire::http::{Edits, NextHop, RequestHead, write_request};

/// A request on its way to a backend of its pool.
pub(super) struct BackendRequest<'r> {
    http: &'r HttpConnection,
    routed: &'r Routed,
    request: &'r Request,
    sticky: Option<&'r Stickiness>,
}

impl<'r> BackendRequest<'r> {
    pub(super) fn new(
        http: &'r HttpConnection,
        routed: &'r Routed,
        request: &'r Request,
        sticky: Option<&'r Stickiness>,
    ) -> BackendRequest<'r> {
        BackendRequest {
            http,
            routed,
            request,
            sticky,
        }
    }

    /// Begins the search for the request's backend.
    pub(super) fn search(&self) -> RetryState {
        let key = self
            .http
            .hash_key(&self.routed.settings, self.request.view());
        let preferred = self.sticky.and_then(Stickiness::preferred);
        RetryState::new(self.routed.client.ip(), key, preferred)
    }

    /// Writes the head for a backend.
    pub(super) fn write(&self, backend: &Backend, hop: NextHop) -> Vec<u8> {
        let settings = &self.routed.settings;
        let mut edits = self.edits(backend);
        forwarded::set_backend_name(&mut edits, settings.name_header.as_deref(), backend);
        self.written(&edits, hop)
    }

    /// Writes the head without the backend's name: another backend has another one.
    pub(super) fn write_unnamed(&self, backend: &Backend, hop: NextHop) -> Vec<u8> {
        self.written(&self.edits(backend), hop)
    }

    fn written(&self, edits: &Edits<'_>, hop: NextHop) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        write_request(self.request.view(), hop, edits, &mut out);
        out
    }

    fn edits(&self, backend: &Backend) -> Edits<'_> {
        let head = self.request.view();
        let settings: &config::Pool = &self.routed.settings;
        let mut edits = Edits::default();
        let resume = settings.resume.as_ref().map(|resume| &*resume.header);
        forwarded::drop_notes(&mut edits, resume, settings.name_header.as_deref());
        edits.remove_numbered_cookies(&SESSION_COOKIES);
        if let Some(sticky) = &settings.sticky {
            edits.remove_cookie(&sticky.cookie);
        }
        if let Some(id) = &self.routed.request_id {
            edits.set(request_id::FIELD, id.as_bytes());
        }
        if let Some(place) = self.routed.trace {
            trace::set(&mut edits, place);
        }
        if !head.fields().has("host") {
            edits.set("Host", host_for(head, backend).as_bytes());
        }
        forwarded::set_forwarded(&mut edits, head, self.origin(head));
        client_certificate::set(&mut edits, self.http.identity.as_ref());
        edits
    }

    fn origin(&self, head: RequestHead<'_>) -> Origin {
        let connection = &self.http.connection;
        let config = &self.routed.listener.config;
        Origin {
            client: connection.peer.ip(),
            real_ip: connection.real_ip(config, self.routed.client, head.fields()),
            trusted: connection.is_believed(config),
            tls: self.http.tls,
            fields: config.forwarded,
        }
    }

    /// Sets the sticky cookie on the answer of a backend, if it is new or due.
    pub(super) fn set_cookie(&self, backend: &Arc<Backend>, edits: &mut Edits<'_>) {
        if let Some(cookie) = self.sticky.and_then(|sticky| sticky.set_cookie(backend)) {
            edits.append("Set-Cookie", cookie.as_bytes());
        }
    }
}

/// The Host for a request without one: HTTP/1.0 may come without, HTTP/1.1 may not go without.
fn host_for(head: RequestHead<'_>, backend: &Backend) -> String {
    match (head.host(), backend.endpoint()) {
        (Some(host), _) => host.to_string(),
        (None, Some(Endpoint::Tcp(address))) => address.to_string(),
        (None, _) => "localhost".to_owned(),
    }
}
