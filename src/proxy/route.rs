//! Routing: from what is known of a connection or request to a pool, by one snapshot of its
//! listener's configuration. Pure: it reads nothing and waits for nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::admission::{AccessList, AdmissionRules};
use crate::base::path::{AmbiguousPath, hides_separator};
use crate::config::{self, EncodedSlash, ListenerTls, Protocol, Route};
use crate::observe::Refusal;
use crate::pool::Pool;
use crate::tls::{TlsAcceptor, TlsError};

/// HTTP/1 only: a WebSocket over HTTP/2 would need another upgrade.
const HTTP_ALPN: &[&[u8]] = &[b"http/1.1"];

/// A listener's configuration with certificates loaded and pools found. A connection, or a request
/// of a kept one, sees one of them.
pub struct ListenerSnapshot {
    pub config: Arc<config::Listener>,
    /// Present where TLS is terminated here.
    pub tls: Option<Arc<TlsAcceptor>>,
    pub(super) access: AccessList,
    default_pool: Option<Arc<Pool>>,
    routes: Vec<RouteTarget>,
    /// A route with a path keeps clients out.
    guards_paths: bool,
    /// The path decides whether a route keeps clients out.
    judges_by_path: bool,
}

/// A route with its pool found.
struct RouteTarget {
    route: Route,
    access: AccessList,
    pool: Arc<Pool>,
}

/// Facts by which a connection or request is routed. Names are lower case.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RouteInput<'a> {
    pub sni: Option<&'a str>,
    pub alpn: &'a [Vec<u8>],
    /// The host without its port.
    pub host: Option<&'a str>,
    /// The normal form of the path, without its query.
    pub path: Option<&'a str>,
    /// The path as it came, where guards have to see more than its normal form.
    pub ambiguous: Option<&'a AmbiguousPath<'a>>,
}

/// Threads that accept the connections of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcceptWay {
    /// The set-up plane: a PROXY header or a handshake comes first.
    SetUp,
    /// The relay's: the pool is known without a byte.
    RelayTcp,
    /// The relay's: nothing stands before a request's head.
    RelayHttp,
}

