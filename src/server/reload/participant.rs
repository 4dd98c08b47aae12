//! The trait by which modules above the server take part in a reload.

use std::sync::Arc;

use crate::config::{Bind, Config};
use crate::net::Bound;

/// Makes a prepared configuration the one in force. Cannot fail.
pub(crate) type Commit = Box<dyn FnOnce() + Send>;

/// A part of the process that goes along with reloads: the admin endpoint, the metrics endpoint,
/// the log.
pub(crate) trait ReloadParticipant: Send + Sync {
    /// Does all that can fail: opens sockets, loads certificates, reads token files. The result is
    /// dropped if another part of the reload fails, and nothing visible changes before the returned
    /// step runs. Called on a thread that may block, inside the control runtime
    /// (`tokio::runtime::Handle::current()` is `Server::control_runtime`).
    ///
    /// # Errors
    /// A message that says what failed and with what; the whole reload is given up.
    fn prepare(&self, config: &Config) -> Result<Commit, String>;

    /// Reasons why `prepare` would fail for an address that cannot be bound. Binds and lets go;
    /// opens no file.
    fn preview(&self, _config: &Config) -> Vec<String> {
        Vec::new()
    }

    /// Listening sockets, each with its configured address, which an upgrade hands to the next
    /// process.
    fn sockets(&self) -> Vec<(Bind, Arc<Bound>)> {
        Vec::new()
    }

    /// Leaves the sockets to the next process, which accepts from them; serves on at those that it
    /// has no use for.
    fn leave(&self, _is_unused: &dyn Fn(&Arc<Bound>) -> bool) {}

    /// Closes the sockets that were left: the next process has them alone.
    fn give_up(&self) {}

    /// Accepts again from the sockets that were left: the next process has ended.
    fn resume(&self) {}

    /// Counters for the next process.
    fn totals(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Adds what `totals` of the process before has grown by.
    fn add_growth(&self, _before: &serde_json::Value, _now: &serde_json::Value) {}
}
