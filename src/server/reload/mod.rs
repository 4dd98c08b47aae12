//! Reload: replaces the configuration in force, all or nothing.
//!
//! read -> parse -> check conditions -> prepare -> commit. `prepare` does all that can fail and
//! changes nothing: it loads files, binds new addresses, starts new pools. `commit` cannot fail: it
//! swaps everything in at once. The first configuration of a server takes the same way.

mod commit;
pub(super) mod condition;
pub(super) mod error;
pub(super) mod in_force;
mod load;
mod load_error;
pub(super) mod participant;
pub(super) mod plan;
mod prepare;
pub(super) mod source;
pub(super) mod verify;
pub(super) mod warnings;

pub(super) use load::sockets;

use std::sync::Arc;
use std::time::SystemTime;

use self::condition::Condition;
use self::error::{ReloadError, lines};
use super::lock::lock;
use super::state::Server;
use crate::config::{Change, Draft};

impl Server {
    /// Reads the source again and swaps the new configuration in, all or nothing. Reloads are
    /// serialised; one goes on to its end when this future is dropped.
    ///
    /// # Errors
    /// Every reason why nothing was changed.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Vec<Change>, ReloadError> {
        self.reload_text(None, Vec::new()).await
    }

    /// Reloads if all `conditions` hold of what the reload would do. They are judged on the very
    /// text that is then loaded, and no other reload comes in between.
    ///
    /// # Errors
    /// Every reason why nothing was changed, and every condition that does not hold.
    pub(crate) async fn reload_if(
        self: &Arc<Self>,
        conditions: Vec<Condition>,
    ) -> Result<Vec<Change>, ReloadError> {
        self.reload_text(None, conditions).await
    }

    /// Reloads `text`, or the present text of the source.
    pub(super) async fn reload_text(
        self: &Arc<Self>,
        text: Option<String>,
        conditions: Vec<Condition>,
    ) -> Result<Vec<Change>, ReloadError> {
        let server = Arc::clone(self);
        let reload = move || server.reload_now(text, &conditions);
        match self.control_runtime().spawn_blocking(reload).await {
            Ok(result) => result,
            Err(error) => Err(vec![format!("reload: {error}")].into()),
        }
    }

    /// Reloads, counts and logs the result. Blocks; one at a time.
    fn reload_now(
        self: &Arc<Self>,
        text: Option<String>,
        conditions: &[Condition],
    ) -> Result<Vec<Change>, ReloadError> {
        self.refuse_in_upgrade()?;
        let _one_at_a_time = lock(&self.reloading);
        // One that has waited for an upgrade comes too late.
        self.refuse_in_upgrade()?;
        let _under_way = self.lifecycle.begin_reload();
        let result = self.try_reload(text, conditions);
        if result.is_ok()
            && let Err(error) = self.join_cluster()
        {
            // The files were good when the reload was prepared.
            tracing::error!(error, "the cluster of before goes on");
        }
        self.note_reload(&result);
        result
    }

    fn refuse_in_upgrade(&self) -> Result<(), ReloadError> {
        if self.is_handing_over() {
            let why = "an upgrade is under way: reload again when the new process serves";
            tracing::error!(error = why, "reload refused");
            return Err(vec![why.to_owned()].into());
        }
        Ok(())
    }

    /// Counts and logs the result of a reload.
    fn note_reload(&self, result: &Result<Vec<Change>, ReloadError>) {
        let (now, file) = (SystemTime::now(), self.source.file().display());
        match result {
            Ok(changes) => {
                lock(&self.reloads).succeeded(now);
                for change in changes {
                    tracing::info!(%change, "reload");
                }
                tracing::info!(%file, changes = changes.len(), "reloaded");
            }
            Err(ReloadError { messages, .. }) => {
                lock(&self.reloads).failed(now, messages.join("\n"));
                for error in messages {
                    tracing::error!(%error, "reload refused");
                }
                tracing::error!(%file, errors = messages.len(), "reload refused, the present configuration goes on");
            }
        }
    }

    fn try_reload(
        &self,
        text: Option<String>,
        conditions: &[Condition],
    ) -> Result<Vec<Change>, ReloadError> {
        let text = text.map_or_else(|| self.source.read(), Ok);
        let text = text.map_err(|error| vec![error.to_string()])?;
        lock(&self.attempted).clone_from(&text);
        let draft = || Draft::read(&text, self.source.file());
        let config = draft().finish().map_err(|errors| ReloadError {
            messages: lines(&errors),
            drawn: Some(errors.to_string()),
        })?;
        let objections = self.objections(conditions, &config);
        if !objections.is_empty() {
            return Err(objections.into());
        }
        let prepared = self.prepare(config).map_err(|messages| ReloadError {
            messages,
            drawn: verify::drawn(draft()),
        })?;
        let changes = self.commit(prepared)?;
        let mut in_force = lock(&self.in_force);
        *in_force = in_force.next(&text);
        Ok(changes)
    }
}
