//! Answers one request of the admin side: the rules first, then the route, then the change or the look.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper::body::Body;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{info, warn};

use super::body::{EmptyBody, read_json};
use super::connections;
use super::guard::EndpointGuard;
use super::jobs::{self, DrainBody, DrainRequest};
use super::refused::RefusalTotals;
use super::reply::{ApiError, Reply, json, reply};
use super::route::{ApiRoute, BackendPath, LIST};
use super::tokens::TokenHolder;
use super::view::{ListenerView, PoolView, ReloadView};
use super::{look, metrics, plan, rules};
use crate::base::units::parse_duration;
use crate::net::Peer;
use crate::pool::{Backend, OperatorState, Pool};
use crate::server::jobs::{JobAction, JobTarget as Subject};
use crate::server::{Condition, Server};

/// Drains with `wait` at once, each of which holds a connection; more are told to ask again.
pub(super) const MAX_WAITERS: usize = 32;
/// The longest `wait`; a script that wants longer asks again.
pub const MAX_WAIT: Duration = Duration::from_secs(3600);
/// The highest weight, as in the configuration.
pub const MAX_WEIGHT: u16 = 256;

pub(super) struct Api {
    /// Weak: the server owns this endpoint.
    server: Weak<Server>,
    pub refused: Arc<RefusalTotals>,
    waiters: Semaphore,
    plans: Semaphore,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightBody {
    /// `null`: the configured one. It must be there: an empty body changes nothing.
    #[serde(deserialize_with = "Option::deserialize")]
    weight: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadBody {
    /// What must hold of the reload for it to be done.
    #[serde(default, rename = "if")]
    conditions: Vec<String>,
}

impl Api {
    pub fn new(server: Weak<Server>, refused: Arc<RefusalTotals>) -> Api {
        Api {
            server,
            refused,
            waiters: Semaphore::new(MAX_WAITERS),
            plans: Semaphore::new(plan::MAX_PLANS),
        }
    }

    /// `peer` has sent it.
    pub async fn answer<B>(
        &self,
        gate: &EndpointGuard,
        secure: bool,
        peer: Peer,
        request: Request<B>,
    ) -> Reply
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (head, body) = request.into_parts();
        let admitted = admit(gate, secure, &head.method, &head.uri, &head.headers);
        let (route, holder) = match admitted {
            Ok(admitted) => admitted,
            Err(failure) => return failure.into_reply(),
        };
        let Some(server) = self.server.upgrade() else {
            return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the server is gone")
                .into_reply();
        };
        if let Some(holder) = holder.filter(|_| route.is_change()) {
            let may = holder.may(&route, |id| jobs::backend_of(&server, id));
            let (token, path) = (&holder.name, head.uri.path());
            if let Err(failure) = may {
                warn!(token, %peer, method = %head.method, path, reason = "forbidden", "admin request refused");
                gate.refused(&self.refused).forbidden();
                return failure.into_reply();
            }
            if route.acts() {
                info!(token, %peer, method = %head.method, path, "operator acts");
            }
        }
        let done = self.perform(&server, route, &head.uri, body).await;
        done.unwrap_or_else(ApiError::into_reply)
    }

    async fn perform<B>(
        &self,
        server: &Arc<Server>,
        route: ApiRoute,
        uri: &Uri,
        body: B,
    ) -> Result<Reply, ApiError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let ok = StatusCode::OK;
        if route.shows_bytes() {
            server.relay().tally().await;
        }
        match route {
            ApiRoute::Healthz => Ok(reply(ok, "text/plain", "ok\n")),
            ApiRoute::Readyz => Ok(readiness(server)),
            ApiRoute::Metrics => metrics::text(server, &self.refused)
                .map(|text| reply(ok, metrics::CONTENT_TYPE, text)),
            ApiRoute::Status => Ok(json(ok, &look::status(server))),
            ApiRoute::Listeners => {
                let listeners: Vec<ListenerView> = look::listeners(server);
                Ok(json(ok, &serde_json::json!({ "listeners": listeners })))
            }
            ApiRoute::Pools => {
                let pools: Vec<PoolView> = look::pools(server);
                Ok(json(ok, &serde_json::json!({ "pools": pools })))
            }
            ApiRoute::Pool(name) => Ok(json(ok, &look::pool(server, &*find_pool(server, &name)?))),
            ApiRoute::Backend(target) => {
                let (pool, backend) = find(server, &target)?;
                Ok(json(ok, &look::backend(&pool, &backend)))
            }
            ApiRoute::Operate(target, state) => {
                self.operate(server, &target, state, uri, body).await
            }
            ApiRoute::OperateListener(name, word) => {
                self.operate_listener(server, &name, word, uri, body).await
            }
            ApiRoute::Weight(target) => set_weight(server, &target, body).await,
            ApiRoute::Connections => connections::list(server, uri.query()).await,
            ApiRoute::Connection(id) => connections::close(server, &id, body).await,
            ApiRoute::End => jobs::end(server, body, JobAction::Close).await,
            ApiRoute::Move => jobs::end(server, body, JobAction::Move).await,
            ApiRoute::Jobs => Ok(jobs::list(server)),
            ApiRoute::Job(id) => jobs::show(server, &id),
            ApiRoute::AbortJob(id) => jobs::abort(server, &id, body).await,
            ApiRoute::Reload => reload(server, read_json(body).await?).await,
            ApiRoute::Plan => plan::plan(server, &self.plans, body).await,
        }
    }

