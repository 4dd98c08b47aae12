//! Watches the configuration file, and reloads each settled text once.
//!
//! An event makes it look, and a poll does where events may be lost. What was seen is loaded once
//! it has stayed the same.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::watched_files::WatchedFiles;
use super::watcher::Watcher;
use crate::base::debounce::{Debounce, Verdict};
use crate::server::lock::lock;
use crate::server::state::Server;

/// Time for which the file must have stayed the same before its text is loaded.
const STABLE: Duration = Duration::from_secs(1);

/// The configuration file.
pub(super) struct ConfigFile {
    file: PathBuf,
    debounce: Debounce<FileLook>,
    watched: WatchedFiles,
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
            watched: WatchedFiles::default(),
        }
    }

    /// Looks at the file. `loaded` is the text that was loaded or refused last, by anybody. The
    /// time is that until the next poll.
    fn look_at(&mut self, loaded: &str) -> (Verdict<FileLook>, Duration) {
        let poll = self.watched.watch(std::slice::from_ref(&self.file));
        let Some(look) = read(&self.file) else {
            self.debounce.reset();
            return (Verdict::Same, poll);
        };
        let is_known = look.text == loaded;
        (self.debounce.look(Instant::now(), look, is_known), poll)
    }
}

impl Watcher for ConfigFile {
    const NAME: &str = "watch of the configuration file";

    async fn look(&mut self, server: &Arc<Server>) -> Option<Duration> {
        if !*server.watching.borrow() {
            *self = ConfigFile::new(std::mem::take(&mut self.file));
            return None;
        }
        if server.is_handing_over() {
            // The new process watches the file. This one does again if that ends, and looks anew.
            self.debounce.reset();
            return Some(STABLE);
        }
        let loaded = lock(&server.attempted).clone();
        let (verdict, poll) = self.look_at(&loaded);
        Some(match verdict {
            Verdict::Same => poll,
            Verdict::Wait(rest) => rest,
            Verdict::Settled(look) => {
                // The result is logged and counted.
                let _ = server.reload_text(Some(look.text), Vec::new()).await;
                poll
            }
        })
    }

    async fn event(&mut self) {
        self.watched.event().await;
    }
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
    use tokio::time::sleep;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn settled(watched: &mut ConfigFile, loaded: &str) -> String {
        let settled = async {
            loop {
                let (verdict, poll) = watched.look_at(loaded);
                let wait = match verdict {
                    Verdict::Same => poll,
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
        assert_eq!(watched.look_at("one").0, Verdict::Same);
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
