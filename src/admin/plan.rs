//! Preview of a reload: of the text in the body, or of the file. No file that the text names is
//! opened, or a caller could learn which files there are on this machine.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::body::{ApiBody, read_json_of};
use super::reply::{ApiError, Reply, json};
use super::tokens::TokenHolder;
use super::view::{PlanPartView, PlanView};
use crate::server::{PreviewPart, ReloadPreview, Server};

/// Limit of the body: the largest configuration, as a JSON text with every line end and quote
/// escaped.
const MAX_PLAN_BYTES: usize = 16 << 20;

/// Limit of plans at once: each holds its text and two configurations.
pub(super) const MAX_PLANS: usize = 1;

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct PlanBody {
    /// Text of a configuration file.
    configuration: String,
}

/// Detail of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlanDetail {
    Full,
    /// Without the names of the keys that differ, which would tell whether a guessed secret is
    /// right, and no address that the caller chooses is bound.
    Effects,
}

impl PlanDetail {
    /// Detail for the holder of a token.
    pub(super) fn of(holder: &TokenHolder) -> PlanDetail {
        match holder.may_read_text() {
            Ok(()) => PlanDetail::Full,
            Err(_) => PlanDetail::Effects,
        }
    }
}

/// Previews a reload of the text in the body.
pub(super) async fn plan(
    server: &Arc<Server>,
    plans: &Semaphore,
    detail: PlanDetail,
    body: impl ApiBody,
) -> Result<Reply, ApiError> {
    let _permit = permit(plans)?;
    let PlanBody { configuration } = read_json_of(body, MAX_PLAN_BYTES).await?;
    preview(server, Some(configuration), detail).await
}

/// Previews a reload of the file as it is now.
pub(super) async fn plan_of_file(
    server: &Arc<Server>,
    plans: &Semaphore,
) -> Result<Reply, ApiError> {
    let _permit = permit(plans)?;
    preview(server, None, PlanDetail::Full).await
}

fn permit(plans: &Semaphore) -> Result<SemaphorePermit<'_>, ApiError> {
    let busy = |_| ApiError::later("another plan is being made; ask again");
    plans.try_acquire().map_err(busy)
}

async fn preview(
    server: &Arc<Server>,
    text: Option<String>,
    detail: PlanDetail,
) -> Result<Reply, ApiError> {
    let is_full = detail == PlanDetail::Full;
    match server.plan(text, is_full).await {
        Ok(mut forecast) => {
            if !is_full {
                forecast.hide_keys();
            }
            Ok(json(StatusCode::OK, &view(&forecast)))
        }
        Err(errors) => {
            let message = "the configuration has errors";
            Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message)
                .with_details(errors.messages)
                .with_drawn(errors.drawn))
        }
    }
}

fn view(forecast: &ReloadPreview) -> PlanView {
    PlanView {
        totals: forecast.totals,
        needs_restart: forecast.needs_restart.clone(),
        refusals: forecast.refusals.clone(),
        parts: forecast.parts.iter().map(part).collect(),
    }
}

fn part(part: &PreviewPart) -> PlanPartView {
    let PreviewPart {
        step,
        live,
        closes,
        left_behind,
    } = part;
    PlanPartView {
        part: step.item.kind().to_owned(),
        name: step.item.name(),
        fate: step.action.word().to_owned(),
        keys: step.keys.iter().map(ToString::to_string).collect(),
        live: *live,
        closes: *closes,
        left_behind: *left_behind,
    }
}
