//! Header fields on their way through: those of one hop are dropped both ways (RFC 9110 section
//! 7.6.1), and the backend is told who asked. PHP socket servers cannot read PROXY protocol and
//! depend on these fields.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

use crate::config::defaults::RESUME_HEADER;
use crate::config::{self, ForwardedFields, Resume};
use crate::pool::Backend;
use crate::wire::http::is_deciding;
use crate::wire::websocket::asks_for_websocket;

pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Fields of one hop, whether or not `Connection` names them.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
];

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

/// Use of the connection after the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A request and a response; the backend connection is never used again.
    Ordinary,
    Upgrade,
}

impl Purpose {
    /// The purpose of a request with these fields.
    pub(super) fn of(headers: &HeaderMap) -> Purpose {
        if asks_for_websocket(headers) {
            Purpose::Upgrade
        } else {
            Purpose::Ordinary
        }
    }
}

/// Makes a client's fields those of the request to the backend.
pub(super) fn request(headers: &mut HeaderMap, origin: Origin, purpose: Purpose) {
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    drop_hop_by_hop(headers);
    drop_aliases(headers);
    // hyper has answered it by the time the backend reads the body.
    headers.remove(EXPECT);
    set_forwarded(headers, origin);
    if chunked {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    match purpose {
        Purpose::Ordinary => close(headers),
        Purpose::Upgrade => upgrade(headers),
    }
}

/// Makes a backend's fields those of the response to the client.
pub(super) fn response(headers: &mut HeaderMap, purpose: Purpose) {
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    drop_hop_by_hop(headers);
    if purpose == Purpose::Upgrade {
        upgrade(headers);
    }
}

/// Ends the connection with this message.
pub(super) fn close(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

fn upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    for name in nominated(headers) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The fields that `Connection` names and may.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter();
    let items = values.flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    items
        .filter_map(|item| HeaderName::from_bytes(item.trim_ascii()).ok())
        .filter(|name| !is_deciding(name.as_str().as_bytes()))
        .collect()
}

/// Drops aliases of fields that decide something here, such as `Content_Length`.
fn drop_aliases(headers: &mut HeaderMap) {
    drop_where(headers, |name, plain| {
        plain != name && (HOP_BY_HOP.contains(&plain) || is_deciding(plain.as_bytes()))
    });
}

/// Drops a client's forgeries of fields that are ours to write: that its session was resumed, and
/// the backend's name. Any pool may share its backends with one that has `resume`, so the default
/// name goes in every pool, and the pool's own beside it.
pub(super) fn drop_notes(headers: &mut HeaderMap, resume: Option<&Resume>, name: Option<&str>) {
    let resume = resume.map(|resume| &*resume.header);
    let notes = [Some(RESUME_HEADER), resume, name];
    let is_note = |plain: &str, header: &str| unaliased(header).eq_ignore_ascii_case(plain);
    drop_where(headers, |_, plain| {
        notes.iter().flatten().any(|header| is_note(plain, header))
    });
}

/// Tells a backend its own name, where the pool has a field for that.
pub(super) fn set_backend_name(headers: &mut HeaderMap, pool: &config::Pool, backend: &Backend) {
    let field = pool.name_header.as_deref().map(HeaderName::try_from);
    if let Some(Ok(field)) = field
        && let Ok(name) = HeaderValue::from_str(backend.name())
    {
        headers.insert(field, name);
    }
}

/// Drops the fields of which `is_dropped`, given the name and its [`unaliased`] form, is true.
pub(super) fn drop_where(headers: &mut HeaderMap, is_dropped: impl Fn(&str, &str) -> bool) {
    let wanted = |name: &&HeaderName| is_dropped(name.as_str(), &unaliased(name.as_str()));
    let names: Vec<HeaderName> = headers.keys().filter(wanted).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// The name that a backend may take a field's name for: CGI and PHP read `Content_Length` and
/// `Content.Length` as the same variable as `Content-Length`.
fn unaliased(name: &str) -> Cow<'_, str> {
    let is_odd = |letter: char| !letter.is_ascii_alphanumeric() && letter != '-';
    if name.contains(is_odd) {
        return Cow::Owned(name.replace(is_odd, "-"));
    }
    Cow::Borrowed(name)
}

fn set_forwarded(headers: &mut HeaderMap, origin: Origin) {
    drop_claims(headers, origin.trusted);
    if origin.fields.has_rfc7239() {
        let element = element(headers.get(HOST), origin);
        let chain = chain(headers, &FORWARDED, &element);
        set(headers, FORWARDED, &chain);
    }
    if origin.fields.has_x() {
        set_x_forwarded(headers, origin);
    }
}

fn set_x_forwarded(headers: &mut HeaderMap, origin: Origin) {
    let believed = |headers: &HeaderMap, name| origin.trusted && headers.contains_key(name);
    if let Some(client) = origin.client.map(|client| client.to_string()) {
        let chain = chain(headers, &FORWARDED_FOR, client.as_bytes());
        set(headers, FORWARDED_FOR, &chain);
        if !believed(headers, REAL_IP) {
            set(headers, REAL_IP, client.as_bytes());
        }
    }
    if let Some(real) = origin.real_ip {
        set(headers, REAL_IP, real.to_string().as_bytes());
    }
    if !believed(headers, FORWARDED_PROTO) {
        let scheme = if origin.tls { "https" } else { "http" };
        set(headers, FORWARDED_PROTO, scheme.as_bytes());
    }
    if !believed(headers, FORWARDED_HOST)
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// Drops a client's claims about its own origin. CGI and PHP read `X_Forwarded_For` as the same
/// variable as `X-Forwarded-For`, so the spelling with underscores is never believed.
fn drop_claims(headers: &mut HeaderMap, trusted: bool) {
    drop_where(headers, |name, plain| {
        let about_origin =
            plain.starts_with("x-forwarded-") || plain == "x-real-ip" || plain == "forwarded";
        about_origin && (!trusted || plain != name)
    });
}

/// The element for this hop in a `Forwarded` field (RFC 7239 section 4).
fn element(host: Option<&HeaderValue>, origin: Origin) -> Vec<u8> {
    let client = match origin.client {
        Some(IpAddr::V4(ip)) => format!("for={ip}"),
        // Colons and brackets are no characters of a token.
        Some(IpAddr::V6(ip)) => format!("for=\"[{ip}]\""),
        None => "for=unknown".to_owned(),
    };
    let mut element = client.into_bytes();
    if let Some(host) = host {
        element.extend(b";host=");
        element.extend(token_or_quoted(host.as_bytes()));
    }
    element.extend(if origin.tls {
        &b";proto=https"[..]
    } else {
        b";proto=http"
    });
    element
}

/// A value as a token or a quoted string (RFC 9110 section 5.6). The gate lets no quote or
/// backslash through in a host; should one come, it is escaped.
fn token_or_quoted(value: &[u8]) -> Vec<u8> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if !value.is_empty() && value.iter().all(is_token) {
        return value.to_vec();
    }
    let mut quoted = vec![b'"'];
    for &byte in value {
        if byte == b'"' || byte == b'\\' {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    quoted
}

/// The values of earlier hops, and this one's behind them.
fn chain(headers: &HeaderMap, name: &HeaderName, own: &[u8]) -> Vec<u8> {
    let earlier = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    earlier.chain([own]).collect::<Vec<_>>().join(&b", "[..])
}

pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn origin(trusted: bool) -> Origin {
        Origin {
            client: Some("192.0.2.7".parse().unwrap()),
            real_ip: None,
            trusted,
            tls: true,
            fields: ForwardedFields::X,
        }
    }

    fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    }

    #[test]
    fn replaces_what_an_untrusted_client_claims() {
        let mut headers = map(&[
            ("host", "a.example"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_forwarded_for", "10.0.0.2"),
            ("x-real_ip", "10.0.0.3"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-host", "b.example"),
            ("x-forwarded-port", "1"),
            ("forwarded", "for=10.0.0.4"),
        ]);
        request(&mut headers, origin(false), Purpose::Ordinary);
        let expected = map(&[
            ("host", "a.example"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-real-ip", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a.example"),
            ("connection", "close"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn extends_what_a_trusted_client_says() {
        let mut headers = map(&[
            ("host", "a.example"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x_forwarded_for", "10.0.0.9"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "b.example"),
        ]);
        request(&mut headers, origin(true), Purpose::Ordinary);
        assert_eq!(
            values(&headers, "x-forwarded-for"),
            ["10.0.0.1, 10.0.0.2, 192.0.2.7"]
        );
        assert_eq!(values(&headers, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&headers, "x-forwarded-host"), ["b.example"]);
        assert_eq!(values(&headers, "x-real-ip"), ["192.0.2.7"]);
        assert!(!headers.contains_key("x_forwarded_for"));
    }

    fn forwarded(client: &str, host: &str, trusted: bool) -> (HeaderMap, String) {
        let mut headers = map(&[
            ("host", host),
            ("forwarded", "for=10.0.0.1"),
            ("forwarded", "for=\"[2001:db8::2]:80\";proto=http"),
            ("x-forwarded-for", "10.0.0.1"),
        ]);
        let origin = Origin {
            client: Some(client.parse().unwrap()),
            fields: ForwardedFields::Rfc7239,
            ..origin(trusted)
        };
        request(&mut headers, origin, Purpose::Ordinary);
        let value = values(&headers, "forwarded").join("|");
        (headers, value)
    }

    #[test]
    fn forwarded_is_written_as_the_rfc_has_it() {
        let (headers, value) = forwarded("192.0.2.7", "a.example", false);
        assert_eq!(value, "for=192.0.2.7;host=a.example;proto=https");
        assert!(!headers.contains_key("x-forwarded-for"));
        let (_, value) = forwarded("2001:db8::7", "a.example:8443", false);
        assert_eq!(
            value,
            "for=\"[2001:db8::7]\";host=\"a.example:8443\";proto=https"
        );
    }

    #[test]
    fn forwarded_of_a_trusted_client_is_extended() {
        let (_, value) = forwarded("192.0.2.7", "a.example", true);
        assert_eq!(
            value,
            "for=10.0.0.1, for=\"[2001:db8::2]:80\";proto=http, for=192.0.2.7;host=a.example;proto=https"
        );
    }

    #[test]
    fn both_kinds_of_fields_can_be_sent() {
        let mut headers = map(&[("host", "a.example")]);
        let origin = Origin {
            fields: ForwardedFields::Both,
            ..origin(false)
        };
        request(&mut headers, origin, Purpose::Ordinary);
        assert_eq!(values(&headers, "x-forwarded-for"), ["192.0.2.7"]);
        assert!(headers.contains_key("forwarded"));
    }

    #[test]
    fn drops_what_ends_at_this_hop() {
        let fields = [
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
            ("expect", "100-continue"),
            ("accept", "*/*"),
        ];
        let mut headers = map(&fields);
        request(
            &mut headers,
            Origin {
                client: None,
                real_ip: None,
                trusted: false,
                tls: false,
                fields: ForwardedFields::X,
            },
            Purpose::Ordinary,
        );
        let expected = map(&[
            ("host", "a"),
            ("content-length", "0"),
            ("accept", "*/*"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "a"),
            ("connection", "close"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn connection_removes_nothing_that_tells_who_asks() {
        let kept = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "b.example"),
            ("x-forwarded-port", "80"),
            ("x-real-ip", "10.0.0.1"),
            ("x-client-cert-subject", "CN=a"),
            ("forwarded", "for=10.0.0.1"),
            ("cookie", "a=b"),
            ("authorization", "Basic x"),
            ("origin", "null"),
            ("sec-websocket-protocol", "chat"),
        ];
        for (name, value) in kept {
            let nomination = name.to_uppercase();
            let mut headers = map(&[(name, value), ("host", "a"), ("connection", &nomination)]);
            request(&mut headers, origin(true), Purpose::Ordinary);
            let found = headers.get(name).map(HeaderValue::as_bytes);
            assert!(
                found.is_some_and(|found| found.starts_with(value.as_bytes())),
                "{name}"
            );
        }
        let mut answer = map(&[("connection", "Set-Cookie"), ("set-cookie", "a=b")]);
        response(&mut answer, Purpose::Ordinary);
        assert_eq!(values(&answer, "set-cookie"), ["a=b"]);
    }

    #[test]
    fn names_with_underscores_alias_no_field_that_decides() {
        let names = [
            "Transfer_Encoding",
            "Content_Length",
            "Sec_WebSocket_Key",
            "Sec-WebSocket_Protocol",
            "Content.Length",
            "X_Forwarded_Port",
            "X_Real_IP",
            "X_Client-Cert_Subject",
            "Proxy_Authorization",
        ];
        for name in names {
            let mut headers = map(&[(name, "1"), ("user_id", "7")]);
            request(&mut headers, origin(true), Purpose::Ordinary);
            assert!(
                !headers.contains_key(name) && headers.contains_key("user_id"),
                "{name}"
            );
        }
    }

    #[test]
    fn a_forged_field_of_ours_is_dropped_in_every_spelling() {
        let resume = |header: &str| Resume {
            on: crate::config::ResumeOn::default(),
            settle: std::time::Duration::ZERO,
            max: crate::config::Rate::per_minute(3),
            max_buffer: 1,
            timeout: std::time::Duration::from_secs(1),
            header: header.into(),
        };
        for (resume, name) in [
            (None, "evenkeel-resume"),
            (Some(resume("evenkeel-resume")), "evenkeel-resume"),
            (Some(resume("x.back_again")), "x-back-again"),
        ] {
            let mut headers = map(&[("Evenkeel_RESUME", "count=1")]);
            for alias in [
                name.to_owned(),
                name.replace('-', "_"),
                name.replacen('-', ".", 1),
            ] {
                let alias = HeaderName::try_from(alias).unwrap();
                headers.insert(alias, HeaderValue::from_static("count=1"));
            }
            for own in ["x-backend", "X_Backend"] {
                headers.insert(
                    HeaderName::try_from(own).unwrap(),
                    HeaderValue::from_static("n2"),
                );
            }
            headers.insert("evenkeel-resumed", HeaderValue::from_static("kept"));
            drop_notes(&mut headers, resume.as_ref(), Some("x-backend"));
            assert_eq!(headers, map(&[("evenkeel-resumed", "kept")]));
        }
    }

    #[test]
    fn keeps_a_chunked_body_chunked() {
        let mut headers = map(&[
            ("host", "a"),
            ("transfer-encoding", "Chunked"),
            ("connection", "transfer-encoding"),
        ]);
        request(&mut headers, origin(false), Purpose::Ordinary);
        assert_eq!(values(&headers, "transfer-encoding"), ["chunked"]);
    }

    #[test]
    fn an_upgrade_asks_for_nothing_but_a_websocket() {
        let mut headers = map(&[
            ("host", "a"),
            ("connection", "Upgrade, HTTP2-Settings, Sec-WebSocket-Key"),
            ("upgrade", "h2c, websocket"),
            ("http2-settings", "AAMAAABk"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]);
        request(&mut headers, origin(false), Purpose::Upgrade);
        assert_eq!(values(&headers, "connection"), ["Upgrade"]);
        assert_eq!(values(&headers, "upgrade"), ["websocket"]);
        assert!(
            headers.contains_key("sec-websocket-key") && !headers.contains_key("http2-settings")
        );
    }

    #[test]
    fn an_answer_loses_the_backends_hop_and_its_double_length() {
        let mut headers = map(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("upgrade", "h2c"),
            ("server", "x"),
        ]);
        response(&mut headers, Purpose::Ordinary);
        assert_eq!(headers, map(&[("server", "x")]));
        response(&mut headers, Purpose::Upgrade);
        assert_eq!(
            headers,
            map(&[
                ("server", "x"),
                ("connection", "Upgrade"),
                ("upgrade", "websocket")
            ])
        );
    }
}
