//! The configuration in force, and its reload.

use std::sync::Arc;

use http::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::body::{ApiBody, read_json};
use super::reply::{ApiError, Reply, json, reply};
use super::snapshot;
use super::view::ReloadView;
use crate::server::{Condition, Server};

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadBody {
    /// Conditions that the reload must meet, or it is not done.
    #[serde(default, rename = "if")]
    conditions: Vec<String>,
}

/// Answers with the text in force, or with 304 where the client has it.
pub(super) fn show(server: &Server, headers: &HeaderMap) -> Result<Reply, ApiError> {
    let view = snapshot::configuration_text(server);
    if view.hash.is_empty() {
        let message = "the file changed while the process started: reload it";
        return Err(ApiError::new(StatusCode::CONFLICT, message));
    }
    let tag = HeaderValue::try_from(format!("\"{}-{}\"", view.number, view.hash));
    let tag =
        tag.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let mut reply = if headers.get(IF_NONE_MATCH) == Some(&tag) {
        reply(StatusCode::NOT_MODIFIED, "application/json", "")
    } else {
        json(StatusCode::OK, &view)
    };
    reply.headers_mut().insert(ETAG, tag);
    Ok(reply)
}

/// Reloads the file, if it meets the conditions of the body.
pub(super) async fn reload(server: &Arc<Server>, body: impl ApiBody) -> Result<Reply, ApiError> {
    let body: ReloadBody = read_json(body).await?;
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
