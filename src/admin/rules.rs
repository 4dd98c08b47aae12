//! Rules that every request head must pass. A page in a browser on the operator's machine can send
//! requests to loopback. So a host name that is not allowed (DNS rebinding) and any foreign
//! `Origin` are refused whatever the method. Changes need a content type that no HTML form can
//! send.

use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use http::uri::{Authority, Uri};

use super::reply::ApiError;
use crate::config::Bind;

/// Host names that the endpoint answers to.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    /// Whether it is bound where a proxy of this machine alone reaches it.
    is_local: bool,
    /// `None`: a unix socket, which has no port.
    port: Option<u16>,
    /// The bound address, then `allowed_hosts`.
    named: Vec<NamedHost>,
}

#[derive(Debug, Clone)]
struct NamedHost {
    /// Lower case, IPv6 in brackets.
    host: String,
    /// `None`: any.
    port: Option<u16>,
}

impl Hosts {
    /// Collects the names; `bound` is the real address, `allowed` are further hosts, each with a
    /// port or for any.
    pub(super) fn new(bound: &Bind, allowed: &[String]) -> Hosts {
        let port = match bound {
            Bind::Tcp(address) => Some(address.port()),
            Bind::Unix(_) => None,
        };
        let own = match bound {
            Bind::Tcp(address) => authority(&address.to_string()),
            Bind::Unix(_) => None,
        };
        let further = allowed.iter().filter_map(|host| authority(host));
        Hosts {
            is_local: is_local(bound),
            port,
            named: own.into_iter().chain(further).collect(),
        }
    }

    /// Whether a `Host` is allowed. A host without a port is good as well: only its name could be
    /// an attacker's.
    pub(super) fn allow(&self, host: &str) -> bool {
        let Some(asked) = authority(host) else {
            return false;
        };
        let right_port =
            |port: Option<u16>| port.is_none() || asked.port.is_none() || port == asked.port;
        let loopback = is_loopback(&asked.host) && right_port(self.port);
        loopback
            || self
                .named
                .iter()
                .any(|named| named.host == asked.host && right_port(named.port))
    }

    fn list(&self) -> String {
        let port = self.port.map_or(String::new(), |port| format!(":{port}"));
        let mut list = format!("localhost{port}, 127.0.0.1{port}, [::1]{port}");
        for NamedHost { host, port } in &self.named {
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            list.push_str(&format!(", {host}{port}"));
        }
        list
    }
}

fn authority(text: &str) -> Option<NamedHost> {
    let authority: Authority = text.parse().ok().filter(|_| !text.contains('@'))?;
    let host = authority.host().to_ascii_lowercase();
    let port = authority.port_u16();
    // "host:" and "host:99999" are no authorities of ours, though they parse.
    let whole = port.map_or(host.len(), |port| host.len() + 1 + port.to_string().len());
    (!host.is_empty() && whole == text.len()).then_some(NamedHost { host, port })
}