impl ListenerSnapshot {
    /// The rules by which clients are let in.
    pub fn admission(&self) -> AdmissionRules<'_> {
        AdmissionRules {
            access: &self.access,
            listener: &self.config,
        }
    }

    /// Live connections that one source may have; 0: as many as it likes.
    pub(crate) fn source_limit(&self) -> u64 {
        let limits = self.config.admission.per_source;
        limits.map_or(0, |one| one.max_connections)
    }

    /// The threads that accept its connections, and how far they come there.
    pub(super) fn way(&self) -> AcceptWay {
        let config = &self.config;
        if config.tls.is_some() || config.accept_proxy {
            return AcceptWay::SetUp;
        }
        match config.protocol {
            Protocol::Tcp => AcceptWay::RelayTcp,
            Protocol::Websocket => AcceptWay::RelayHttp,
        }
    }

    /// Loads the listener's certificates and finds its pools. A pool that is not in `pools` is left
    /// out: the decoder has already refused such a name.
    ///
    /// # Errors
    /// A certificate or key that cannot be used.
    pub fn build(
        listener: &config::Listener,
        pools: &BTreeMap<String, Arc<Pool>>,
    ) -> Result<Self, TlsError> {
        let tls = match &listener.tls {
            Some(ListenerTls::Terminate(settings)) => {
                let chosen: Vec<_> = settings.alpn.iter().map(String::as_bytes).collect();
                let alpn = match listener.protocol {
                    Protocol::Tcp => &chosen[..],
                    Protocol::Websocket => HTTP_ALPN,
                };
                let acceptor = TlsAcceptor::load(&listener.name, settings, alpn)?;
                Some(Arc::new(acceptor))
            }
            Some(ListenerTls::Passthrough) | None => None,
        };
        let named = |name: &String| pools.get(name).cloned();
        Ok(Self {
            config: Arc::new(listener.clone()),
            tls,
            access: AccessList::new(&listener.admission.access),
            default_pool: listener.pool.as_ref().and_then(named),
            guards_paths: listener.routes.iter().any(guards_path),
            judges_by_path: listener.routes.iter().any(|route| route.path.is_some())
                && listener.routes.iter().any(|route| !route.access.is_open()),
            routes: listener
                .routes
                .iter()
                .filter_map(|route| {
                    Some(RouteTarget {
                        route: route.clone(),
                        access: AccessList::new(&route.access),
                        pool: named(&route.pool)?,
                    })
                })
                .collect(),
        })
    }

    /// The pool of a connection or request, or the reason to refuse its client: `Denied` or
    /// `NoRoute`. See [`ListenerSnapshot::admits`].
    pub(super) fn select(
        &self,
        input: &RouteInput<'_>,
        peer: Option<IpAddr>,
        client: Option<IpAddr>,
    ) -> Result<&Arc<Pool>, Refusal> {
        if !self.admits(input, peer, client) {
            return Err(Refusal::Denied);
        }
        self.route(input).ok_or(Refusal::NoRoute)
    }

    /// The pool of the first route that matches, else the listener's own.
    pub(super) fn route(&self, input: &RouteInput<'_>) -> Option<&Arc<Pool>> {
        let target = self.target(input);
        target
            .map(|target| &target.pool)
            .or(self.default_pool.as_ref())
    }

    /// Whether the listener takes this peer, and the route of this input takes this client; `None`
    /// is one without an address. The next route is not tried: a client that may not use one is not
    /// to reach another pool by it. Where a backend may take the path for another one, the routes
    /// of those have to take the client, too.
    fn admits(&self, input: &RouteInput<'_>, peer: Option<IpAddr>, client: Option<IpAddr>) -> bool {
        // A kept connection may have come before a reload that keeps its client out.
        let target = self.target(input);
        self.access.admits(peer)
            && target.is_none_or(|target| target.access.admits(client))
            && input
                .ambiguous
                .is_none_or(|path| self.admits_by_each_reading(input, path, client))
    }

    fn admits_by_each_reading(
        &self,
        input: &RouteInput<'_>,
        path: &AmbiguousPath<'_>,
        client: Option<IpAddr>,
    ) -> bool {
        for target in &self.routes {
            let prefix = target.route.path.as_deref().unwrap_or("/");
            if !meets_names(&target.route, input) {
                continue;
            }
            if !target.access.admits(client) && path.may_be_under(prefix) {
                return false;
            }
            if path.is_surely_under(prefix) {
                break;
            }
        }
        true
    }

    /// Whether a path that can be read in two ways is refused, as it would pass a guard.
    pub(super) fn refuses_path(&self, path: &str) -> bool {
        self.guards_paths
            && self.config.encoded_slash == EncodedSlash::Refuse
            && hides_separator(path)
    }

    /// The path where it is ambiguous and that matters here.
    pub(super) fn ambiguous<'a>(&self, path: &'a str) -> Option<AmbiguousPath<'a>> {
        self.judges_by_path
            .then(|| AmbiguousPath::of(path))
            .flatten()
    }

    fn target(&self, input: &RouteInput<'_>) -> Option<&RouteTarget> {
        self.routes
            .iter()
            .find(|target| matches(&target.route, input))
    }
}

/// True for a route that keeps clients out by path.
fn guards_path(route: &Route) -> bool {
    route.path.is_some() && !route.access.is_open()
}

/// True when every condition of the route holds.
fn matches(route: &Route, input: &RouteInput<'_>) -> bool {
    let resolved = input.ambiguous.map(AmbiguousPath::resolved);
    meets_names(route, input)
        && (is_led_to(route, input.path.map(str::as_bytes))
            || guards_path(route) && resolved.is_some_and(|path| is_led_to(route, Some(path))))
}

/// True when every condition but the path holds.
fn meets_names(route: &Route, input: &RouteInput<'_>) -> bool {
    let Route {
        sni,
        alpn,
        host,
        path: _,
        pool: _,
        access: _,
    } = route;
    let name = |wanted: &Option<String>, found: Option<&str>| {
        wanted
            .as_deref()
            .is_none_or(|wanted| found.is_some_and(|found| covers(wanted, found)))
    };
    name(sni, input.sni)
        && name(host, input.host)
        && alpn
            .as_deref()
            .is_none_or(|wanted| input.alpn.iter().any(|one| one == wanted.as_bytes()))
}

