//! The fields that tell a backend who asks, and the notes that are ours to write. PHP socket
//! servers cannot read PROXY protocol and depend on these fields.

use std::net::IpAddr;

use crate::config::ForwardedFields;
use crate::config::defaults::RESUME_HEADER;
use crate::pool::Backend;
use crate::wire::http::{Edits, RequestHead, is_token_byte};

/// Names as some servers, in PHP above all, compare them: byte by byte.
pub(super) const FORWARDED_FOR: &str = "X-Forwarded-For";
pub(super) const REAL_IP: &str = "X-Real-IP";
const FORWARDED_PROTO: &str = "X-Forwarded-Proto";
const FORWARDED_HOST: &str = "X-Forwarded-Host";
pub(super) const FORWARDED: &str = "Forwarded";
/// Family of fields about a request's origin.
const X_FORWARDED: &str = "x-forwarded-";

/// Origin of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    /// The peer's address; `None` is a unix peer.
    pub client: Option<IpAddr>,
    /// The value for `X-Real-IP`, where that is not left to the balancer in front.
    pub real_ip: Option<IpAddr>,
    /// The client is in one of the listener's `trusted` networks: its `X-Forwarded-*` are believed
    /// and extended.
    pub trusted: bool,
    pub tls: bool,
    pub fields: ForwardedFields,
}

/// Tells a backend the origin of a request.
pub(super) fn set_forwarded(edits: &mut Edits<'_>, head: RequestHead<'_>, origin: Origin) {
    if origin.trusted {
        spell_claims(edits);
    } else {
        drop_claims(edits);
    }
    if origin.fields.has_rfc7239() {
        // An untrusted client's are dropped by now: this is then the only element.
        edits.extend(FORWARDED, &element(host(head), origin));
    }
    if origin.fields.has_x() {
        set_x_forwarded(edits, head, origin);
    }
}

/// Drops a client's claims about its own origin, in every spelling.
fn drop_claims(edits: &mut Edits<'_>) {
    edits.remove_prefix(X_FORWARDED);
    edits.remove(REAL_IP);
    edits.remove(FORWARDED);
}

/// Spells the claims that are believed as our own. CGI and PHP read `X_Forwarded_For` as the same
/// variable as `X-Forwarded-For`, so the spelling with underscores is never believed: no such field
/// is written to a backend.
fn spell_claims(edits: &mut Edits<'_>) {
    for name in [
        FORWARDED_FOR,
        FORWARDED_PROTO,
        FORWARDED_HOST,
        REAL_IP,
        FORWARDED,
    ] {
        edits.respell(name);
    }
}

fn set_x_forwarded(edits: &mut Edits<'_>, head: RequestHead<'_>, origin: Origin) {
    let is_believed = |name: &str| origin.trusted && head.fields().has(name);
    if let Some(client) = origin.client {
        edits.extend_display(FORWARDED_FOR, client);
    }
    let own_ip = origin.client.filter(|_| !is_believed(REAL_IP));
    if let Some(real_ip) = origin.real_ip.or(own_ip) {
        edits.set_display(REAL_IP, real_ip);
    }
    if !is_believed(FORWARDED_PROTO) {
        let scheme: &[u8] = if origin.tls { b"https" } else { b"http" };
        edits.set(FORWARDED_PROTO, scheme);
    }
    if !is_believed(FORWARDED_HOST)
        && let Some(host) = host(head)
    {
        edits.set(FORWARDED_HOST, host);
    }
}

/// The value of the `Host` field.
fn host(head: RequestHead<'_>) -> Option<&[u8]> {
    head.fields().values("host").next()
}

/// The element for this hop in a `Forwarded` field (RFC 7239 section 4).
fn element(host: Option<&[u8]>, origin: Origin) -> Vec<u8> {
    let client = match origin.client {
        Some(IpAddr::V4(ip)) => format!("for={ip}"),
        // Colons and brackets are no characters of a token.
        Some(IpAddr::V6(ip)) => format!("for=\"[{ip}]\""),
        None => "for=unknown".to_owned(),
    };
    let mut element = client.into_bytes();
    if let Some(host) = host {
        element.extend(b";host=");
        push_token_or_quoted(host, &mut element);
    }
    element.extend(if origin.tls {
        &b";proto=https"[..]
    } else {
        b";proto=http"
    });
    element
}

/// Writes a value as a token or a quoted string (RFC 9110 section 5.6). A checked host has no quote
/// or backslash; should one come, it is escaped.
fn push_token_or_quoted(value: &[u8], element: &mut Vec<u8>) {
    if !value.is_empty() && value.iter().copied().all(is_token_byte) {
        element.extend(value);
        return;
    }
    element.push(b'"');
    for &byte in value {
        if byte == b'"' || byte == b'\\' {
            element.push(b'\\');
        }
        element.push(byte);
    }
    element.push(b'"');
}