/// Whether traffic to that address stays on this host.
pub(crate) fn is_local(bind: &Bind) -> bool {
    match bind {
        Bind::Tcp(address) => address.ip().to_canonical().is_loopback(),
        Bind::Unix(_) => true,
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Requires exactly one `Host`, which is allowed; a request target that names another host is
/// refused as well.
pub(super) fn check_host(hosts: &Hosts, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    if uri.authority().is_some() {
        return Err(ApiError::bad_request(
            "the request target must be a path, not a URL",
        ));
    }
    let host = single(headers, HOST)?
        .ok_or_else(|| ApiError::bad_request("the Host header is missing"))?;
    if hosts.allow(host) {
        return Ok(());
    }
    let allowed = hosts.list();
    Err(ApiError::forbidden(format!(
        "host {host:?} is not allowed; allowed: {allowed} (admin.allowed_hosts adds more)"
    )))
}

/// Requires no `Origin`, or the endpoint's own. `Sec-Fetch-Site`, which browsers send, must agree.
/// A proxy of this machine may add TLS in front of a plain endpoint.
pub(super) fn check_origin(
    hosts: &Hosts,
    secure: bool,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    let site = single(headers, HeaderName::from_static("sec-fetch-site"))?;
    if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return Err(ApiError::forbidden(
            "requests from another site's page are not allowed",
        ));
    }
    let Some(origin) = single(headers, ORIGIN)? else {
        return Ok(());
    };
    let scheme = if secure { "https" } else { "http" };
    let host = single(headers, HOST)?.unwrap_or_default();
    let own = format!("{scheme}://{host}");
    let in_front = hosts.is_local.then(|| format!("https://{host}"));
    let mut good = in_front.iter().chain([&own]);
    if good.any(|good| origin.eq_ignore_ascii_case(good)) {
        return Ok(());
    }
    Err(ApiError::forbidden(format!(
        "origin {origin:?} is not allowed; allowed: none, or {own}"
    )))
}

/// Whether the page that sends a request came over TLS; its origin is checked.
pub(super) fn is_from_tls(headers: &HeaderMap) -> bool {
    let origin = headers.get(ORIGIN);
    origin.is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}

/// Returns the bearer token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let value = single(headers, AUTHORIZATION)?;
    Ok(value.and_then(|value| {
        let (scheme, given) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(given.trim())
    }))
}

/// Requires the content type JSON, of an empty body, too: a form on a foreign page cannot send it.
pub(super) fn check_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = single(headers, CONTENT_TYPE)?.unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::new(
        http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "a change needs \"Content-Type: application/json\", with a JSON object or nothing as its body",
    ))
}