    async fn operate<B>(
        &self,
        server: &Server,
        target: &BackendPath,
        state: OperatorState,
        uri: &Uri,
        body: B,
    ) -> Result<Reply, ApiError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let wait = parse_wait(uri.query(), state != OperatorState::Ready)?;
        let (pool, backend) = find(server, target)?;
        let wish = match state {
            OperatorState::Drain => {
                let body: DrainBody = read_json(body).await?;
                body.wish(pool.settings().drain.as_ref())?
            }
            OperatorState::Ready | OperatorState::Maint => {
                read_json::<EmptyBody, _>(body).await?;
                DrainRequest::Usual(None)
            }
        };
        info!(pool = %pool.name(), backend = %backend.name(), to = %state, "operator sets the state");
        server.set_operator(&backend, state);
        let subject = Subject::Backend(Arc::clone(&backend));
        let job = jobs::apply_drain(server, subject.clone(), wish).await?;
        if let Some(wait) = wait {
            self.wait_until_empty(&subject, wait).await?;
        }
        Ok(json(
            StatusCode::OK,
            &look::operated(&pool, &backend, job.as_deref()),
        ))
    }

    /// Returns at the latest after `wait`; the answer says how many are left.
    pub(super) async fn wait_until_empty(
        &self,
        subject: &Subject,
        wait: Duration,
    ) -> Result<(), ApiError> {
        let busy = |_| {
            let message = format!(
                "the state is set, but {MAX_WAITERS} requests are waiting already; ask without wait"
            );
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
        };
        let _slot = self.waiters.try_acquire().map_err(busy)?;
        let _ = timeout(wait, subject.emptied()).await;
        Ok(())
    }
}

