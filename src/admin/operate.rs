//! Operations on backends and listeners: `ready`, `drain`, `maint` and `weight`.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::info;

use super::body::{ApiBody, EmptyBody, read_json};
use super::drain::DrainBody;
use super::reply::{ApiError, Reply, json};
use super::route::{BackendPath, ListenerAction};
use super::view::AcceptedView;
use super::{cluster, jobs, snapshot};
use crate::base::units::parse_duration;
use crate::cluster::{OperatorValue, SharedDrain};
use crate::pool::{Backend, OperatorState, Pool};
use crate::server::jobs::{Job, JobTarget};
use crate::server::{DrainRequest, ListenerStatus, Server};

/// Limit of drains that wait at once: each holds a connection of the endpoint.
pub(super) const MAX_WAITERS: usize = 32;
/// Longest `wait`; a script that wants more asks again.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(3600);
/// Longest wait for the access log at the end of a drain: a disk may pause, and the drain is over.
const LOG_WAIT: Duration = Duration::from_secs(5);
/// Highest weight, as in the configuration.
pub(crate) const MAX_WEIGHT: u16 = 256;

/// Operations of one endpoint.
pub(super) struct Operations {
    /// Permits of those that wait until their target is empty.
    waiters: Semaphore,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct WeightBody {
    /// `null`: the configured weight. The member is required: an empty body changes nothing.
    #[serde(deserialize_with = "Option::deserialize")]
    #[cfg_attr(test, schemars(required, range(max = 256), extend("type" = ["integer", "null"])))]
    weight: Option<u16>,
}

/// Query and body of an operation.
pub(super) struct Parameters<'a, B> {
    pub query: Option<&'a str>,
    pub body: B,
}

impl Operations {
    pub(super) fn new() -> Operations {
        let waiters = Semaphore::new(MAX_WAITERS);
        Operations { waiters }
    }

    pub(super) async fn operate_backend(
        &self,
        server: &Server,
        path: &BackendPath,
        state: OperatorState,
        parameters: Parameters<'_, impl ApiBody>,
    ) -> Result<Reply, ApiError> {
        let query = OperateQuery::parse(parameters.query, state != OperatorState::Ready, true)?;
        let (pool, backend) = find_backend(server, path)?;
        let request = if state == OperatorState::Drain {
            let body: DrainBody = read_json(parameters.body).await?;
            body.decode(pool.settings().drain.as_ref())?
        } else {
            read_json::<EmptyBody>(parameters.body).await?;
            DrainRequest::Default(None)
        };
        let value = match state {
            OperatorState::Ready => OperatorValue::Ready,
            OperatorState::Maint => OperatorValue::Maint,
            OperatorState::Drain => OperatorValue::Drain(SharedDrain::from(&request)),
        };
        let shared = cluster::share(server, &backend, value, query.local).await?;
        info!(pool = %pool.name(), backend = %backend.name(), to = %state, "operator sets the state");
        server.set_operator(&backend, state);
        let target = JobTarget::Backend(Arc::clone(&backend));
        let job = self.apply(server, target, request, query.wait).await?;
        let spread = cluster::spread(server, shared, query.wait).await;
        let view = snapshot::operated(&pool, &backend, job.as_deref(), spread);
        Ok(json(StatusCode::OK, &view))
    }

    pub(super) async fn operate_listener(
        &self,
        server: &Server,
        name: &str,
        action: ListenerAction,
        parameters: Parameters<'_, impl ApiBody>,
    ) -> Result<Reply, ApiError> {
        let is_drain = action == ListenerAction::Drain;
        let wait = OperateQuery::parse(parameters.query, is_drain, false)?.wait;
        let request = if is_drain {
            let body: DrainBody = read_json(parameters.body).await?;
            body.decode(None)?
        } else {
            read_json::<EmptyBody>(parameters.body).await?;
            DrainRequest::Default(None)
        };
        let status = drain_listener(server, name, is_drain)?;
        let target = JobTarget::Listener(Arc::clone(&status.counters));
        let job = self.apply(server, target, request, wait).await?;
        let view = snapshot::operated_listener(&status, job.as_deref());
        Ok(json(StatusCode::OK, &view))
    }

    /// Applies a drain, and waits at most `wait` until the target is empty.
    async fn apply(
        &self,
        server: &Server,
        target: JobTarget,
        request: DrainRequest,
        wait: Option<Duration>,
    ) -> Result<Option<Arc<Job>>, ApiError> {
        let job = jobs::apply_drain(server, target.clone(), request).await?;
        if let Some(wait) = wait {
            let busy = |_| {
                let message = format!(
                    "the state is set, but {MAX_WAITERS} requests are waiting already; ask without wait"
                );
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
            };
            let _permit = self.waiters.try_acquire().map_err(busy)?;
            // Looked at first: sessions that have moved leave an empty target behind.
            tokio::select! {
                biased;
                () = server.handed_over() => return Err(moved()),
                _ = timeout(wait, target.emptied()) => {}
            }
            write_log(server).await;
        }
        Ok(job)
    }
}

/// Answer of a wait in a process that has handed over: its count says nothing any more.
fn moved() -> ApiError {
    let message = "the state is set, but another process has taken over, with the live sessions: \
                   ask again, and it answers";
    ApiError::later(message)
}

