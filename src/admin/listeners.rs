//! `POST /api/v1/listeners/LISTENER/drain` and `/ready`: a listener that takes no clients, and one that takes them again.

use std::sync::Arc;

use bytes::Bytes;
use http::{StatusCode, Uri};
use hyper::body::Body;
use tracing::info;

use super::api::{Api, parse_wait};
use super::body::{EmptyBody, read_json};
use super::jobs::{self, DrainBody, DrainRequest};
use super::reply::{ApiError, Reply, json};
use super::route::ListenerAction;
use super::snapshot;
use crate::server::jobs::JobTarget;
use crate::server::{ListenerStatus, Server};

impl Api {
    pub(super) async fn operate_listener<B>(
        &self,
        server: &Server,
        name: &str,
        word: ListenerAction,
        uri: &Uri,
        body: B,
    ) -> Result<Reply, ApiError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let drain = word == ListenerAction::Drain;
        let wait = parse_wait(uri.query(), drain)?;
        let wish = match word {
            ListenerAction::Drain => read_json::<DrainBody, _>(body).await?.wish(None)?,
            ListenerAction::Ready => {
                read_json::<EmptyBody, _>(body).await?;
                DrainRequest::Usual(None)
            }
        };
        let status = set(server, name, drain)?;
        let subject = JobTarget::Listener(Arc::clone(&status.counters));
        let job = jobs::apply_drain(server, subject.clone(), wish).await?;
        if let Some(wait) = wait {
            self.wait_until_empty(&subject, wait).await?;
        }
        let view = snapshot::operated_listener(&status, job.as_deref());
        Ok(json(StatusCode::OK, &view))
    }
}

fn set(server: &Server, name: &str, drain: bool) -> Result<ListenerStatus, ApiError> {
    if let Some(status) = server.drain_listener(name, drain) {
        info!(listener = name, drain, "operator sets the state");
        return Ok(status);
    }
    let all = server.listeners();
    let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    let among = names.join(", ");
    Err(match names.contains(&name) {
        true => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"),
        false => ApiError::not_found(format!("no listener {name:?}; there are: {among}")),
    })
}
