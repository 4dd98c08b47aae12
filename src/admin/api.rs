//! Admin API: checks a request against the rules, finds its route and answers it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use http::{HeaderMap, Method, Request, StatusCode, Uri};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::body::{ApiBody, read_json};
use super::guard::EndpointGuard;
use super::metrics::PageFormat;
use super::operate::{self, Operations, Parameters};
use super::refusals::RefusalTotals;
use super::reply::{ApiError, Reply, json, reply, streamed};
use super::route::{ApiRoute, LIST};
use super::tokens::TokenHolder;
use super::view::{ListenerView, PoolView, ReloadView};
use super::{connections, jobs, metrics, plan, rules, snapshot, upgrade};
use crate::net::Peer;
use crate::server::jobs::JobAction;
use crate::server::{Condition, Server};

pub(super) struct Api {
    /// Weak, as the server owns this endpoint.
    server: Weak<Server>,
    pub refused: Arc<RefusalTotals>,
    operations: Operations,
    plans: Semaphore,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadBody {
    /// Conditions that the reload must meet, or it is not done.
    #[serde(default, rename = "if")]
    conditions: Vec<String>,
}

impl Api {
    pub(super) fn new(server: Weak<Server>, refused: Arc<RefusalTotals>) -> Api {
        Api {
            server,
            refused,
            operations: Operations::new(),
            plans: Semaphore::new(plan::MAX_PLANS),
        }
    }

    /// Answers a request of `peer`; `secure`: it came over TLS.
    pub(super) async fn answer(
        &self,
        guard: &EndpointGuard,
        secure: bool,
        peer: Peer,
        request: Request<impl ApiBody>,
    ) -> Reply {
        let (head, body) = request.into_parts();
        let admitted = admit(guard, secure, &head.method, &head.uri, &head.headers);
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
                guard
                    .refused(&self.refused)
                    .forbidden
                    .fetch_add(1, Ordering::Relaxed);
                return failure.into_reply();
            }
            if route.acts() {
                info!(token, %peer, method = %head.method, path, "operator acts");
            }
        }
        let query = head.uri.query();
        let parameters = Parameters {
            query,
            headers: &head.headers,
            body,
        };
        let done = self.perform(guard, &server, route, parameters).await;
        done.unwrap_or_else(ApiError::into_reply)
    }

    async fn perform(
        &self,
        guard: &EndpointGuard,
        server: &Arc<Server>,
        route: ApiRoute,
        parameters: Parameters<'_, impl ApiBody>,
    ) -> Result<Reply, ApiError> {
        let ok = StatusCode::OK;
        prepare(server, &route).await?;
        match route {
            ApiRoute::Healthz => Ok(reply(ok, "text/plain", "ok\n")),
            ApiRoute::Readyz => Ok(readiness(server)),
            ApiRoute::Metrics => {
                let format = PageFormat::wanted(parameters.headers);
                let page = metrics::page(server, &self.refused, guard.shows_backends(), format);
                Ok(streamed(format.content_type(), page))
            }
            ApiRoute::Status => Ok(json(ok, &snapshot::status(server))),
            ApiRoute::Listeners => {
                let listeners: Vec<ListenerView> = snapshot::listeners(server);
                Ok(json(ok, &serde_json::json!({ "listeners": listeners })))
            }
            ApiRoute::Pools => {
                let pools: Vec<PoolView> = snapshot::pools(server);
                Ok(json(ok, &serde_json::json!({ "pools": pools })))
            }
            ApiRoute::Pool(name) => {
                let pool = operate::find_pool(server, &name)?;
                Ok(json(ok, &snapshot::pool(server, &pool)))
            }
            ApiRoute::AcceptDiscovery(name) => {
                operate::accept_discovery(server, &name, parameters.body).await
            }
            ApiRoute::Backend(path) => {
                let (pool, backend) = operate::find_backend(server, &path)?;
                Ok(json(ok, &snapshot::backend(&pool, &backend)))
            }
            ApiRoute::Operate(path, state) => {
                let operations = &self.operations;
                operations
                    .operate_backend(server, &path, state, parameters)
                    .await
            }
            ApiRoute::OperateListener(name, action) => {
                let operations = &self.operations;
                operations
                    .operate_listener(server, &name, action, parameters)
                    .await
            }
            ApiRoute::Weight(path) => operate::set_weight(server, &path, parameters.body).await,
            ApiRoute::Connections => connections::list(server, parameters.query).await,
            ApiRoute::Connection(id) => connections::close(server, &id, parameters.body).await,
            ApiRoute::Close => {
                jobs::start_filtered(server, parameters.body, JobAction::Close).await
            }
            ApiRoute::Move => jobs::start_filtered(server, parameters.body, JobAction::Move).await,
            ApiRoute::Jobs => Ok(jobs::list(server)),
            ApiRoute::Job(id) => jobs::show(server, &id),
            ApiRoute::AbortJob(id) => jobs::abort(server, &id, parameters.body).await,
            ApiRoute::Reload => reload(server, read_json(parameters.body).await?).await,
            ApiRoute::Upgrade => upgrade::upgrade(server, parameters.body).await,
            ApiRoute::Plan => plan::plan(server, &self.plans, parameters.body).await,
        }
    }
}

/// What goes before some routes: an upgrade holds changes back, bytes are counted to the moment.
async fn prepare(server: &Server, route: &ApiRoute) -> Result<(), ApiError> {
    if route.acts() && *route != ApiRoute::Upgrade {
        upgrade::refuse_change(server)?;
    }
    if route.shows_bytes() {
        server.relay().tally().await;
    }
    Ok(())
}

/// Applies the rules of the endpoint and of the route, in the order that tells a stranger least.
/// There is no token holder where a route needs no token.
fn admit(
    guard: &EndpointGuard,
    secure: bool,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(ApiRoute, Option<Arc<TokenHolder>>), ApiError> {
    let EndpointGuard::Admin(admin) = guard else {
        let unknown = || {
            ApiError::not_found("no such page; there are GET /healthz, GET /readyz, GET /metrics")
        };
        let route = ApiRoute::parse_probe(uri.path()).ok_or_else(unknown)?;
        return Ok((allow_method(route, method)?, None));
    };
    rules::check_host(&admin.hosts, uri, headers)?;
    rules::check_origin(secure, headers)?;
    let route = ApiRoute::parse(uri.path());
    let holder = if route.as_ref().is_some_and(ApiRoute::is_open) {
        None
    } else {
        Some(admin.tokens.holder(headers)?)
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
    let why = if !server.accepts() {
        "stopping\n"
    } else if !server.ready() {
        "about to stop: new connections are still accepted\n"
    } else if server.limits().is_short_of_memory() {
        "short of memory: new connections are refused\n"
    } else if server.waits_for_backends() {
        "a pool with discovery has no backend yet\n"
    } else {
        return reply(StatusCode::OK, "text/plain", "ready\n");
    };
    reply(StatusCode::SERVICE_UNAVAILABLE, "text/plain", why)
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
