//! Files under watch: by events, and by polls in case those do not tell.

use std::path::PathBuf;
use std::time::Duration;

use crate::net::{Coverage, FileEvents};

/// Between two polls where events tell of changes: for a mapped file that is written, a mount over
/// a folder, a folder far above that was renamed. Seldom enough that an idle process sleeps.
const POLL: Duration = Duration::from_secs(15);

/// Between two polls where they do not: as long as a person waits for an edit to be taken.
const SILENT_POLL: Duration = Duration::from_secs(2);

/// Events of files, and the time between two polls.
#[derive(Default)]
pub(super) struct WatchedFiles {
    events: FileEvents,
    /// The log said that files are polled.
    is_polled: bool,
}

impl WatchedFiles {
    /// Watches these files alone from now on; read them afterwards. Returns the time until the next
    /// poll. Blocks on file I/O.
    pub(super) fn watch(&mut self, files: &[PathBuf]) -> Duration {
        let coverage = self.events.watch(files);
        let was_polled =
            std::mem::replace(&mut self.is_polled, !matches!(coverage, Coverage::Full));
        let files = || {
            let mut names = files.iter().map(|file| file.display().to_string());
            names.next().unwrap_or_default()
        };
        match coverage {
            Coverage::Full => return POLL,
            _ if was_polled => {}
            Coverage::Silent(file_system) => tracing::info!(
                file = files(),
                file_system,
                "files are polled, their file system tells not of all changes"
            ),
            Coverage::Refused(error) => tracing::warn!(
                file = files(),
                %error,
                "files are polled, the kernel does not watch them"
            ),
        }
        SILENT_POLL
    }

    /// Returns shortly after one of the files may have changed.
    ///
    /// # Cancel safety
    /// Loses an event: look at the files afterwards.
    pub(super) async fn event(&mut self) {
        self.events.event().await;
    }
}