/// True when the condition on the path holds. A guard ignores case, as some backends do.
fn is_led_to(route: &Route, path: Option<&[u8]>) -> bool {
    route.path.as_deref().is_none_or(|prefix| {
        path.is_some_and(|path| is_under(prefix.as_bytes(), path, guards_path(route)))
    })
}

/// Whether a pattern covers a name: `*.example.org` covers one label.
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern == name,
        Some(parent) => name
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
    }
}

/// Whether a path is under a prefix, which ends at a segment: `/chat` has `/chat` and `/chat/x`
/// under it, not `/chatter`.
fn is_under(prefix: &[u8], path: &[u8], ignores_case: bool) -> bool {
    path.split_at_checked(prefix.len())
        .is_some_and(|(start, rest)| {
            let same = if ignores_case {
                start.eq_ignore_ascii_case(prefix)
            } else {
                start == prefix
            };
            same && (rest.is_empty() || rest.starts_with(b"/") || prefix.ends_with(b"/"))
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::path::normalize_path;

    #[test]
    fn a_wildcard_covers_one_label() {
        assert!(covers("*.example.org", "eu.example.org"));
        assert!(!covers("*.example.org", "example.org"));
        assert!(!covers("*.example.org", "a.b.example.org"));
        assert!(!covers("*.example.org", ".example.org"));
        assert!(covers("example.org", "example.org"));
    }

    #[test]
    fn a_path_prefix_ends_at_a_segment() {
        assert!(is_under(b"/chat", b"/chat", false));
        assert!(is_under(b"/chat", b"/chat/room", false));
        assert!(!is_under(b"/chat", b"/chatter", false));
        assert!(is_under(b"/", b"/anything", false));
        assert!(is_under(b"/chat/", b"/chat/room", false));
        assert!(!is_under(b"/chat/", b"/chat", false));
        assert!(is_under(b"/chat", b"/CHAT/x", true) && !is_under(b"/chat", b"/CHAT", false));
    }

    #[test]
    fn every_condition_of_a_route_must_hold() {
        let route = Route {
            sni: None,
            alpn: None,
            host: Some("a.example".into()),
            path: Some("/x".into()),
            pool: "p".into(),
            access: config::Access::default(),
        };
        let input = |host, path| RouteInput {
            host: Some(host),
            path: Some(path),
            ..RouteInput::default()
        };
        assert!(matches(&route, &input("a.example", "/x/y")));
        assert!(!matches(&route, &input("b.example", "/x/y")));
        assert!(!matches(&route, &input("a.example", "/y")));
    }

    /// A listener with these routes of pool `p`.
    fn listener(routes: &str) -> ListenerSnapshot {
        let text = format!(
            "[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:9\"\nprotocol = \"websocket\"\n\
             pool = \"p\"\nroute = [{routes}]\n\
             [pool.p]\nbackend = [{{ name = \"b\", address = \"127.0.0.1:8\" }}]\n"
        );
        let file = std::path::Path::new("balancer.toml");
        let config = config::parse(&text, file).unwrap_or_else(|errors| panic!("{errors}"));
        let pools = config.pools.iter();
        let pools = pools.map(|(name, pool)| (name.clone(), Pool::new(pool)));
        ListenerSnapshot::build(&config.listeners[0], &pools.collect()).expect("no certificates")
    }

    /// Path of the route that `path` leads to, and whether 192.0.2.1 is let in.
    fn led(listener: &ListenerSnapshot, path: &str) -> (Option<String>, bool) {
        let (normal, ambiguous) = (normalize_path(path), listener.ambiguous(path));
        let input = RouteInput {
            host: Some("a"),
            path: Some(&normal),
            ambiguous: ambiguous.as_ref(),
            ..RouteInput::default()
        };
        let target = listener.target(&input);
        let outsider = Some("192.0.2.1".parse().expect("an address"));
        (
            target.and_then(|target| target.route.path.clone()),
            listener.admits(&input, outsider, outsider),
        )
    }

    const GUARDED: &str = r#"
        { path = "/admin/public", pool = "p" }, { path = "/public", pool = "p" },
        { path = "/admin", pool = "p", allow = ["10.0.0.0/8"] }, { path = "/", pool = "p" }
    "#;

    #[test]
    fn only_what_may_be_read_as_the_guarded_path_is_refused() {
        let listener = listener(GUARDED);
        for path in [
            "/",
            "/administrator",
            "/x/admin",
            "/public/..x/admin",
            "/admin/public/x",
            "/admin/public/x/../%20;p",
            "/x/../y/%61dmin",
            "/a%2fb",
            "/%25",
        ] {
            assert!(led(&listener, path).1, "{path}");
        }
        for path in [
            "/ADMIN",
            "/admin/PUBLIC",
            "/admin/public/../x",
            "/admin/%70ublic",
            // Backends that resolve no dot segments, or not this one.
            "/admin/../x",
            "/admin/..;/x",
            "/%61dmin/%2e%2e/x",
            // Backends to which `//` is a name between two slashes, or an escaped slash a letter.
            "/x/../admin//../y",
            "/x%252fy/../admin/%2e%2e/../y",
        ] {
            assert!(!led(&listener, path).1, "{path}");
        }
    }

    #[test]
    fn what_leaves_an_open_path_meets_the_guard_of_the_rest() {
        let listener = listener(
            r#"{ path = "/open", pool = "p" }, { host = "a", pool = "p", allow = ["10.0.0.0/8"] }"#,
        );
        for path in ["/open", "/open/x", "/open/%20", "/open/x/../y", "/open/;p"] {
            assert!(led(&listener, path).1, "{path}");
        }
        for path in [
            "/x",
            "/open/../x",
            "/x//../open",
            "/open/..%252fx",
            "/OPEN",
            "/x/..;/open",
        ] {
            assert!(!led(&listener, path).1, "{path}");
        }
        assert!(!listener.refuses_path("/a%2fb"), "no guard has a path");
    }

    /// Changes that servers make to a path before it is routed, in one order or another.
    #[derive(Debug, Clone, Copy)]
    enum Reader {
        Decodes,
        DropsParameters,
        MergesSlashes,
        TurnsBackslashes,
        EndsAtNul,
        ResolvesDots,
        ResolvesPlainDots,
    }

    impl Reader {
        fn read(self, path: &str) -> String {
            let resolve = |climbs: &[&str], stays: &[&str]| {
                let mut kept: Vec<&str> = Vec::new();
                for segment in path.split('/').skip(1) {
                    if climbs.contains(&segment.to_ascii_lowercase().as_str()) {
                        kept.pop();
                    } else if !stays.contains(&segment.to_ascii_lowercase().as_str()) {
                        kept.push(segment);
                    }
                }
                format!("/{}", kept.join("/"))
            };
            match self {
                Reader::Decodes => {
                    let mut read = String::new();
                    let mut rest = path;
                    while let Some((before, escape)) = rest.split_once('%') {
                        read.push_str(before);
                        let byte = escape.get(..2).map(|two| u8::from_str_radix(two, 16));
                        rest = match byte {
                            Some(Ok(byte)) => {
                                read.push(char::from(byte));
                                &escape[2..]
                            }
                            _ => {
                                read.push('%');
                                escape
                            }
                        };
                    }
                    read + rest
                }
                Reader::DropsParameters => {
                    let names = path
                        .split('/')
                        .map(|one| one.split(';').next().unwrap_or(one));
                    names.collect::<Vec<_>>().join("/")
                }
                Reader::MergesSlashes => {
                    let names = path.split('/').skip(1);
                    let last = if path.ends_with('/') { "/" } else { "" };
                    let names = names
                        .filter(|one| !one.is_empty())
                        .map(|one| format!("/{one}"));
                    names.collect::<String>() + last
                }
                Reader::TurnsBackslashes => path.replace('\\', "/"),
                Reader::EndsAtNul => path.split('\0').next().unwrap_or_default().to_owned(),
                Reader::ResolvesDots => resolve(&["..", "%2e.", ".%2e", "%2e%2e"], &[".", "%2e"]),
                Reader::ResolvesPlainDots => resolve(&[".."], &["."]),
            }
        }
    }

    const READERS: [Reader; 7] = [
        Reader::Decodes,
        Reader::DropsParameters,
        Reader::MergesSlashes,
        Reader::TurnsBackslashes,
        Reader::EndsAtNul,
        Reader::ResolvesDots,
        Reader::ResolvesPlainDots,
    ];

    /// Pieces of paths, the tricks among them.
    const PIECES: [&str; 30] = [
        "/admin",
        "/admin",
        "/%61dmin",
        "/ADM%49N",
        "/%2561dmin",
        "admin",
        "/public",
        "/x",
        "x",
        "/",
        "//",
        "/.",
        "/..",
        "/..",
        "/%2e",
        "/%2e%2e",
        "/%2E.",
        "/%252e%252e",
        "/..;",
        "/..;p",
        "/;p",
        ";p=1",
        ";",
        "%2f",
        "%5C",
        "\\",
        "%252f",
        "%00",
        "%3b",
        "%25",
    ];

    proptest! {
        #[test]
        fn no_spelling_passes_a_guard(
            detours in prop::collection::vec(prop::sample::select(vec![
                "/", "/.", "/%2e", "/%2E", "/;p=1", "/x/..", "/x/%2e%2e", "/x/.%2E", "/x/..;p",
                "/x//..", "/X/y/../..", "/public/..", "/%70ublic/%2E.", "/..", "/%2e%2e;",
            ]), 0..6),
            letters in prop::collection::vec(0u8..6, 5),
            end in prop::sample::select(vec!["", ";x=1", ";x=1;y=%2f", "/", "//", "/.", "/x", "?"]),
        ) {
            let name: String = "admin".chars().zip(letters).map(|(letter, style)| match style {
                0 => letter.to_string(),
                1 => letter.to_ascii_uppercase().to_string(),
                2 => format!("%{:02x}", u32::from(letter)),
                3 => format!("%{:02X}", u32::from(letter)),
                4 => format!("%25{:02x}", u32::from(letter)),
                _ => format!("%2525{:02x}", u32::from(letter)),
            }).collect();
            let end = end.trim_end_matches('?');
            let path = format!("{}/{name}{end}", detours.concat());
            let (route, admitted) = led(&listener(GUARDED), &path);
            prop_assert_eq!(route.as_deref(), Some("/admin"), "{}", path);
            prop_assert!(!admitted, "{}", path);
        }

        #[test]
        fn no_escape_of_a_separator_passes_a_guard(
            start in prop::sample::select(vec!["", "/public", "/admin/public", "/x", "/public/y"]),
            climbs in prop::collection::vec(prop::sample::select(vec![
                "%2f..", "%252f..", "%5c..", "\\..", "%255c%252e%252e", "/%252e%252e", "/..%3b",
                "/..;",
            ]), 3..6),
            separator in prop::sample::select(vec!["/", "%2f", "%252F", "\\", "%5C", "//"]),
            end in prop::sample::select(vec!["", "%00", "%00.png", "%3bx", "%253b", "%2f", "\\x"]),
        ) {
            let path = format!("{start}{}{separator}admin{end}", climbs.concat());
            let path = match path.starts_with('/') {
                true => path,
                false => format!("/{path}"),
            };
            prop_assert!(!led(&listener(GUARDED), &path).1, "{}", path);
        }

        #[test]
        fn no_chain_of_readers_comes_to_a_guard_that_was_passed(
            pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 1..9),
            chain in prop::collection::vec(prop::sample::select(&READERS[..]), 0..7),
        ) {
            let path = format!("/{}", pieces.concat());
            let path = path.strip_prefix('/').filter(|path| path.starts_with('/')).unwrap_or(&path);
            let read = chain.iter().fold(path.to_owned(), |path, reader| reader.read(&path));
            let names: Vec<_> = read.split('/').skip(1).collect();
            let is_guarded = names.first().is_some_and(|name| name.eq_ignore_ascii_case("admin"))
                && names.get(1) != Some(&"public");
            let admitted = led(&listener(GUARDED), path).1;
            prop_assert!(!is_guarded || !admitted, "{} {:?} {}", path, chain, read);
        }
    }
}
