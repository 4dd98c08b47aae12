//! Watches the configuration file, and reloads each settled text once.
//!
//! The parent directory is watched, because a file that is renamed over or a symlink that is
//! swapped is another inode; and the file is read every `POLL` as well, because events get lost
//! (network file systems, a symlink whose target changes in another directory).

use std::future::pending;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::watcher::Watcher;
use crate::base::debounce::{Debounce, Verdict};
use crate::server::lock::lock;
use crate::server::state::Server;

/// Between two looks when no event comes.
const POLL: Duration = Duration::from_secs(2);

/// Time for which the file must have stayed the same before its text is loaded.
const STABLE: Duration = Duration::from_secs(1);

/// Least time between an event and the look it causes: a busy directory (a log beside the file)
/// costs ten looks a second at most.
const GATHER: Duration = Duration::from_millis(100);

/// Bound of the events that wait; one is enough, it only says "look".
const EVENTS: usize = 1;

/// The configuration file.
pub(super) struct ConfigFile {
    file: PathBuf,
    debounce: Debounce<FileLook>,
    /// `None` before the first look.
    directory: Option<DirectoryEvents>,
}

/// Look at the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileLook {
    text: String,
    /// Device, inode and time of change: tell that the file was written or replaced, even by the
    /// same text.
    stamp: (u64, u64, i128),
}

impl ConfigFile {
    pub(super) fn new(file: PathBuf) -> ConfigFile {
        ConfigFile {
            file,
            debounce: Debounce::new(STABLE),
            directory: None,
        }
    }

    /// Looks at the file. `loaded` is the text that was loaded or refused last, by anybody.
    fn look_at(&mut self, loaded: &str) -> Verdict<FileLook> {
        let file = &self.file;
        self.directory
            .get_or_insert_with(|| DirectoryEvents::of_parent(file));
        let Some(look) = read(file) else {
            self.debounce.reset();
            return Verdict::Same;
        };
        let is_known = look.text == loaded;
        self.debounce.look(Instant::now(), look, is_known)
    }
}

impl Watcher for ConfigFile {
    const NAME: &str = "watch of the configuration file";

    async fn look(&mut self, server: &Arc<Server>) -> Option<Duration> {
        if !*server.watching.borrow() {
            *self = ConfigFile::new(std::mem::take(&mut self.file));
            return None;
        }
        let loaded = lock(&server.attempted).clone();
        Some(match self.look_at(&loaded) {
            Verdict::Same => POLL,
            Verdict::Wait(rest) => rest,
            Verdict::Settled(look) => {
                // The result is logged and counted.
                let _ = server.reload_text(Some(look.text), Vec::new()).await;
                POLL
            }
        })
    }

    async fn event(&mut self) {
        match &mut self.directory {
            Some(directory) => directory.event().await,
            None => pending().await,
        }
    }
}

/// Events of a directory.
struct DirectoryEvents {
    events: mpsc::Receiver<()>,
    /// `None`: the directory cannot be watched, polling alone has to do. Dropping it ends the
    /// events.
    _watcher: Option<RecommendedWatcher>,
}

impl DirectoryEvents {
    /// Begins to watch the directory of `file`. Never fails: without events the poll remains.
    fn of_parent(file: &Path) -> DirectoryEvents {
        let (sender, events) = mpsc::channel(EVENTS);
        let watcher = watch_parent(file, sender).inspect_err(|error| {
            tracing::warn!(file = %file.display(), %error, "configuration file is polled, its directory cannot be watched");
        });
        DirectoryEvents {
            events,
            _watcher: watcher.ok(),
        }
    }

    /// Returns shortly after the next event.
    async fn event(&mut self) {
        match self.events.recv().await {
            Some(()) => sleep(GATHER).await,
            None => pending().await,
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

/// Reads the file; `None` when it is not there, not readable or not text.
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

    async fn settled(watched: &mut ConfigFile, loaded: &str) -> String {
        let settled = async {
            loop {
                let wait = match watched.look_at(loaded) {
                    Verdict::Same => POLL,
                    Verdict::Wait(rest) => rest,
                    Verdict::Settled(look) => return look.text,
                };
                tokio::select! {
                    () = sleep(wait) => {}
                    () = watched.event() => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, settled)
            .await
            .expect("the change is seen")
    }

    fn watch(file: &Path) -> ConfigFile {
        let mut watched = ConfigFile::new(file.to_owned());
        assert_eq!(watched.look_at("one"), Verdict::Same);
        watched
    }

    #[tokio::test]
    async fn sees_a_write_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("balancer.toml");
        std::fs::write(&file, "one").unwrap();
        let mut watched = watch(&file);
        std::fs::write(&file, "two").unwrap();
        assert_eq!(settled(&mut watched, "one").await, "two");
    }

    #[tokio::test]
    async fn sees_a_file_renamed_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("balancer.toml");
        std::fs::write(&file, "one").unwrap();
        let mut watched = watch(&file);
        let next = folder.path().join("next");
        std::fs::write(&next, "two").unwrap();
        std::fs::rename(&next, &file).unwrap();
        assert_eq!(settled(&mut watched, "one").await, "two");
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
        let mut watched = watch(&file);
        link("two");
        assert_eq!(settled(&mut watched, "one").await, "two");
    }

    #[tokio::test]
    async fn does_not_act_before_a_second_of_quiet() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("balancer.toml");
        std::fs::write(&file, "one").unwrap();
        let mut watched = watch(&file);
        std::fs::write(&file, "two").unwrap();
        let written = Instant::now();
        settled(&mut watched, "one").await;
        assert!(written.elapsed() >= STABLE);
    }
}