/// Returns the header's value; several of them, or one that is not text, are refused.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(&name).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(ApiError::bad_request(format!(
            "the header {name} is given more than once"
        )));
    }
    let unreadable = |_| ApiError::bad_request(format!("the header {name} is not readable text"));
    first
        .map(|value| value.to_str().map_err(unreadable))
        .transpose()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn hosts() -> Hosts {
        Hosts::new(
            &Bind::Tcp(([10, 0, 0, 1], 9900).into()),
            &["lb.example.org".into(), "x.example:80".into()],
        )
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn status(result: Result<(), ApiError>) -> Option<StatusCode> {
        result.err().map(|failure| failure.status)
    }

    #[test]
    fn the_bound_address_loopback_and_the_allowed_hosts_are_hosts() {
        for host in [
            "10.0.0.1:9900",
            "10.0.0.1",
            "localhost:9900",
            "LOCALHOST:9900",
            "127.0.0.1:9900",
            "127.1.2.3:9900",
            "[::1]:9900",
            "[::1]",
            "lb.example.org",
            "lb.example.org:443",
            "x.example:80",
        ] {
            assert!(hosts().allow(host), "{host}");
        }
    }

    #[test]
    fn every_other_host_is_refused() {
        for host in [
            "",
            "evil.example",
            "evil.example:9900",
            "localhost:80",
            "localhost.evil.example:9900",
            "10.0.0.2:9900",
            "localhost@evil.example",
            "a@localhost",
            "x.example:81",
            "127.0.0.1.evil.example",
            "localhost:",
            "localhost:99999",
            "localhost/..",
            "::1",
        ] {
            assert!(!hosts().allow(host), "{host}");
        }
    }

    #[test]
    fn a_unix_socket_is_localhost() {
        let hosts = Hosts::new(&Bind::Unix("/run/evenkeel.sock".into()), &[]);
        assert!(hosts.allow("localhost"));
        assert!(!hosts.allow("evil.example"));
    }

    #[test]
    fn a_missing_a_second_and_a_foreign_host_are_refused() {
        let path = Uri::from_static("/");
        let check = |pairs: &[_]| status(check_host(&hosts(), &path, &headers(pairs)));
        assert_eq!(check(&[("host", "localhost:9900")]), None);
        assert_eq!(check(&[]), Some(StatusCode::BAD_REQUEST));
        assert_eq!(
            check(&[("host", "localhost"), ("host", "localhost")]),
            Some(StatusCode::BAD_REQUEST)
        );
        assert_eq!(
            check(&[("host", "evil.example")]),
            Some(StatusCode::FORBIDDEN)
        );
        let url = Uri::from_static("http://evil.example/");
        let result = check_host(&hosts(), &url, &headers(&[("host", "localhost")]));
        assert_eq!(status(result), Some(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn the_refusal_lists_what_is_allowed() {
        let failure = check_host(
            &hosts(),
            &Uri::from_static("/"),
            &headers(&[("host", "evil.example")]),
        )
        .unwrap_err();
        assert!(
            failure.view.error.contains("localhost:9900"),
            "{}",
            failure.view.error
        );
        assert!(
            failure.view.error.contains("lb.example.org"),
            "{}",
            failure.view.error
        );
    }

    #[test]
    fn only_the_own_origin_is_allowed() {
        let check = |secure, origin: &str| {
            status(check_origin(
                &hosts(),
                secure,
                &headers(&[("host", "localhost:9900"), ("origin", origin)]),
            ))
        };
        assert_eq!(check(false, "http://localhost:9900"), None);
        assert_eq!(check(true, "https://localhost:9900"), None);
        for (secure, origin) in [
            (false, "https://localhost:9900"),
            (true, "http://localhost:9900"),
            (false, "http://evil.example"),
            (false, "null"),
            (false, "http://localhost:3000"),
            (false, ""),
        ] {
            assert_eq!(
                check(secure, origin),
                Some(StatusCode::FORBIDDEN),
                "{origin}"
            );
        }
    }

    #[test]
    fn a_proxy_of_this_machine_may_add_tls() {
        let local = Hosts::new(&Bind::Unix("/run/a".into()), &["lb.example.org".into()]);
        let head = [
            ("host", "lb.example.org"),
            ("origin", "https://lb.example.org"),
        ];
        let head = headers(&head);
        assert_eq!(status(check_origin(&local, false, &head)), None);
        assert!(is_from_tls(&head));
        let refused = Some(StatusCode::FORBIDDEN);
        assert_eq!(status(check_origin(&hosts(), false, &head)), refused);
        let foreign = [
            ("host", "lb.example.org"),
            ("origin", "https://evil.example"),
        ];
        let foreign = check_origin(&local, false, &headers(&foreign));
        assert_eq!(status(foreign), refused);
    }

    #[test]
    fn no_origin_is_no_browser() {
        assert_eq!(
            status(check_origin(
                &hosts(),
                false,
                &headers(&[("host", "localhost")])
            )),
            None
        );
    }

    #[test]
    fn a_browser_that_says_cross_site_is_refused() {
        for site in ["cross-site", "same-site"] {
            let result = check_origin(
                &hosts(),
                false,
                &headers(&[("host", "localhost"), ("sec-fetch-site", site)]),
            );
            assert_eq!(status(result), Some(StatusCode::FORBIDDEN));
        }
        assert_eq!(
            status(check_origin(
                &hosts(),
                false,
                &headers(&[("host", "a"), ("sec-fetch-site", "none")])
            )),
            None
        );
    }

    #[test]
    fn a_token_is_what_stands_behind_bearer() {
        let given = |pairs: &[_]| bearer(&headers(pairs)).map(|one| one.map(str::to_owned));
        let secret = Some("secret".to_owned());
        assert_eq!(
            given(&[("authorization", "Bearer secret")]).ok(),
            Some(secret.clone())
        );
        assert_eq!(
            given(&[("authorization", "bearer  secret ")]).ok(),
            Some(secret)
        );
        for none in ["Bearer", "Basic secret", "secret"] {
            assert_eq!(given(&[("authorization", none)]).ok(), Some(None), "{none}");
        }
        assert_eq!(given(&[]).ok(), Some(None));
    }

    #[test]
    fn a_change_needs_the_json_content_type() {
        let check = |pairs: &[_]| status(check_json(&headers(pairs)));
        assert_eq!(check(&[("content-type", "application/json")]), None);
        assert_eq!(
            check(&[("content-type", "application/json; charset=utf-8")]),
            None
        );
        for form in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json2",
        ] {
            assert_eq!(
                check(&[("content-type", form)]),
                Some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            );
        }
        assert_eq!(check(&[]), Some(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
}
