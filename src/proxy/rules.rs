//! One listener's snapshot: its configuration with certificates loaded and pools found. What one connection sees.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::access::AccessList;
use crate::config::{self, ListenerTls, Protocol, Route};
use crate::pool::Pool;
use crate::tls::{Terminator, TlsError};

/// HTTP/1 only: a WebSocket over HTTP/2 would need another upgrade.
const HTTP_ALPN: &[&[u8]] = &[b"http/1.1"];

pub struct Rules {
    pub config: Arc<config::Listener>,
    /// Present where TLS is terminated here.
    pub tls: Option<Arc<Terminator>>,
    pub(super) access: AccessList,
    default_pool: Option<Arc<Pool>>,
    routes: Vec<Target>,
}

/// A route with its pool found.
struct Target {
    route: Route,
    access: AccessList,
    pool: Arc<Pool>,
}

/// What is known of a connection or request when it is routed. Names are lower case.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    pub sni: Option<&'a str>,
    pub alpn: &'a [Vec<u8>],
    /// Without its port.
    pub host: Option<&'a str>,
    /// Without its query.
    pub path: Option<&'a str>,
}

impl Rules {
    /// Loads the listener's certificates and finds its pools. A pool that is not in `pools` is left out: the decoder
    /// has already refused such a name.
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
                let terminator = Terminator::load(&listener.name, settings, alpn)?;
                Some(Arc::new(terminator))
            }
            Some(ListenerTls::Passthrough) | None => None,
        };
        let named = |name: &String| pools.get(name).cloned();
        Ok(Self {
            config: Arc::new(listener.clone()),
            tls,
            access: AccessList::new(&listener.admission.access),
            default_pool: listener.pool.as_ref().and_then(named),
            routes: listener
                .routes
                .iter()
                .filter_map(|route| {
                    Some(Target {
                        route: route.clone(),
                        access: AccessList::new(&route.access),
                        pool: named(&route.pool)?,
                    })
                })
                .collect(),
        })
    }

    /// The pool of the first route that matches, else the listener's own.
    pub fn route(&self, facts: &Facts<'_>) -> Option<&Arc<Pool>> {
        let target = self.target(facts);
        target
            .map(|target| &target.pool)
            .or(self.default_pool.as_ref())
    }

    /// Whether the listener takes this peer, and the route that these facts lead to this client; `None` is one without an
    /// address. The next route is not tried: who may not use one is not to reach another pool by it.
    pub fn admits(&self, facts: &Facts<'_>, peer: Option<IpAddr>, client: Option<IpAddr>) -> bool {
        // A kept connection may have come before a reload that keeps its client out.
        let target = self.target(facts);
        self.access.admits(peer) && target.is_none_or(|target| target.access.admits(client))
    }

    fn target(&self, facts: &Facts<'_>) -> Option<&Target> {
        self.routes
            .iter()
            .find(|target| matches(&target.route, facts))
    }
}

/// True when every condition of the route holds.
fn matches(route: &Route, facts: &Facts<'_>) -> bool {
    let Route {
        sni,
        alpn,
        host,
        path,
        pool: _,
        access: _,
    } = route;
    let name = |wanted: &Option<String>, found: Option<&str>| {
        wanted
            .as_deref()
            .is_none_or(|wanted| found.is_some_and(|found| covers(wanted, found)))
    };
    name(sni, facts.sni)
        && name(host, facts.host)
        && alpn
            .as_deref()
            .is_none_or(|wanted| facts.alpn.iter().any(|one| one == wanted.as_bytes()))
        && path
            .as_deref()
            .is_none_or(|prefix| facts.path.is_some_and(|path| is_under(prefix, path)))
}

/// `*.example.org` covers one label.
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern == name,
        Some(parent) => name
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
    }
}

/// A prefix ends at a segment: `/chat` has `/chat` and `/chat/x` under it, not `/chatter`.
fn is_under(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(is_under("/chat", "/chat"));
        assert!(is_under("/chat", "/chat/room"));
        assert!(!is_under("/chat", "/chatter"));
        assert!(is_under("/", "/anything"));
        assert!(is_under("/chat/", "/chat/room"));
        assert!(!is_under("/chat/", "/chat"));
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
        let facts = |host, path| Facts {
            host: Some(host),
            path: Some(path),
            ..Facts::default()
        };
        assert!(matches(&route, &facts("a.example", "/x/y")));
        assert!(!matches(&route, &facts("b.example", "/x/y")));
        assert!(!matches(&route, &facts("a.example", "/y")));
    }
}
