//! Which requests go on an idle connection of their backend, and which connections are kept.
//!
//! Only what may be sent twice does: a backend may close an idle connection at the moment of the
//! next request. A login by NTLM or Negotiate belongs to its connection, so such a one is shared
//! with nobody.

use crate::config::{self, HttpReuse};
use crate::wire::http::{BodyFraming, Fields, RequestHead};

/// Methods whose requests may be sent twice, and have no body to be kept for that.
const SAFE_METHODS: [&[u8]; 3] = [b"GET", b"HEAD", b"OPTIONS"];
/// Schemes of authentication that belong to a connection (RFC 4559, MS-NTHT).
const CONNECTION_SCHEMES: [&[u8]; 2] = [b"ntlm", b"negotiate"];

/// Whether a request may go on a connection that has served another one.
pub(super) fn is_reusable(head: RequestHead<'_>, settings: &config::Pool) -> bool {
    settings.http.reuse == HttpReuse::Safe
        && settings.send_proxy.is_none()
        && !head.is_upgrade()
        && head.body() == BodyFraming::None
        && SAFE_METHODS.contains(&head.method())
        && !names_connection_scheme(head.fields(), &["authorization", "proxy-authorization"])
}

/// Whether an answer makes its connection that of one client.
pub(super) fn binds_connection(answer: Fields<'_>) -> bool {
    names_connection_scheme(answer, &["www-authenticate", "proxy-authenticate"])
}

fn names_connection_scheme(fields: Fields<'_>, names: &[&str]) -> bool {
    let mut values = names.iter().flat_map(|name| fields.list(name));
    values.any(|value| {
        let scheme = value.split(u8::is_ascii_whitespace).next().unwrap_or(value);
        let is_scheme = |one: &&[u8]| scheme.eq_ignore_ascii_case(one);
        CONNECTION_SCHEMES.iter().any(is_scheme)
    })
}
