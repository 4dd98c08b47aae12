//! Admin API: checks a request against the rules, finds its route and answers it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use http::request::Parts;
use http::{Method, Request, StatusCode};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::body::ApiBody;
use super::caller::Caller;
use super::endpoint_connections::EndpointConnection;
use super::events::{EventKinds, Feed, Viewer};
use super::guard::{AdminGuard, EndpointGuard};
use super::login::BrowserWay;
use super::metrics::PageFormat;
use super::operate::{self, Operations, Parameters};
use super::plan::PlanDetail;
use super::refusals::RefusalTotals;
use super::reply::{self, ApiError, Reply, json, reply, streamed};
use super::route::ApiRoute;
use super::sessions::Sessions;
use super::view::{ListenersView, PoolsView};
use super::{configuration, connections, directory, jobs, login, metrics, plan};
use super::{rules, snapshot, upgrade};
use crate::server::Server;
use crate::server::jobs::JobAction;

/// State that all endpoints share, over their reloads.
pub(super) struct AdminState {
    /// Weak, as the server owns the endpoints.
    pub server: Weak<Server>,
    pub refused: Arc<RefusalTotals>,
    pub feed: Arc<Feed>,
    pub sessions: Sessions,
}

pub(super) struct Api {
    pub state: Arc<AdminState>,
    operations: Operations,
    plans: Semaphore,
}

/// Origin of a request: the connection and the endpoint that it came to.
pub(super) struct RequestOrigin {
    /// Rules for this request.
    pub guard: Arc<EndpointGuard>,
    /// Rules in force, for what lasts longer.
    pub current: Arc<ArcSwap<EndpointGuard>>,
    /// Cancelled when the endpoint stops.
    pub stop: CancellationToken,
    /// Whether it came over TLS.
    pub secure: bool,
    pub client: Arc<EndpointConnection>,
}

/// Request that passed the rules.
struct AdmittedRequest<'a> {
    origin: &'a RequestOrigin,
    head: &'a Parts,
    /// `None` where the route needs no right.
    caller: Option<Caller>,
    server: Arc<Server>,
}

impl Api {
    pub(super) fn new(state: Arc<AdminState>) -> Api {
        Api {
            state,
            operations: Operations::new(),
            plans: Semaphore::new(plan::MAX_PLANS),
        }
    }

    pub(super) async fn answer(
        &self,
        origin: &RequestOrigin,
        request: Request<impl ApiBody>,
    ) -> Reply {
        let (head, body) = request.into_parts();
        let answered = self.try_answer(origin, &head, body).await;
        answered.unwrap_or_else(|error| {
            let refused = origin.guard.refused(&self.state.refused);
            refused.note_guess(origin.client.peer, &head, &error);
            error.into_reply()
        })
    }

    async fn try_answer(
        &self,
        origin: &RequestOrigin,
        head: &Parts,
        body: impl ApiBody,
    ) -> Result<Reply, ApiError> {
        let (route, caller) = self.admit(origin, head)?;
        let gone = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the server is gone");
        let request = AdmittedRequest {
            origin,
            head,
            caller,
            server: self.state.server.upgrade().ok_or_else(gone)?,
        };
        self.authorize(&request, &route)?;
        prepare(&request.server, &route).await?;
        match (&route, &*origin.guard) {
            (ApiRoute::Login | ApiRoute::Logout, EndpointGuard::Admin(guard)) => {
                self.session(guard, &request, &route, body).await
            }
            _ if route.is_change() => self.change(&request, route, body).await,
            _ => self.read(&request, route).await,
        }
    }

