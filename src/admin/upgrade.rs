//! `POST /api/v1/upgrade`: hands over to a new process. The path of its binary is that by which
//! this process was started; no request can name another.

use std::sync::Arc;

use http::StatusCode;

use super::body::{ApiBody, EmptyBody, read_json};
use super::reply::{ApiError, Reply, json};
use super::view::UpgradedView;
use crate::server::{Server, UpgradeError};

/// Upgrades, and answers when the new process serves.
pub(super) async fn upgrade(server: &Arc<Server>, body: impl ApiBody) -> Result<Reply, ApiError> {
    read_json::<EmptyBody>(body).await?;
    match server.upgrade().await {
        Ok(upgraded) => Ok(json(
            StatusCode::OK,
            &UpgradedView {
                process: upgraded.pid,
                version: upgraded.version,
                left: upgraded.left,
            },
        )),
        Err(UpgradeError::Busy(why)) => Err(ApiError::new(StatusCode::CONFLICT, why)),
        Err(UpgradeError::Refused(reasons)) => {
            let message = "the upgrade was refused, this process serves on";
            Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message).with_details(reasons))
        }
    }
}

/// Refuses a change while an upgrade is under way: it would be lost, or be done by halves.
///
/// # Errors
/// An upgrade is under way.
pub(super) fn refuse_change(server: &Server) -> Result<(), ApiError> {
    if server.is_handing_over() {
        let why = "upgrading: nothing can be changed until the new process serves";
        return Err(ApiError::new(StatusCode::CONFLICT, why));
    }
    Ok(())
}
