//! The seam by which a room above the server takes part in a reload without the server knowing it.

use crate::config::Config;

/// The step that makes a prepared configuration the present one. It cannot fail.
pub type Commit = Box<dyn FnOnce() + Send>;

/// Follows the configuration: the admin endpoint, the metrics endpoint, the log.
pub trait ReloadParticipant: Send + Sync {
    /// Does all that can fail: opens sockets, loads certificates, reads token files. What it holds is dropped if another part
    /// of the reload fails, and nothing visible changes before the returned step runs. Called on a thread that may
    /// block, inside the watch runtime (`tokio::runtime::Handle::current()` is `Server::watch`).
    ///
    /// # Errors
    /// One message that says what failed and with what; the whole reload is given up.
    fn prepare(&self, config: &Config) -> Result<Commit, String>;

    /// Why `prepare` would fail for an address that cannot be bound. Tries and lets go; opens no
    /// file.
    fn preview(&self, _config: &Config) -> Vec<String> {
        Vec::new()
    }
}