/// Has the lines of the connections that have ended written to the access log.
async fn write_log(server: &Server) {
    let journal = Arc::clone(server.journal());
    let written = tokio::task::spawn_blocking(move || journal.flush(LOG_WAIT));
    if !written.await.unwrap_or(false) {
        tracing::warn!("a wait for a drain is over, and the access log is not written to its end");
    }
}

fn drain_listener(server: &Server, name: &str, drain: bool) -> Result<ListenerStatus, ApiError> {
    if let Some(status) = server.drain_listener(name, drain) {
        info!(listener = name, drain, "operator sets the state");
        return Ok(status);
    }
    let all = server.listeners();
    let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    if names.contains(&name) {
        let message = "the server is stopping";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    let names = names.join(", ");
    let message = format!("no listener {name:?}; there are: {names}");
    Err(ApiError::not_found(message))
}

pub(super) async fn set_weight(
    server: &Server,
    path: &BackendPath,
    parameters: Parameters<'_, impl ApiBody>,
) -> Result<Reply, ApiError> {
    let query = OperateQuery::parse(parameters.query, false, true)?;
    let (pool, backend) = find_backend(server, path)?;
    let WeightBody { weight } = read_json(parameters.body).await?;
    if weight.is_some_and(|weight| weight > MAX_WEIGHT) {
        return Err(ApiError::bad_request(format!(
            "weight must be 0..={MAX_WEIGHT}, or null for the configured one"
        )));
    }
    let value = OperatorValue::Weight(weight);
    let shared = cluster::share(server, &backend, value, query.local).await?;
    let shown = weight.map_or("configured".to_owned(), |weight| weight.to_string());
    info!(pool = %pool.name(), backend = %backend.name(), weight = shown, "operator sets the weight");
    backend.set_weight(weight);
    let job = server.jobs().of(&JobTarget::Backend(Arc::clone(&backend)));
    let spread = cluster::spread(server, shared, None).await;
    let view = snapshot::operated(&pool, &backend, job.as_deref(), spread);
    Ok(json(StatusCode::OK, &view))
}

/// Takes the answer of discovery that is held for a pool.
pub(super) async fn accept_discovery(
    server: &Server,
    name: &str,
    body: impl ApiBody,
) -> Result<Reply, ApiError> {
    let pool = find_pool(server, name)?;
    read_json::<EmptyBody>(body).await?;
    let accepted = server.lookups(name).and_then(|lookups| lookups.accept());
    let Some((backends, left)) = accepted else {
        let message = format!("no answer of discovery is held for pool {name:?}");
        return Err(ApiError::new(StatusCode::CONFLICT, message));
    };
    info!(pool = %pool.name(), backends, left, "operator accepts an answer of discovery");
    let view = AcceptedView {
        pool: name.to_owned(),
        before: backends as u64,
        accepted: left as u64,
    };
    Ok(json(StatusCode::OK, &view))
}

pub(super) fn find_pool(server: &Server, name: &str) -> Result<Arc<Pool>, ApiError> {
    server.pool(name).ok_or_else(|| {
        let pools = server.pools();
        let names: Vec<&str> = pools.iter().map(|pool| &**pool.name()).collect();
        ApiError::not_found(format!("no pool {name:?}; there are: {}", names.join(", ")))
    })
}

pub(super) fn find_backend(
    server: &Server,
    path: &BackendPath,
) -> Result<(Arc<Pool>, Arc<Backend>), ApiError> {
    let pool = find_pool(server, &path.pool)?;
    let backend = pool.backend(&path.backend).ok_or_else(|| {
        let backends: Vec<_> = pool.backends().into_iter().chain(pool.retired()).collect();
        let names: Vec<&str> = backends.iter().map(|backend| &**backend.name()).collect();
        let message = format!(
            "no backend {:?} in pool {:?}; there are: {}",
            path.backend,
            path.pool,
            names.join(", ")
        );
        ApiError::not_found(message)
    })?;
    Ok((pool, backend))
}

/// Query of an operation.
struct OperateQuery {
    wait: Option<Duration>,
    /// The store of the cluster is not waited for.
    local: bool,
}

impl OperateQuery {
    /// Parses `wait=60s`, which only a drain or maint may have, and `local=true`, which only a
    /// backend may have; anything else is an error, not ignored.
    fn parse(
        query: Option<&str>,
        may_wait: bool,
        may_be_local: bool,
    ) -> Result<OperateQuery, ApiError> {
        let mut parsed = OperateQuery {
            wait: None,
            local: false,
        };
        let parts = query.unwrap_or_default().split('&');
        for part in parts.filter(|part| !part.is_empty()) {
            let read = match part.split_once('=') {
                Some(("wait", value)) if may_wait => {
                    parsed.wait = read_wait(value);
                    parsed.wait.is_some()
                }
                Some(("local", value @ ("true" | "false"))) if may_be_local => {
                    parsed.local = value == "true";
                    true
                }
                _ => false,
            };
            if !read {
                return Err(ApiError::bad_request(format!(
                    "query {part:?} is not understood; allowed: wait=DURATION, at most 1h, with \
                     drain or maint; local=true with a backend"
                )));
            }
        }
        Ok(parsed)
    }
}

fn read_wait(value: &str) -> Option<Duration> {
    let text = percent_decode_str(value).decode_utf8().ok()?;
    parse_duration(&text).ok().filter(|&wait| wait <= MAX_WAIT)
}