/// Drops a client's forgeries of fields that are ours to write: that its session was resumed, and
/// the backend's name. Any pool may share its backends with one that has `resume`, so the default
/// name goes in every pool, and the pool's own beside it.
pub(super) fn drop_notes<'e>(
    edits: &mut Edits<'e>,
    resume_header: Option<&'e str>,
    name_header: Option<&'e str>,
) {
    let notes = [Some(RESUME_HEADER), resume_header, name_header];
    for name in notes.into_iter().flatten() {
        edits.remove(name);
    }
}

/// Tells a backend its own name, where the pool has a field for that.
pub(super) fn set_backend_name<'e>(
    edits: &mut Edits<'e>,
    name_header: Option<&'e str>,
    backend: &Backend,
) {
    let name = backend.name();
    if let Some(field) = name_header.filter(|_| name.is_ascii()) {
        edits.set(field, name.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::testing::SampleRequest;
    use crate::wire::http::{NextHop, write_request};

    fn origin(trusted: bool) -> Origin {
        Origin {
            client: Some("192.0.2.7".parse().unwrap()),
            real_ip: None,
            trusted,
            tls: true,
            fields: ForwardedFields::X,
        }
    }

    /// The fields that a backend gets of a request from there.
    fn forwarded(fields: &[(&str, &str)], origin: Origin) -> Vec<(String, String)> {
        let request = SampleRequest::get("/", fields);
        let mut edits = Edits::default();
        set_forwarded(&mut edits, request.head(), origin);
        request.forwarded(&edits)
    }

    fn list(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        fields.iter().map(owned).collect()
    }

    fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
        let named = fields.iter().filter(|(sent, _)| sent == name);
        named.map(|(_, value)| &**value).collect()
    }

    fn has(fields: &[(String, String)], name: &str) -> bool {
        let mut names = fields.iter().map(|(name, _)| name);
        names.any(|sent| sent.eq_ignore_ascii_case(name))
    }

    #[test]
    fn replaces_what_an_untrusted_client_claims() {
        let fields = forwarded(
            &[
                ("host", "a.example"),
                ("x-forwarded-for", "10.0.0.1"),
                ("x_forwarded_for", "10.0.0.2"),
                ("x-real_ip", "10.0.0.3"),
                ("x-forwarded-proto", "gopher"),
                ("x-forwarded-host", "b.example"),
                ("x-forwarded-port", "1"),
                ("forwarded", "for=10.0.0.4"),
            ],
            origin(false),
        );
        let expected = list(&[
            ("host", "a.example"),
            ("X-Forwarded-For", "192.0.2.7"),
            ("X-Real-IP", "192.0.2.7"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "a.example"),
        ]);
        assert_eq!(fields, expected);
    }

    #[test]
    fn extends_what_a_trusted_client_says() {
        let fields = forwarded(
            &[
                ("host", "a.example"),
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-for", "10.0.0.2"),
                ("x_forwarded_for", "10.0.0.9"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "b.example"),
            ],
            origin(true),
        );
        assert_eq!(
            values(&fields, "X-Forwarded-For"),
            ["10.0.0.1, 10.0.0.2, 192.0.2.7"]
        );
        assert_eq!(values(&fields, "X-Forwarded-Proto"), ["http"]);
        assert_eq!(values(&fields, "X-Forwarded-Host"), ["b.example"]);
        assert_eq!(values(&fields, "X-Real-IP"), ["192.0.2.7"]);
        assert!(!has(&fields, "x_forwarded_for"));
    }

    #[test]
    fn what_a_trusted_client_says_is_kept_in_our_spelling() {
        let sent = [
            ("Host", "a.example"),
            ("x-real-ip", "10.0.0.1"),
            ("x_real_ip", "10.0.0.2"),
            ("X-FORWARDED-PROTO", "http"),
            ("x-forwarded-port", "80"),
            ("forwarded", "for=10.0.0.3"),
        ];
        let kept = [
            ("Host", "a.example"),
            ("X-Real-IP", "10.0.0.1"),
            ("X-Forwarded-Proto", "http"),
            ("x-forwarded-port", "80"),
            ("Forwarded", "for=10.0.0.3"),
            ("X-Forwarded-For", "192.0.2.7"),
            ("X-Forwarded-Host", "a.example"),
        ];
        assert_eq!(forwarded(&sent, origin(true)), list(&kept));
    }

    #[test]
    fn a_real_address_of_ours_stands_in_place_of_a_trusted_clients() {
        let named = Origin {
            real_ip: Some("203.0.113.9".parse().unwrap()),
            ..origin(true)
        };
        let fields = forwarded(&[("host", "a"), ("x-real-ip", "10.0.0.1")], named);
        assert_eq!(values(&fields, "X-Real-IP"), ["203.0.113.9"]);
    }

    fn rfc7239(client: &str, host: &str, trusted: bool) -> (Vec<(String, String)>, String) {
        let origin = Origin {
            client: Some(client.parse().unwrap()),
            fields: ForwardedFields::Rfc7239,
            ..origin(trusted)
        };
        let fields = forwarded(
            &[
                ("host", host),
                ("forwarded", "for=10.0.0.1"),
                ("forwarded", "for=\"[2001:db8::2]:80\";proto=http"),
                ("x-forwarded-for", "10.0.0.1"),
            ],
            origin,
        );
        let value = values(&fields, "Forwarded").join("|");
        (fields, value)
    }

    #[test]
    fn forwarded_is_written_as_the_rfc_has_it() {
        let (fields, value) = rfc7239("192.0.2.7", "a.example", false);
        assert_eq!(value, "for=192.0.2.7;host=a.example;proto=https");
        assert!(!has(&fields, "x-forwarded-for"));
        let (_, value) = rfc7239("2001:db8::7", "a.example:8443", false);
        assert_eq!(
            value,
            "for=\"[2001:db8::7]\";host=\"a.example:8443\";proto=https"
        );
    }

    #[test]
    fn forwarded_of_a_trusted_client_is_extended() {
        let (_, value) = rfc7239("192.0.2.7", "a.example", true);
        assert_eq!(
            value,
            "for=10.0.0.1, for=\"[2001:db8::2]:80\";proto=http, for=192.0.2.7;host=a.example;proto=https"
        );
    }

    #[test]
    fn both_kinds_of_fields_can_be_sent() {
        let origin = Origin {
            fields: ForwardedFields::Both,
            ..origin(false)
        };
        let fields = forwarded(&[("host", "a.example")], origin);
        assert_eq!(values(&fields, "X-Forwarded-For"), ["192.0.2.7"]);
        assert!(has(&fields, "Forwarded"));
    }

    #[test]
    fn drops_what_ends_at_this_hop() {
        let request = SampleRequest::get(
            "/",
            &[
                ("host", "a"),
                (
                    "connection",
                    "keep-alive, X-Mine, Content-Length, Host, Upgrade, HTTP2-Settings",
                ),
                ("connection", "x-other"),
                ("x-mine", "1"),
                ("x-other", "1"),
                ("content-length", "0"),
                ("keep-alive", "timeout=5"),
                ("te", "trailers"),
                ("trailer", "x"),
                ("upgrade", "h2c"),
                ("http2-settings", "AAMAAABk"),
                ("proxy-connection", "keep-alive"),
                ("proxy-authorization", "Basic x"),
                ("accept", "*/*"),
            ],
        );
        let unix_peer = Origin {
            client: None,
            real_ip: None,
            trusted: false,
            tls: false,
            fields: ForwardedFields::X,
        };
        let (mut edits, mut out) = (Edits::default(), Vec::new());
        set_forwarded(&mut edits, request.head(), unix_peer);
        write_request(request.head(), NextHop::Close, &edits, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\naccept: */*\r\n\
             X-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn connection_removes_nothing_that_tells_who_asks() {
        let kept = [
            ("X-Forwarded-For", "10.0.0.1"),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Host", "b.example"),
            ("x-forwarded-port", "80"),
            ("X-Real-IP", "10.0.0.1"),
            ("x-client-cert-subject", "CN=a"),
            ("Forwarded", "for=10.0.0.1"),
            ("cookie", "a=b"),
            ("authorization", "Basic x"),
            ("origin", "null"),
            ("sec-websocket-protocol", "chat"),
        ];
        for (name, value) in kept {
            let nomination = name.to_uppercase();
            let sent = [(name, value), ("host", "a"), ("connection", &nomination)];
            let fields = forwarded(&sent, origin(true));
            let found = values(&fields, name);
            assert!(
                found.len() == 1 && found[0].starts_with(value),
                "{name}: {found:?}"
            );
        }
    }

    #[test]
    fn a_forged_field_of_ours_is_dropped_in_every_spelling() {
        for (resume_header, name) in [
            (None, "evenkeel-resume"),
            (Some("evenkeel-resume"), "evenkeel-resume"),
            (Some("x.back_again"), "x-back-again"),
        ] {
            let aliases = [
                name.to_owned(),
                name.replace('-', "_"),
                name.replacen('-', ".", 1),
            ];
            let mut sent = vec![("Evenkeel_RESUME", "count=1")];
            sent.extend(aliases.iter().map(|alias| (&**alias, "count=1")));
            sent.extend(["x-backend", "X_Backend"].map(|own| (own, "n2")));
            sent.push(("evenkeel-resumed", "kept"));
            let request = SampleRequest::get("/", &sent);
            let mut edits = Edits::default();
            drop_notes(&mut edits, resume_header, Some("x-backend"));
            let expected = list(&[("evenkeel-resumed", "kept")]);
            assert_eq!(request.forwarded(&edits), expected);
        }
    }
}
