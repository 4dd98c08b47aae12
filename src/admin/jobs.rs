//! Jobs that end live connections at a pace: how a drain asks for one, `POST /api/v1/connections/close` and `/move`, and the list.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use hyper::body::Body;
use ipnet::IpNet;
use serde::Deserialize;
use tokio::time::timeout;
use tracing::info;

use super::body::{EmptyBody, read_json};
use super::known;
use super::look::stamp;
use super::query;
use super::reply::{ApiError, Reply, json};
use super::view::{JobView, JobsView};
use crate::base::close_code::{MAX_REASON_BYTES, may_be_sent};
use crate::base::rate::Rate;
use crate::base::units::{format_duration, parse_duration};
use crate::config::{self, BackendName, defaults};
use crate::observe::kept_tag;
use crate::relay::Filter;
use crate::server::Server;
use crate::server::jobs::{DrainRate, Job, JobAction, JobRequest, JobTarget, TooMany};

/// How long an answer waits for the first count of a job.
const COUNT_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time of a job, as in the configuration.
pub const MAX_TIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The body of a drain: what is given takes the place of the pool's `drain`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainBody {
    rate: Option<String>,
    deadline: Option<String>,
    after: Option<String>,
    close: Option<CloseBody>,
    /// End nobody, whatever the pool says.
    #[serde(default)]
    keep: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CloseBody {
    code: Option<u16>,
    reason: Option<String>,
}

/// The body of `POST /api/v1/connections/close` and `/move`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndBody {
    #[serde(default)]
    filter: FilterBody,
    /// Every connection is meant: an empty filter is not enough for that.
    #[serde(default)]
    all: bool,
    rate: Option<String>,
    deadline: Option<String>,
    after: Option<String>,
    close: Option<CloseBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterBody {
    listener: Option<String>,
    pool: Option<String>,
    backend: Option<String>,
    client: Option<String>,
    tag: Option<String>,
    host: Option<String>,
    path: Option<String>,
    sni: Option<String>,
    subject: Option<String>,
    min_age: Option<String>,
    min_idle: Option<String>,
}

/// What a drain wants of the live connections.
pub(super) enum DrainRequest {
    /// It says nothing: what is under way goes on; else the pool's, if it has one.
    Usual(Option<DrainRate>),
    Paced(DrainRate),
    Keep,
}

impl DrainBody {
    pub fn wish(self, pool: Option<&config::Drain>) -> Result<DrainRequest, ApiError> {
        let DrainBody {
            rate,
            deadline,
            after,
            close,
            keep,
        } = self;
        let says_something =
            rate.is_some() || deadline.is_some() || after.is_some() || close.is_some();
        match (keep, says_something) {
            (true, true) => Err(ApiError::bad_request(
                "keep ends nobody: it goes without rate, deadline, after and close",
            )),
            (true, false) => Ok(DrainRequest::Keep),
            (false, false) => Ok(DrainRequest::Usual(pool.map(DrainRate::from))),
            (false, true) => pace(rate, deadline, after, close, pool).map(DrainRequest::Paced),
        }
    }
}

fn pace(
    rate: Option<String>,
    deadline: Option<String>,
    after: Option<String>,
    close: Option<CloseBody>,
    pool: Option<&config::Drain>,
) -> Result<DrainRate, ApiError> {
    let mut drain = pool.cloned().unwrap_or(config::Drain {
        rate: None,
        deadline: None,
        after: defaults::DRAIN_AFTER,
        close: config::Close {
            code: defaults::CLOSE_CODE as u16,
            reason: String::new(),
        },
    });
    if rate.is_some() || deadline.is_some() {
        drain.rate = rate.as_deref().map(read_rate).transpose()?;
        drain.deadline = deadline
            .as_deref()
            .map(|text| time("deadline", text))
            .transpose()?;
    }
    if drain.deadline.is_none() {
        drain.rate.get_or_insert(defaults::DRAIN_RATE);
    }
    if let Some(after) = after {
        drain.after = time("after", &after)?;
    }
    let CloseBody { code, reason } = close.unwrap_or_default();
    drain.close.code = code.unwrap_or(drain.close.code);
    drain.close.reason = reason.unwrap_or(drain.close.reason);
    if !may_be_sent(drain.close.code) {
        return Err(ApiError::bad_request(format!(
            "close.code: {} may not be sent; allowed: 1000 to 1003, 1007 to 1014, 3000 to 4999",
            drain.close.code
        )));
    }
    if drain.close.reason.len() > MAX_REASON_BYTES {
        return Err(ApiError::bad_request(format!(
            "close.reason: at most {MAX_REASON_BYTES} bytes"
        )));
    }
    Ok(DrainRate::from(&drain))
}

