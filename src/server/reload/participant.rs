//! The trait by which modules above the server take part in a reload.

use crate::config::Config;

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
}
