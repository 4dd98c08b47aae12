//! Routes of the admin API. A change has an address and a method of its own, so that no request
//! that only reads can change anything.

use http::Method;
use percent_encoding::percent_decode_str;

use super::embedded::{self, Asset};
use crate::pool::OperatorState;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ApiRoute {
    Healthz,
    Readyz,
    Metrics,
    /// A file of the dashboard.
    Asset(&'static Asset),
    /// Shows the session, or begins one.
    Login,
    Logout,
    Index,
    OpenApi(&'static Asset),
    Events,
    /// The text in force.
    Configuration,
    /// Effect of a reload of the file as it is now.
    FilePlan,
    Status,
    Listeners,
    Pools,
    Pool(String),
    /// Takes the answer of discovery that is held for the pool of that name.
    AcceptDiscovery(String),
    Backend(BackendPath),
    Operate(BackendPath, OperatorState),
    /// Drains the listener of that name, or takes it back.
    OperateListener(String, ListenerAction),
    Weight(BackendPath),
    Connections,
    /// Named by its id, as the path has it.
    Connection(String),
    /// Closes the connections that a filter finds.
    Close,
    /// Moves the connections that a filter finds to other backends.
    Move,
    Jobs,
    /// Named by its id, as the path has it.
    Job(String),
    AbortJob(String),
    Reload,
    Plan,
    /// Hands over to a new process.
    Upgrade,
}

/// Backend as the path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackendPath {
    pub pool: String,
    pub backend: String,
}

/// Operation on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListenerAction {
    Drain,
    Ready,
}

/// Methods of a route that changes nothing.
const READ: &str = "GET, HEAD";

impl ApiRoute {
    /// Parses a path. Names are percent-decoded after the path was split, so a name may hold any
    /// character.
    pub(super) fn parse(path: &str) -> Option<ApiRoute> {
        let Some(api) = path.strip_prefix("/api/v1/") else {
            return ApiRoute::parse_page(path);
        };
        if api.is_empty() {
            return Some(ApiRoute::Index);
        }
        let segments: Vec<String> = api.split('/').map(decode).collect::<Option<_>>()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let target = |pool: &str, backend: &str| BackendPath {
            pool: pool.into(),
            backend: backend.into(),
        };
        match segments.as_slice() {
            ["openapi.json"] => embedded::description().map(ApiRoute::OpenApi),
            ["events"] => Some(ApiRoute::Events),
            ["configuration"] => Some(ApiRoute::Configuration),
            ["configuration", "plan"] => Some(ApiRoute::FilePlan),
            ["status"] => Some(ApiRoute::Status),
            ["listeners"] => Some(ApiRoute::Listeners),
            ["listeners", name, word] => Some(ApiRoute::OperateListener(
                (*name).into(),
                listener_word(word)?,
            )),
            ["pools"] => Some(ApiRoute::Pools),
            ["reload"] => Some(ApiRoute::Reload),
            ["plan"] => Some(ApiRoute::Plan),
            ["upgrade"] => Some(ApiRoute::Upgrade),
            ["connections"] => Some(ApiRoute::Connections),
            ["connections", "close"] => Some(ApiRoute::Close),
            ["connections", "move"] => Some(ApiRoute::Move),
            ["jobs"] => Some(ApiRoute::Jobs),
            ["jobs", id, "abort"] => Some(ApiRoute::AbortJob((*id).into())),
            ["jobs", id] => Some(ApiRoute::Job((*id).into())),
            ["connections", id] => Some(ApiRoute::Connection((*id).into())),
            ["pools", pool] => Some(ApiRoute::Pool((*pool).into())),
            ["pools", pool, "discover", "accept"] => {
                Some(ApiRoute::AcceptDiscovery((*pool).into()))
            }
            ["pools", pool, "backends", backend] => Some(ApiRoute::Backend(target(pool, backend))),
            ["pools", pool, "backends", backend, "weight"] => {
                Some(ApiRoute::Weight(target(pool, backend)))
            }
            ["pools", pool, "backends", backend, state] => Some(ApiRoute::Operate(
                target(pool, backend),
                operator_state(state)?,
            )),
            _ => None,
        }
    }

    /// Parses what is not below `/api/v1/`.
    fn parse_page(path: &str) -> Option<ApiRoute> {
        match path {
            "/api/v1" => Some(ApiRoute::Index),
            "/login" => Some(ApiRoute::Login),
            "/logout" => Some(ApiRoute::Logout),
            _ => ApiRoute::parse_probe(path).or_else(|| embedded::find(path).map(ApiRoute::Asset)),
        }
    }