fn read_rate(text: &str) -> Result<Rate, ApiError> {
    text.parse().map_err(|error| {
        ApiError::bad_request(format!("rate: {text:?}: {error}; allowed: as in \"100/s\""))
    })
}

fn time(name: &str, text: &str) -> Result<Duration, ApiError> {
    let read = parse_duration(text).ok().filter(|time| *time <= MAX_TIME);
    read.ok_or_else(|| {
        ApiError::bad_request(format!(
            "{name}: {text:?} is not a time of at most 7d, as in \"10m\""
        ))
    })
}

impl FilterBody {
    fn read(self) -> Result<Option<Filter>, ApiError> {
        let FilterBody {
            listener,
            pool,
            backend,
            client,
            tag,
            host,
            path,
            sni,
            subject,
            min_age,
            min_idle,
        } = self;
        let conditions = [
            &listener, &pool, &backend, &client, &tag, &host, &path, &sni, &subject, &min_age,
            &min_idle,
        ];
        let is_empty = conditions.iter().all(|condition| condition.is_none());
        if is_empty {
            return Ok(None);
        }
        let read_time = |name, text: Option<String>| match text {
            None => Ok(Duration::ZERO),
            Some(text) => time(name, &text),
        };
        let client: Option<IpNet> = match client {
            None => None,
            Some(text) => Some(query::network(&text).map_err(|allowed| {
                ApiError::bad_request(format!("filter.client: {text:?} is not {allowed}"))
            })?),
        };
        Ok(Some(Filter {
            id: None,
            listener,
            pool,
            backend,
            client,
            tag: tag.map(|tag| kept_tag(&tag).into_owned()),
            host,
            path,
            sni,
            subject,
            min_age: read_time("filter.min_age", min_age)?,
            min_idle: read_time("filter.min_idle", min_idle)?,
        }))
    }
}

/// `POST /api/v1/connections/close` and `/move`.
pub(super) async fn end<B>(
    server: &Arc<Server>,
    body: B,
    action: JobAction,
) -> Result<Reply, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let EndBody {
        filter,
        all,
        rate,
        deadline,
        after,
        close,
    } = read_json(body).await?;
    let filter = match (filter.read()?, all) {
        (Some(filter), false) => filter,
        (None, true) => Filter::default(),
        (None, false) => {
            return Err(ApiError::bad_request(
                "an empty filter means every connection; if that is meant, say \"all\": true",
            ));
        }
        (Some(_), true) => {
            return Err(ApiError::bad_request("all goes without a filter"));
        }
    };
    let pace = pace(rate, deadline, after, close, None)?;
    known::verify(server, &filter).await?;
    if action == JobAction::Move {
        known::verify_move(server, &filter)?;
    }
    let job = start(server, JobRequest::matching(filter, action, pace)).await?;
    Ok(json(StatusCode::ACCEPTED, &view(&job)))
}

/// Does what a drain wants of the live connections of its backend or listener. The job that ends
/// them, where there is one; it may be over already.
///
/// # Errors
/// As many jobs run as may; the target is draining all the same.
pub(super) async fn apply_drain(
    server: &Server,
    target: JobTarget,
    wish: DrainRequest,
) -> Result<Option<Arc<Job>>, ApiError> {
    let running = server.jobs().of(&target);
    let pace = match wish {
        DrainRequest::Keep => {
            server.jobs().abort_of(&target);
            return Ok(None);
        }
        DrainRequest::Usual(_) if running.is_some() => return Ok(running),
        DrainRequest::Usual(None) => return Ok(None),
        DrainRequest::Usual(Some(pace)) | DrainRequest::Paced(pace) => pace,
    };
    start(server, JobRequest::drain(target, pace))
        .await
        .map(Some)
}

