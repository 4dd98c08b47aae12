//! Jobs that end or move live connections: starting, listing and aborting them.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::timeout;
use tracing::info;

use super::body::{ApiBody, EmptyBody, read_json};
use super::drain::FilterBody;
use super::filter_names;
use super::reply::{ApiError, Reply, json};
use super::snapshot;
use super::view::{JobView, JobsView};
use crate::config::BackendName;
use crate::server::jobs::{Job, JobAction, JobRequest, JobTarget, TooMany};
use crate::server::{DrainRequest, Server};

/// Longest wait of an answer for the first count of a job.
const COUNT_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts a job on the connections that the filter of the body finds.
pub(super) async fn start_filtered(
    server: &Arc<Server>,
    body: impl ApiBody,
    action: JobAction,
) -> Result<Reply, ApiError> {
    let (filter, rate) = read_json::<FilterBody>(body).await?.decode()?;
    filter_names::verify(server, &filter).await?;
    if action == JobAction::Move {
        filter_names::verify_move(server, &filter)?;
    }
    let job = start(server, JobRequest::matching(filter, action, rate)).await?;
    Ok(json(StatusCode::ACCEPTED, &snapshot::job(&job)))
}

/// Applies a drain to the live connections of its backend or listener. Returns the job that ends
/// them, where there is one; it may be over already.
///
/// # Errors
/// The limit of running jobs is reached; the target is draining all the same.
pub(super) async fn apply_drain(
    server: &Server,
    target: JobTarget,
    request: DrainRequest,
) -> Result<Option<Arc<Job>>, ApiError> {
    let running = server.jobs().of(&target).map(|job| job.id);
    let job = server.apply_drain(target, request).map_err(busy)?;
    if let Some(job) = job.as_ref().filter(|job| Some(job.id) != running) {
        tell(job).await;
    }
    Ok(job)
}

async fn start(server: &Server, request: JobRequest) -> Result<Arc<Job>, ApiError> {
    let job = server.start_job(request).map_err(busy)?;
    tell(&job).await;
    Ok(job)
}

fn busy(error: TooMany) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

/// Logs a job that has started. Waits until it has counted its connections, so that the answer says
/// how many there are.
async fn tell(job: &Job) {
    let _ = timeout(COUNT_TIMEOUT, job.counted()).await;
    let JobView { target, pace, .. } = snapshot::job(job);
    info!(
        job = job.id,
        target, pace, "operator ends or moves connections"
    );
}

pub(super) fn list(server: &Server) -> Reply {
    let jobs = server.jobs().list();
    let jobs = jobs.iter().map(|job| snapshot::job(job)).collect();
    json(StatusCode::OK, &JobsView { jobs })
}

pub(super) fn show(server: &Server, id: &str) -> Result<Reply, ApiError> {
    Ok(json(StatusCode::OK, &snapshot::job(&*find(server, id)?)))
}

pub(super) async fn abort(
    server: &Server,
    id: &str,
    body: impl ApiBody,
) -> Result<Reply, ApiError> {
    read_json::<EmptyBody>(body).await?;
    let found = id.parse().ok().and_then(|id| server.abort_job(id));
    let job = found.ok_or_else(|| unknown(id))?;
    info!(job = job.id, "operator aborts a job");
    Ok(json(StatusCode::OK, &snapshot::job(&job)))
}

/// Returns the backend that the job `id` empties; `None` for any other job.
pub(super) fn backend_of(server: &Server, id: &str) -> Option<BackendName> {
    let job = find(server, id).ok()?;
    let JobTarget::Backend(backend) = &job.target else {
        return None;
    };
    Some(BackendName {
        pool: backend.pool().to_string(),
        backend: backend.name().to_string(),
    })
}

fn find(server: &Server, id: &str) -> Result<Arc<Job>, ApiError> {
    let found = id.parse().ok().and_then(|id| server.jobs().find(id));
    found.ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!(
        "no job {id}; `evenkeel jobs` and GET /api/v1/jobs list them"
    ))
}
