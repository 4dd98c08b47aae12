//! Login and logout of a browser: exchanges a token for a session, and ends it.

use http::HeaderMap;
use http::StatusCode;
use http::header::{HeaderValue, SET_COOKIE};
use serde::Deserialize;
use tracing::info;

use super::body::{ApiBody, EmptyBody, read_json};
use super::caller::Caller;
use super::endpoint_connections::EndpointConnection;
use super::guard::AdminGuard;
use super::reply::{ApiError, Reply, json};
use super::sessions::{BrowserSession, Sessions, no_cookie};
use super::view::LoginView;
use crate::base::source_prefix::SourcePrefix;

/// Body of a login.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct LoginBody {
    token: String,
}

/// Says whose the session of a request is.
pub(super) fn show(
    guard: &AdminGuard,
    sessions: &Sessions,
    from: (&HeaderMap, SourcePrefix),
) -> Reply {
    let caller = Caller::of(guard, sessions, from).ok();
    json(StatusCode::OK, &view(guard, caller.as_ref()))
}

/// Way of a request of a browser.
pub(super) struct BrowserWay<'a> {
    pub headers: &'a HeaderMap,
    pub client: &'a EndpointConnection,
    /// Whether the browser's own connection is TLS: to here, or to a proxy in front.
    pub secure: bool,
}

impl<'a> BrowserWay<'a> {
    pub(super) fn source(&self) -> (&'a HeaderMap, SourcePrefix) {
        (self.headers, self.client.source)
    }
}

/// Begins a session, in place of the one that the browser has.
pub(super) async fn login(
    guard: &AdminGuard,
    sessions: &Sessions,
    way: BrowserWay<'_>,
    body: impl ApiBody,
) -> Result<Reply, ApiError> {
    let peer = way.client.peer;
    let LoginBody { token } = read_json(body).await?;
    if guard.tokens.is_empty() {
        return Ok(json(StatusCode::OK, &view(guard, Some(&Caller::Anyone))));
    }
    let Some(token) = guard.tokens.of_secret(token.trim()) else {
        return Err(ApiError::unauthorized("the token is wrong"));
    };
    if let Some(former) = sessions.find(way.source(), &guard.cookie) {
        sessions.end(&former);
    }
    let session = sessions.begin(token, way.client.source)?;
    info!(token = session.token.holder.name, %peer, "operator logs in");
    let cookie = session.cookie(&guard.cookie, way.secure);
    let view = view(guard, Some(&Caller::Browser(session)));
    with_cookie(json(StatusCode::OK, &view), &cookie)
}

/// Ends the session of a request, if it has one.
pub(super) async fn logout(
    guard: &AdminGuard,
    sessions: &Sessions,
    way: BrowserWay<'_>,
    body: impl ApiBody,
) -> Result<Reply, ApiError> {
    read_json::<EmptyBody>(body).await?;
    if let Some(session) = sessions.find(way.source(), &guard.cookie) {
        sessions.end(&session);
    }
    let reply = json(StatusCode::OK, &view(guard, None));
    with_cookie(reply, &no_cookie(&guard.cookie, way.secure))
}

fn with_cookie(mut reply: Reply, cookie: &str) -> Result<Reply, ApiError> {
    let value = HeaderValue::try_from(cookie)
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    reply.headers_mut().insert(SET_COOKIE, value);
    Ok(reply)
}

fn view(guard: &AdminGuard, caller: Option<&Caller>) -> LoginView {
    let required = !guard.tokens.is_empty();
    let anyone = || (!required).then_some(("none", "operate"));
    let holder = caller.and_then(Caller::holder);
    let known = holder.map(|one| (one.name.as_str(), one.role()));
    let (name, role) = known.or_else(anyone).unzip();
    let session = match caller {
        Some(Caller::Browser(session)) => Some(session),
        _ => None,
    };
    LoginView {
        required,
        name: name.map(str::to_owned),
        role: role.map(str::to_owned),
        backend: holder.and_then(|one| Some(one.backend()?.to_string())),
        csrf: session.map(|session| session.csrf.clone()),
        left_seconds: session
            .map(|session: &std::sync::Arc<BrowserSession>| session.left().as_secs()),
    }
}