/// Begins a job, and tells the log. What is said of it then is what it has counted.
async fn start(server: &Server, request: JobRequest) -> Result<Arc<Job>, ApiError> {
    let busy = |error: TooMany| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    let job = server.jobs().start(request).map_err(busy)?;
    let _ = timeout(COUNT_TIMEOUT, job.counted()).await;
    let JobView { target, pace, .. } = view(&job);
    info!(
        job = job.id,
        target, pace, "operator ends or moves connections"
    );
    Ok(job)
}

pub(super) fn list(server: &Server) -> Reply {
    let jobs = server.jobs().list().iter().map(|job| view(job)).collect();
    json(StatusCode::OK, &JobsView { jobs })
}

pub(super) fn show(server: &Server, id: &str) -> Result<Reply, ApiError> {
    Ok(json(StatusCode::OK, &view(&*find(server, id)?)))
}

pub(super) async fn abort<B>(server: &Server, id: &str, body: B) -> Result<Reply, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    read_json::<EmptyBody, _>(body).await?;
    let found = id.parse().ok().and_then(|id| server.jobs().abort(id));
    let job = found.ok_or_else(|| unknown(id))?;
    info!(job = job.id, "operator aborts a job");
    Ok(json(StatusCode::OK, &view(&job)))
}

/// The backend that the job `id` empties. `None`: it is no such job.
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

pub(super) fn view(job: &Job) -> JobView {
    let DrainRate {
        rate,
        deadline,
        after,
        close_frame,
    } = &job.pace;
    let rate = rate.map(|rate| rate.to_string());
    let within = deadline.map(|deadline| format!("within {}", format_duration(deadline)));
    let after = (!after.is_zero()).then(|| format!("after {}", format_duration(*after)));
    let pace: Vec<String> = [rate, within, after].into_iter().flatten().collect();
    JobView {
        id: job.id,
        by: job.origin.as_str().to_owned(),
        target: target(job),
        phase: job.phase().as_str().to_owned(),
        moves: job.action == JobAction::Move,
        ended: job.ended(),
        left: job.left(),
        left_seconds: job.left_in().map(|left| left.as_secs()),
        pace: pace.join(", "),
        code: close_frame.code,
        started_at: stamp(job.started_at),
    }
}

fn target(job: &Job) -> String {
    match &job.target {
        JobTarget::Backend(backend) => format!("{}/{}", backend.pool(), backend.name()),
        JobTarget::Pool(pool) => format!("{} (rebalance)", pool.name()),
        JobTarget::Listener(listener) => format!("listener {}", listener.name),
        JobTarget::Filter(filter) if job.action == JobAction::Move => {
            format!("move of {}", conditions(filter))
        }
        JobTarget::Filter(filter) => conditions(filter),
    }
}

fn conditions(filter: &Filter) -> String {
    let named =
        |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name}={value}"));
    let timed = |name: &str, value: Duration| {
        (!value.is_zero()).then(|| format!("{name}={}", format_duration(value)))
    };
    let conditions = [
        named("listener", &filter.listener),
        named("pool", &filter.pool),
        named("backend", &filter.backend),
        named("client", &filter.client.map(|network| network.to_string())),
        named("tag", &filter.tag),
        named("host", &filter.host),
        named("path", &filter.path),
        named("sni", &filter.sni),
        named("subject", &filter.subject),
        timed("min_age", filter.min_age),
        timed("min_idle", filter.min_idle),
    ];
    let conditions: Vec<String> = conditions.into_iter().flatten().collect();
    match conditions.is_empty() {
        true => "all connections".to_owned(),
        false => conditions.join(" "),
    }
}