/// The rules of the endpoint and of the route, in the order in which they give least away. Who asks is not known where
/// everybody may ask.
fn admit(
    gate: &EndpointGuard,
    secure: bool,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(ApiRoute, Option<Arc<TokenHolder>>), ApiError> {
    let EndpointGuard::Admin(admin) = gate else {
        let unknown = || {
            ApiError::not_found("no such page; there are GET /healthz, GET /readyz, GET /metrics")
        };
        let route = ApiRoute::parse_probe(uri.path()).ok_or_else(unknown)?;
        return Ok((allow_method(route, method)?, None));
    };
    rules::check_host(&admin.hosts, uri, headers)?;
    rules::check_origin(secure, headers)?;
    let route = ApiRoute::parse(uri.path());
    let holder = match route.as_ref().is_some_and(ApiRoute::is_open) {
        true => None,
        false => Some(admin.tokens.holder(headers)?),
    };
    let unknown = || ApiError::not_found(format!("no such route; there are {}", LIST.join(", ")));
    let route = allow_method(route.ok_or_else(unknown)?, method)?;
    if route.is_change() {
        rules::check_json(headers)?;
    }
    Ok((route, holder))
}

fn allow_method(route: ApiRoute, method: &Method) -> Result<ApiRoute, ApiError> {
    if route.allows(method) {
        Ok(route)
    } else {
        Err(ApiError::method(route.methods()))
    }
}

fn readiness(server: &Server) -> Reply {
    let why = if !server.ready() {
        "stopping\n"
    } else if server.limits().is_short_of_memory() {
        "short of memory: new connections are refused\n"
    } else {
        return reply(StatusCode::OK, "text/plain", "ready\n");
    };
    reply(StatusCode::SERVICE_UNAVAILABLE, "text/plain", why)
}

async fn set_weight<B>(server: &Server, target: &BackendPath, body: B) -> Result<Reply, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (pool, backend) = find(server, target)?;
    let WeightBody { weight } = read_json(body).await?;
    if weight.is_some_and(|weight| weight > MAX_WEIGHT) {
        return Err(ApiError::bad_request(format!(
            "weight must be 0..={MAX_WEIGHT}, or null for the configured one"
        )));
    }
    let shown = weight.map_or("configured".to_owned(), |weight| weight.to_string());
    info!(pool = %pool.name(), backend = %backend.name(), weight = shown, "operator sets the weight");
    backend.set_weight(weight);
    let job = server.jobs().of(&Subject::Backend(Arc::clone(&backend)));
    Ok(json(
        StatusCode::OK,
        &look::operated(&pool, &backend, job.as_deref()),
    ))
}

async fn reload(server: &Arc<Server>, body: ReloadBody) -> Result<Reply, ApiError> {
    let conditions = body.conditions.iter().map(|text| text.parse());
    let conditions: Vec<Condition> = conditions
        .collect::<Result<_, String>>()
        .map_err(ApiError::bad_request)?;
    match server.reload_if(conditions).await {
        Ok(changes) => {
            let summary = changes.iter().map(ToString::to_string).collect();
            let changes = changes
                .iter()
                .filter_map(|change| serde_json::to_value(change).ok())
                .collect();
            Ok(json(StatusCode::OK, &ReloadView { summary, changes }))
        }
        Err(error) => {
            let message = "the reload was refused, the former configuration serves on";
            Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message)
                .with_details(error.messages)
                .with_drawn(error.drawn))
        }
    }
}

fn find_pool(server: &Server, name: &str) -> Result<Arc<Pool>, ApiError> {
    server.pool(name).ok_or_else(|| {
        let pools = server.pools();
        let names: Vec<&str> = pools.iter().map(|pool| &**pool.name()).collect();
        ApiError::not_found(format!("no pool {name:?}; there are: {}", names.join(", ")))
    })
}

fn find(server: &Server, target: &BackendPath) -> Result<(Arc<Pool>, Arc<Backend>), ApiError> {
    let pool = find_pool(server, &target.pool)?;
    let backend = pool.backend(&target.backend).ok_or_else(|| {
        let backends: Vec<_> = pool.backends().into_iter().chain(pool.retired()).collect();
        let names: Vec<&str> = backends.iter().map(|backend| &**backend.name()).collect();
        let message = format!(
            "no backend {:?} in pool {:?}; there are: {}",
            target.backend,
            target.pool,
            names.join(", ")
        );
        ApiError::not_found(message)
    })?;
    Ok((pool, backend))
}

/// `wait=60s`, of a drain or maint only; anything else in the query is an error rather than ignored.
pub(super) fn parse_wait(
    query: Option<&str>,
    allowed_here: bool,
) -> Result<Option<Duration>, ApiError> {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return Ok(None);
    };
    let allowed = || {
        ApiError::bad_request(format!(
            "query {query:?} is not understood; allowed: wait=DURATION, at most 1h, with drain or maint"
        ))
    };
    let value = query
        .strip_prefix("wait=")
        .filter(|_| allowed_here)
        .ok_or_else(allowed)?;
    let text = percent_decode_str(value)
        .decode_utf8()
        .map_err(|_| allowed())?;
    let wait = parse_duration(&text).ok().filter(|&wait| wait <= MAX_WAIT);
    wait.map(Some).ok_or_else(allowed)
}
