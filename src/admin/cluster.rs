//! The cluster in the admin API: its status, and states that the operator sets on all members.

use std::time::{Duration, Instant};

use http::StatusCode;

use super::reply::ApiError;
use super::view::{ClusterView, MemberView, SharedStateView, SpreadView};
use crate::cluster::{OperatorValue, ShareError};
use crate::pool::Backend;
use crate::server::{Server, SharedAs};

/// Status of the cluster; `None`: there is none.
pub(super) fn status(server: &Server) -> Option<ClusterView> {
    let status = server.cluster_status()?;
    let now = Instant::now();
    let age = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
    let members = status.members.into_iter().map(|one| MemberView {
        id: one.id,
        age_seconds: one.age.as_secs_f64(),
        connections: one.connections,
        up_to_date: one.is_up_to_date,
    });
    let states = status.states.into_iter().map(|one| SharedStateView {
        pool: one.pool,
        backend: one.backend,
        state: one.state,
        by: one.by,
        revision: one.rev,
    });
    Some(ClusterView {
        name: status.name,
        id: status.id,
        store: status.store,
        alone: status.is_alone,
        age_seconds: status.exchanged_at.map(age),
        exchanges: status.exchanges,
        failures: status.failures,
        last_error: status.last_error,
        rejected: status.rejected,
        same_id: status.has_twin,
        share: status.share.into_iter().map(str::to_owned).collect(),
        members: members.collect(),
        states: states.collect(),
    })
}

/// Sets a state of a backend at all other members.
///
/// # Errors
/// 503 where the store does not have it, or has not said so in time.
pub(super) async fn share(
    server: &Server,
    backend: &Backend,
    value: OperatorValue,
    local: bool,
) -> Result<SharedAs, ApiError> {
    let shared = server.share_state(backend, value, local).await;
    shared.map_err(|error| {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match error {
            ShareError::Unavailable(_) | ShareError::Unsure(_) => {
                let unchanged = match error {
                    ShareError::Unavailable(_) => "; nothing was changed here",
                    _ => "",
                };
                let message = format!(
                    "{error}{unchanged}. With ?local=true (--local) it is set on this balancer \
                     alone, and on the others once the store is back"
                );
                ApiError::new(unavailable, message).with_local()
            }
            ShareError::Contended => ApiError::later(error.to_string()),
            ShareError::Full => ApiError::new(unavailable, error.to_string()),
        }
    })
}

/// Waits at most `wait` until all members have applied a state; without it says how many have.
pub(super) async fn spread(
    server: &Server,
    shared: SharedAs,
    wait: Option<Duration>,
) -> Option<SpreadView> {
    let state = match shared {
        SharedAs::Unshared => return None,
        SharedAs::Stored => "stored",
        SharedAs::Local => "local",
    };
    let waits = wait.filter(|_| shared == SharedAs::Stored);
    let (applied, members) = server.spread(waits.unwrap_or_default()).await?;
    Some(SpreadView {
        state: state.to_owned(),
        applied: applied as u64,
        members: members as u64,
    })
}