    /// Parses `/healthz`, `/readyz` and `/metrics`: all that the metrics endpoint has.
    pub(super) fn parse_probe(path: &str) -> Option<ApiRoute> {
        match path {
            "/healthz" => Some(ApiRoute::Healthz),
            "/readyz" => Some(ApiRoute::Readyz),
            "/metrics" => Some(ApiRoute::Metrics),
            _ => None,
        }
    }

    /// Methods as the `Allow` header lists them.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            ApiRoute::Operate(..)
            | ApiRoute::OperateListener(..)
            | ApiRoute::AcceptDiscovery(_)
            | ApiRoute::Reload
            | ApiRoute::Plan
            | ApiRoute::Upgrade
            | ApiRoute::Close
            | ApiRoute::Move
            | ApiRoute::Logout
            | ApiRoute::AbortJob(_) => "POST",
            ApiRoute::Login => "GET, HEAD, POST",
            ApiRoute::Weight(_) => "PUT, POST",
            ApiRoute::Connection(_) => "DELETE",
            _ => READ,
        }
    }

    pub(super) fn allows(&self, method: &Method) -> bool {
        self.methods()
            .split(", ")
            .any(|allowed| allowed == method.as_str())
    }

    /// Whether the rules for changes apply to every request, and a JSON body is needed: a plan's
    /// is a configuration.
    pub(super) fn is_change(&self) -> bool {
        self.methods() != READ && *self != ApiRoute::Login
    }

    /// Whether it changes something of the server; a plan does not, nor does the end of a session.
    pub(super) fn acts(&self) -> bool {
        self.is_change() && !matches!(self, ApiRoute::Plan | ApiRoute::Logout)
    }

    /// Whether it shows counters of bytes.
    pub(super) fn shows_bytes(&self) -> bool {
        matches!(
            self,
            ApiRoute::Metrics
                | ApiRoute::Status
                | ApiRoute::Listeners
                | ApiRoute::Pools
                | ApiRoute::Pool(_)
                | ApiRoute::Backend(_)
        )
    }

    /// Whether it needs no token: it says only yes or no, and probes cannot hold secrets; or it is
    /// the page that asks for the token.
    pub(super) fn is_open(&self) -> bool {
        let is_probe = matches!(self, ApiRoute::Healthz | ApiRoute::Readyz);
        is_probe || self.is_page() || matches!(self, ApiRoute::Login | ApiRoute::Logout)
    }

    /// Whether it is a file of the dashboard, to which a link of another site may lead.
    pub(super) fn is_page(&self) -> bool {
        matches!(self, ApiRoute::Asset(_))
    }
}

fn operator_state(word: &str) -> Option<OperatorState> {
    match word {
        "ready" => Some(OperatorState::Ready),
        "drain" => Some(OperatorState::Drain),
        "maint" => Some(OperatorState::Maint),
        _ => None,
    }
}

fn listener_word(word: &str) -> Option<ListenerAction> {
    match word {
        "drain" => Some(ListenerAction::Drain),
        "ready" => Some(ListenerAction::Ready),
        _ => None,
    }
}

fn decode(segment: &str) -> Option<String> {
    let decoded = percent_decode_str(segment).decode_utf8().ok()?;
    (!decoded.is_empty()).then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::directory::ROUTES;
    use super::*;

    fn target(pool: &str, backend: &str) -> BackendPath {
        BackendPath {
            pool: pool.into(),
            backend: backend.into(),
        }
    }

    #[test]
    fn every_listed_route_is_known_and_allows_its_method() {
        for entry in ROUTES {
            let route = ApiRoute::parse(entry.path).unwrap_or_else(|| panic!("{entry:?}"));
            assert!(route.allows(&entry.method.parse().unwrap()), "{entry:?}");
        }
    }

    #[test]
    fn a_change_is_never_a_get() {
        for entry in ROUTES {
            let route = ApiRoute::parse(entry.path).unwrap();
            assert!(
                !(route.is_change() && route.allows(&Method::GET)),
                "{entry:?}"
            );
        }
    }

    #[test]
    fn names_are_decoded_after_the_path_was_split() {
        assert_eq!(
            ApiRoute::parse("/api/v1/pools/chat/backends/unix:%2Frun%2Fa.sock/drain"),
            Some(ApiRoute::Operate(
                target("chat", "unix:/run/a.sock"),
                OperatorState::Drain
            ))
        );
    }

    #[test]
    fn unknown_paths_are_not_routes() {
        for path in [
            "",
            "/api",
            "/api/v1//",
            "/api/v2/status",
            "/assets/none.js",
            "/api/v1/pools/",
            "/api/v1/pools/a/backends/b/stop",
            "/api/v1/pools/a/backends//drain",
            "/api/v1/status/",
            "/api/v1/pools/%ff",
            "/metrics/",
        ] {
            assert_eq!(ApiRoute::parse(path), None, "{path}");
        }
    }
}