    /// Applies the rules of the endpoint and of the route, in the order that tells a stranger
    /// least.
    fn admit(
        &self,
        origin: &RequestOrigin,
        head: &Parts,
    ) -> Result<(ApiRoute, Option<Caller>), ApiError> {
        let (uri, headers) = (&head.uri, &head.headers);
        let EndpointGuard::Admin(admin) = &*origin.guard else {
            let unknown = || {
                ApiError::not_found(
                    "no such page; there are GET /healthz, GET /readyz, GET /metrics",
                )
            };
            let route = ApiRoute::parse_probe(uri.path()).ok_or_else(unknown)?;
            return Ok((allow_method(route, &head.method)?, None));
        };
        rules::check_host(&admin.hosts, uri, headers)?;
        let route = ApiRoute::parse(uri.path());
        if !route.as_ref().is_some_and(ApiRoute::is_page) {
            rules::check_origin(&admin.hosts, origin.secure, headers)?;
        }
        let caller = if route.as_ref().is_some_and(ApiRoute::is_open) {
            None
        } else {
            let from = (headers, origin.client.source);
            Some(Caller::of(admin, &self.state.sessions, from)?)
        };
        let unknown = || {
            let routes = directory::listed();
            ApiError::not_found(format!("no such route; there are {routes}"))
        };
        let route = allow_method(route.ok_or_else(unknown)?, &head.method)?;
        if !matches!(head.method, Method::GET | Method::HEAD) {
            rules::check_json(headers)?;
            if let Some(caller) = &caller {
                caller.check_csrf(headers)?;
            }
        }
        Ok((route, caller))
    }

    /// Checks what the caller may do, and logs what it does.
    fn authorize(&self, request: &AdmittedRequest<'_>, route: &ApiRoute) -> Result<(), ApiError> {
        let AdmittedRequest {
            origin,
            head,
            caller,
            server,
        } = request;
        let Some(caller) = caller else {
            return Ok(());
        };
        let holder = caller.holder();
        let token = holder.map_or("none", |holder| &holder.name);
        let (peer, method, path) = (origin.client.peer, &head.method, head.uri.path());
        let may = holder.map_or(Ok(()), |holder| {
            holder.may(route, |id| jobs::backend_of(server, id))
        });
        if let Err(failure) = may {
            warn!(token, %peer, %method, path, reason = "forbidden", "admin request refused");
            let refused = origin.guard.refused(&self.state.refused);
            refused.forbidden.fetch_add(1, Ordering::Relaxed);
            return Err(failure);
        }
        if route.acts() {
            info!(token, %peer, %method, path, "operator acts");
        }
        Ok(())
    }

    async fn session(
        &self,
        guard: &AdminGuard,
        request: &AdmittedRequest<'_>,
        route: &ApiRoute,
        body: impl ApiBody,
    ) -> Result<Reply, ApiError> {
        let (origin, sessions) = (request.origin, &self.state.sessions);
        let headers = &request.head.headers;
        let way = BrowserWay {
            headers,
            client: &origin.client,
            secure: origin.secure || rules::is_from_tls(headers),
        };
        if *route == ApiRoute::Logout {
            return login::logout(guard, sessions, way, body).await;
        }
        if request.head.method != Method::POST {
            return Ok(login::show(guard, sessions, way.source()));
        }
        login::login(guard, sessions, way, body).await
    }

    async fn read(
        &self,
        request: &AdmittedRequest<'_>,
        route: ApiRoute,
    ) -> Result<Reply, ApiError> {
        let (server, ok) = (&request.server, StatusCode::OK);
        match route {
            ApiRoute::Healthz => Ok(reply(ok, "text/plain", "ok\n")),
            ApiRoute::Readyz => Ok(readiness(server)),
            ApiRoute::Metrics => {
                let format = PageFormat::wanted(&request.head.headers);
                let shows_backends = request.origin.guard.shows_backends();
                let page = metrics::page(server, &self.state.refused, shows_backends, format);
                Ok(streamed(format.content_type(), page))
            }
            ApiRoute::Asset(asset) | ApiRoute::OpenApi(asset) => {
                asset.answer(&request.head.headers)
            }
            ApiRoute::Index => Ok(json(ok, &directory::index())),
            ApiRoute::Events => self.events(request),
            ApiRoute::FilePlan => plan::plan_of_file(server, &self.plans).await,
            ApiRoute::Configuration => configuration::show(server, &request.head.headers),
            ApiRoute::Status => Ok(json(ok, &snapshot::status(server))),
            ApiRoute::Listeners => {
                let listeners = snapshot::listeners(server);
                Ok(json(ok, &ListenersView { listeners }))
            }
            ApiRoute::Pools => {
                let pools = snapshot::pools(server);
                Ok(json(ok, &PoolsView { pools }))
            }
            ApiRoute::Pool(name) => {
                let pool = operate::find_pool(server, &name)?;
                Ok(json(ok, &snapshot::pool(server, &pool)))
            }
            ApiRoute::Backend(path) => {
                let (pool, backend) = operate::find_backend(server, &path)?;
                Ok(json(ok, &snapshot::backend(&pool, &backend)))
            }
            ApiRoute::Connections => connections::list(server, request.head.uri.query()).await,
            ApiRoute::Jobs => Ok(jobs::list(server)),
            ApiRoute::Job(id) => jobs::show(server, &id),
            _ => Err(ApiError::not_found("nothing can be read here")),
        }
    }

