//! Directory of the routes: the index, the answer to an unknown path, and OpenAPI are made of it.

use super::view::{IndexView, RouteView};

/// A route as a caller writes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouteEntry {
    pub method: &'static str,
    /// Names in braces stand for what a caller fills in.
    pub path: &'static str,
    pub about: &'static str,
}

const fn route(method: &'static str, path: &'static str, about: &'static str) -> RouteEntry {
    RouteEntry {
        method,
        path,
        about,
    }
}

/// Path of the description of the API.
pub(super) const OPENAPI: &str = "/api/v1/openapi.json";

pub(super) const ROUTES: &[RouteEntry] = &[
    route("GET", "/api/v1/", "This list of routes"),
    route("GET", OPENAPI, "Description of this API in OpenAPI 3.1"),
    route("GET", "/api/v1/status", "Everything at once"),
    route(
        "GET",
        "/api/v1/configuration",
        "Text and version of the configuration in force",
    ),
    route(
        "GET",
        "/api/v1/configuration/plan",
        "Effect that a reload of the file would have now",
    ),
    route(
        "GET",
        "/api/v1/events",
        "Server-sent events: changes of state, and rates once a second",
    ),
    route(
        "GET",
        "/api/v1/listeners",
        "Listeners with their counters, refusals and certificates",
    ),
    route(
        "POST",
        "/api/v1/listeners/{listener}/drain",
        "Drain a listener",
    ),
    route(
        "POST",
        "/api/v1/listeners/{listener}/ready",
        "Take a listener back",
    ),
    route("GET", "/api/v1/pools", "Pools with their backends"),
    route("GET", "/api/v1/pools/{pool}", "One pool"),
    route(
        "POST",
        "/api/v1/pools/{pool}/discover/accept",
        "Believe the answer of discovery that is held",
    ),
    route(
        "GET",
        "/api/v1/pools/{pool}/backends/{backend}",
        "One backend",
    ),
    route(
        "POST",
        "/api/v1/pools/{pool}/backends/{backend}/ready",
        "Take a backend back",
    ),
    route(
        "POST",
        "/api/v1/pools/{pool}/backends/{backend}/drain",
        "Drain a backend",
    ),
    route(
        "POST",
        "/api/v1/pools/{pool}/backends/{backend}/maint",
        "Drain a backend and stop its checks",
    ),
    route(
        "PUT",
        "/api/v1/pools/{pool}/backends/{backend}/weight",
        "Set the weight of a backend",
    ),
    route(
        "POST",
        "/api/v1/pools/{pool}/backends/{backend}/weight",
        "The same, for clients without PUT",
    ),
    route(
        "GET",
        "/api/v1/connections",
        "A page of the established connections",
    ),
    route("DELETE", "/api/v1/connections/{id}", "End a connection"),
    route(
        "POST",
        "/api/v1/connections/close",
        "End the connections that a filter finds",
    ),
    route(
        "POST",
        "/api/v1/connections/move",
        "Move the connections that a filter finds to other backends",
    ),
    route(
        "GET",
        "/api/v1/jobs",
        "Jobs that run and the latest that are over",
    ),
    route("GET", "/api/v1/jobs/{id}", "One job"),
    route("POST", "/api/v1/jobs/{id}/abort", "Abort a job"),
    route("POST", "/api/v1/reload", "Reload the configuration file"),
    route(
        "POST",
        "/api/v1/plan",
        "Effect that a reload of a text would have",
    ),
    route("POST", "/api/v1/upgrade", "Hand over to a new process"),
    route("GET", "/login", "Whose the session is"),
    route("POST", "/login", "Exchange a token for a session"),
    route("POST", "/logout", "End the session"),
    route("GET", "/healthz", "Whether the process answers"),
    route("GET", "/readyz", "Whether clients may be sent here"),
    route("GET", "/metrics", "Metrics for Prometheus"),
];

/// Returns the routes in one line.
pub(super) fn listed() -> String {
    let line = |entry: &RouteEntry| format!("{} {}", entry.method, entry.path);
    ROUTES.iter().map(line).collect::<Vec<_>>().join(", ")
}

pub(super) fn index() -> IndexView {
    let view = |entry: &RouteEntry| RouteView {
        method: entry.method.to_owned(),
        path: entry.path.to_owned(),
        about: entry.about.to_owned(),
    };
    IndexView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        openapi: OPENAPI.to_owned(),
        routes: ROUTES.iter().map(view).collect(),
    }
}
