//! Follows the configuration file: tells the text to act on once the file has settled.
//!
//! The parent directory is watched, because a file that is renamed over or a symlink that is swapped is another inode; and
//! the file is read every `POLL` as well, because events get lost (network file systems, a symlink whose target changes in
//! another directory). It only reads; what becomes of a text is the server's business.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::debounce::{Debounce, DebounceVerdict, FileLook};

/// Time between two looks when no event comes.
const POLL: Duration = Duration::from_secs(2);

/// Least time between an event and the look it causes: a busy directory (a log beside the file) costs ten looks a second at most.
const GATHER: Duration = Duration::from_millis(100);

/// Events waiting; one is enough, it only says "look".
const EVENTS: usize = 1;

/// Follows one file.
pub(super) struct Watcher {
    file: PathBuf,
    settle: Debounce,
    events: mpsc::Receiver<()>,
    /// `None`: the directory cannot be watched, polling alone has to do. Kept because dropping it ends the events.
    _directory: Option<RecommendedWatcher>,
}

impl Watcher {
    /// Begins to watch. Never fails: without events the poll remains.
    pub fn start(file: &Path) -> Watcher {
        let (sender, events) = mpsc::channel(EVENTS);
        let directory = watch_parent(file, sender)
            .inspect_err(|error| {
                tracing::warn!(file = %file.display(), %error, "configuration file is polled, its directory cannot be watched");
            })
            .ok();
        Watcher {
            file: file.to_path_buf(),
            settle: Debounce::default(),
            events,
            _directory: directory,
        }
    }

    /// Waits until the file has a settled text that differs from what `acted` gives, which is asked at every look.
    ///
    /// # Cancel safety
    /// Cancel safe: at worst a wait begins again.
    pub async fn settled(&mut self, acted: impl Fn() -> String) -> String {
        let mut wait = POLL;
        loop {
            self.event_or(wait).await;
            wait = match read(&self.file) {
                None => {
                    self.settle.missing();
                    POLL
                }
                Some(look) => match self.settle.look(Instant::now(), look, &acted()) {
                    DebounceVerdict::Same => POLL,
                    DebounceVerdict::Wait(rest) => rest,
                    DebounceVerdict::Act(text) => return text,
                },
            };
        }
    }

    /// Returns shortly after the next event, or after `wait` without one.
    async fn event_or(&mut self, wait: Duration) {
        tokio::select! {
            Some(()) = self.events.recv() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn watch_parent(file: &Path, events: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reads raise access events: answering those would be an endless loop.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = events.try_send(());
        }
    })?;
    let parent = file.parent().filter(|path| !path.as_os_str().is_empty());
    watcher.watch(
        parent.unwrap_or(Path::new(".")),
        RecursiveMode::NonRecursive,
    )?;
    Ok(watcher)
}

/// One look; `None` when the file is not there, not readable or not text.
fn read(file: &Path) -> Option<FileLook> {
    let text = std::fs::read_to_string(file).ok()?;
    let meta = std::fs::metadata(file).ok()?;
    let changed = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    Some(FileLook {
        text,
        stamp: (meta.dev(), meta.ino(), changed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn settled(watcher: &mut Watcher, acted: &str) -> String {
        let acted = acted.to_owned();
        tokio::time::timeout(PATIENCE, watcher.settled(|| acted.clone()))
            .await
            .expect("the change is seen")
    }

    #[tokio::test]
    async fn sees_a_write_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("balancer.toml");
        std::fs::write(&file, "one").unwrap();
        let mut watcher = Watcher::start(&file);
        std::fs::write(&file, "two").unwrap();
        assert_eq!(settled(&mut watcher, "one").await, "two");
    }

    #[tokio::test]
    async fn sees_a_file_renamed_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("balancer.toml");
        std::fs::write(&file, "one").unwrap();
        let mut watcher = Watcher::start(&file);
        let next = folder.path().join("next");
        std::fs::write(&next, "two").unwrap();
        std::fs::rename(&next, &file).unwrap();
        assert_eq!(settled(&mut watcher, "one").await, "two");
    }

    #[tokio::test]
    async fn sees_a_symlink_swapped_in_another_folder() {
        let folder = tempfile::tempdir().unwrap();
        let link = |target: &str| {
            std::fs::create_dir_all(folder.path().join(target)).unwrap();
            std::fs::write(folder.path().join(target).join("balancer.toml"), target).unwrap();
            let fresh = folder.path().join("fresh");
            std::os::unix::fs::symlink(target, &fresh).unwrap();
            std::fs::rename(&fresh, folder.path().join("data")).unwrap();
        };
        link("one");
        let mounted = folder.path().join("mounted");
        std::fs::create_dir(&mounted).unwrap();
        let file = mounted.join("balancer.toml");
        std::os::unix::fs::symlink("../data/balancer.toml", &file).unwrap();
        let mut watcher = Watcher::start(&file);
        link("two");
        assert_eq!(settled(&mut watcher, "one").await, "two");
    }

    #[tokio::test]
    async fn does_not_act_before_a_second_of_quiet() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("balancer.toml");
        std::fs::write(&file, "one").unwrap();
        let mut watcher = Watcher::start(&file);
        std::fs::write(&file, "two").unwrap();
        let written = Instant::now();
        settled(&mut watcher, "one").await;
        assert!(written.elapsed() >= crate::server::debounce::STABLE);
    }
}