    async fn change(
        &self,
        request: &AdmittedRequest<'_>,
        route: ApiRoute,
        body: impl ApiBody,
    ) -> Result<Reply, ApiError> {
        let (server, query) = (&request.server, request.head.uri.query());
        let (operations, parameters) = (&self.operations, Parameters { query, body });
        match route {
            ApiRoute::AcceptDiscovery(name) => {
                operate::accept_discovery(server, &name, parameters.body).await
            }
            ApiRoute::Operate(path, state) => {
                operations
                    .operate_backend(server, &path, state, parameters)
                    .await
            }
            ApiRoute::OperateListener(name, action) => {
                operations
                    .operate_listener(server, &name, action, parameters)
                    .await
            }
            ApiRoute::Weight(path) => operate::set_weight(server, &path, parameters).await,
            ApiRoute::Connection(id) => connections::close(server, &id, parameters.body).await,
            ApiRoute::Close => {
                jobs::start_filtered(server, parameters.body, JobAction::Close).await
            }
            ApiRoute::Move => jobs::start_filtered(server, parameters.body, JobAction::Move).await,
            ApiRoute::AbortJob(id) => jobs::abort(server, &id, parameters.body).await,
            ApiRoute::Reload => configuration::reload(server, parameters.body).await,
            ApiRoute::Upgrade => upgrade::upgrade(server, parameters.body).await,
            ApiRoute::Plan => {
                let holder = request.caller.as_ref().and_then(Caller::holder);
                let detail = holder.map_or(PlanDetail::Full, PlanDetail::of);
                plan::plan(server, &self.plans, detail, parameters.body).await
            }
            _ => Err(ApiError::not_found("nothing can be changed here")),
        }
    }

    /// Begins a stream of events. It gives its place among the connections back, and ends with the
    /// right by which it was asked for.
    fn events(&self, request: &AdmittedRequest<'_>) -> Result<Reply, ApiError> {
        let AdmittedRequest {
            origin,
            head,
            caller,
            server,
        } = request;
        let kinds = EventKinds::parse(head.uri.query()).map_err(ApiError::bad_request)?;
        let last_id = head.headers.get("last-event-id");
        let last_id = last_id.and_then(|id| id.to_str().ok());
        let hello = snapshot::hello(server);
        let viewer = Viewer::enter(&self.state.feed, kinds, last_id, hello);
        let viewer = viewer.ok_or_else(|| {
            ApiError::later("as many view events as may; ask /api/v1/status, or again later")
        })?;
        self.state.feed.produce(server);
        origin.client.become_viewer();
        let (current, state) = (Arc::clone(&origin.current), Arc::clone(&self.state));
        let caller = caller.clone();
        let may_view = move || match (&**current.load(), &caller) {
            (EndpointGuard::Admin(guard), Some(caller)) => caller.is_still(guard, &state.sessions),
            _ => false,
        };
        Ok(reply::events(viewer.stream(origin.stop.clone(), may_view)))
    }
}

/// Does what goes before some routes: an upgrade holds changes back, bytes are counted to the
/// moment.
async fn prepare(server: &Server, route: &ApiRoute) -> Result<(), ApiError> {
    if route.acts() && *route != ApiRoute::Upgrade {
        upgrade::refuse_change(server)?;
    }
    if route.shows_bytes() {
        server.relay().tally().await;
    }
    Ok(())
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
