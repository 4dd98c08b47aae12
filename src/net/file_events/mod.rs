//! Watches files by the kernel's events (inotify).
//!
//! Each folder on the way to a file is watched for names of ours, so that a rename, a swapped link
//! and a folder that comes back are seen; the file itself for writes. What others write beside our
//! files raises no event. [`FileEvents::watch`] starts anew from the paths each time it is called,
//! so after an event there is no state to be mended.

#![allow(unsafe_code)]

mod plan;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::future::pending;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use self::plan::{Node, Place, Plan};

/// Time from the first event of ours to the end of the wait for it: programs replace several files
/// at once.
const GATHER: Duration = Duration::from_millis(100);

/// Times that the plan is made again because the files changed under it. Then the next look has to
/// do, which an event of the change brings on.
const MAX_PLANS: usize = 3;

/// Time until the kernel is asked again after it had no room for a watch. The files are polled
/// meanwhile, so seldom is enough.
const RETRY: Duration = Duration::from_secs(60);

/// Bytes of the buffer for events: about a hundred. The queue itself has the kernel's bound, and
/// its overflow is an event of ours.
const BUFFER_BYTES: usize = 4096;

/// Buffers that are emptied behind an event of ours: more than the kernel's queue holds.
const MAX_READS: usize = 256;

/// Events of a folder: of its names and of its own removal. A file that may not be read cannot be
/// watched, so its folder tells when it is made readable, and when the folder itself is.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ATTRIB);
const REMOVAL: WatchFlags = WatchFlags::DELETE_SELF.union(WatchFlags::MOVE_SELF);
/// A file may become unreadable, too.
const WRITES: WatchFlags = WatchFlags::CLOSE_WRITE.union(WatchFlags::ATTRIB);

/// File systems, by the magic of statfs(2), that others change without this kernel's knowledge, and
/// overlays, whose lower layers do not tell.
const SILENT: [(u32, &str); 15] = [
    (0x6969, "nfs"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x794c_7630, "overlay"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x00c3_6400, "ceph"),
    (0x5346_414f, "afs"),
    (0x7375_7245, "coda"),
    (0x0bd0_0bd0, "lustre"),
    (0x0116_1970, "gfs2"),
    (0x7461_636f, "ocfs2"),
    (0x786f_4256, "vboxsf"),
    (0x00c0_ffee, "hostfs"),
];

/// Events of some files.
#[derive(Default)]
pub(crate) struct FileEvents {
    /// `None` before the first watch, and where the kernel gave none.
    inotify: Option<AsyncFd<OwnedFd>>,
    /// What the kernel watches, by its number.
    watched: BTreeMap<i32, Place>,
    /// When the kernel had no room for a watch, and the error.
    refused: Option<(Instant, Errno)>,
}

/// How far events tell of changes.
#[derive(Debug)]
pub(crate) enum Coverage {
    /// Of all but a mapped file that is written, and what is mounted over a folder.
    Full,
    /// Not of changes by another machine: a file is on this kind of file system.
    Silent(&'static str),
    /// Of none, or not of every file: the kernel refused.
    Refused(io::Error),
}

/// What was read from the queue.
#[derive(Debug, PartialEq, Eq)]
enum Queue {
    Empty,
    /// Events that are none of ours.
    Others,
    Ours,
    /// The kernel did not let it be read.
    Broken,
}

impl FileEvents {
    /// Watches these files, and no others from now on. They need not be there. A change after this
    /// call raises an event; so read the files afterwards. Blocks on file I/O.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn watch(&mut self, files: &[PathBuf]) -> Coverage {
        let files: Vec<PathBuf> = files
            .iter()
            .map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone()))
            .collect();
        if let Some((since, error)) = self.refused
            && since.elapsed() < RETRY
        {
            return Coverage::Refused(error.into());
        }
        let mut plan = Plan::of(&files, node);
        for _ in 0..MAX_PLANS {
            if let Err(error) = self.install(&plan) {
                self.refuse(error);
                return Coverage::Refused(error.into());
            }
            let now = Plan::of(&files, node);
            if now == plan {
                break;
            }
            plan = now;
        }
        // What is only passed through decides nothing: in a container all of it is on an overlay,
        // and the mounted files are not.
        let decides = |(_, place): &(&PathBuf, &Place)| !is_passed_through(place);
        let mut places = plan.0.iter().filter(decides);
        let silent = places.find_map(|(path, _)| silent_file_system(path));
        silent.map_or(Coverage::Full, Coverage::Silent)
    }

    /// Gives up the watches that the kernel has left, which others of the same user may need more:
    /// all files are polled now. Those beside a folder that may not be read stay.
    fn refuse(&mut self, error: Errno) {
        if error != Errno::ACCESS {
            *self = FileEvents {
                refused: Some((Instant::now(), error)),
                ..FileEvents::default()
            };
        }
    }

    /// Returns shortly after one of the files may have changed. Waits for ever where nothing is
    /// watched.
    ///
    /// # Cancel safety
    /// Loses an event: look at the files afterwards.
    pub(crate) async fn event(&mut self) {
        loop {
            let Some(inotify) = &self.inotify else {
                return pending().await;
            };
            let Ok(mut ready) = inotify.readable().await else {
                break;
            };
            match self.read() {
                Queue::Empty => ready.clear_ready(),
                Queue::Others => {}
                Queue::Ours | Queue::Broken => break,
            }
        }
        sleep(GATHER).await;
        for _ in 0..MAX_READS {
            match self.read() {
                Queue::Empty => break,
                Queue::Others | Queue::Ours => {}
                // The next watch starts with a new queue.
                Queue::Broken => *self = FileEvents::default(),
            }
        }
    }

    /// Reads a buffer of events.
    fn read(&self) -> Queue {
        let Some(inotify) = &self.inotify else {
            return Queue::Empty;
        };
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(inotify.get_ref(), &mut buffer);
        let mut has_ours = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event
                        .file_name()
                        .map(|name| OsStr::from_bytes(name.to_bytes()));
                    has_ours |= self.is_ours(event.wd(), event.events(), name);
                }
                Err(Errno::WOULDBLOCK) => return Queue::Empty,
                Err(Errno::INTR) => continue,
                Err(_) => return Queue::Broken,
            }
            if reader.is_buffer_empty() {
                return if has_ours { Queue::Ours } else { Queue::Others };
            }
        }
    }

    /// Whether an event is about our files.
    fn is_ours(&self, watch: i32, events: ReadFlags, name: Option<&OsStr>) -> bool {
        // Events were lost, of which some may have been ours.
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return true;
        }
        match (self.watched.get(&watch), name) {
            // A watch that was given up has events in the queue.
            (None, _) => false,
            (Some(Place::Folder(names)), Some(name)) => names.contains(name),
            // The place itself was written, removed, or unmounted.
            (Some(_), _) => true,
        }
    }

    /// Has the kernel watch these places alone.
    fn install(&mut self, plan: &Plan) -> Result<(), Errno> {
        if self.inotify.is_none() {
            let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            // SAFETY: the descriptor is owned by what watches it: it stays open, and the same file,
            // for as long as it is registered.
            let watched = unsafe { AsyncFd::register_with_interest(queue, Interest::READABLE) };
            let watched = watched.map_err(|error| Errno::from_io_error(&error.into()));
            self.inotify = Some(watched.map_err(|error| error.unwrap_or(Errno::NOMEM))?);
        }
        let Some(inotify) = &self.inotify else {
            return Ok(());
        };
        let queue = inotify.get_ref();
        let mut watched = BTreeMap::new();
        let mut refused = None;
        for (path, place) in &plan.0 {
            match inotify::add_watch(queue, path, flags(place)) {
                Ok(watch) => add_place(queue, &mut watched, watch, path, place),
                // Gone or replaced meanwhile: the plan is made again.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                // May be looked through, not read; and an unreadable file is an error elsewhere,
                // until its folder tells that it can be read.
                Err(Errno::ACCESS) if !has_names(place) => {}
                Err(error) => refused = Some(error),
            }
        }
        for watch in self.watched.keys().filter(|one| !watched.contains_key(one)) {
            // Fails where the kernel gave it up first.
            let _ = inotify::remove_watch(queue, *watch);
        }
        self.watched = watched;
        refused.map_or(Ok(()), Err)
    }
}

/// Keeps a new watch. The kernel gives the same number to two paths of one folder (a bind mount),
/// and watches for what was asked last.
fn add_place(
    queue: &OwnedFd,
    watched: &mut BTreeMap<i32, Place>,
    watch: i32,
    path: &Path,
    place: &Place,
) {
    match (watched.get_mut(&watch), place) {
        (Some(Place::Folder(known)), Place::Folder(names)) => {
            known.extend(names.iter().cloned());
            let flags = flags(&Place::Folder(known.clone()));
            let _ = inotify::add_watch(queue, path, flags);
        }
        (Some(_), _) => {}
        (None, _) => {
            watched.insert(watch, place.clone());
        }
    }
}

fn has_names(place: &Place) -> bool {
    matches!(place, Place::Folder(names) if !names.is_empty())
}

/// A folder of which only the removal matters.
fn is_passed_through(place: &Place) -> bool {
    matches!(place, Place::Folder(names) if names.is_empty())
}

fn flags(place: &Place) -> WatchFlags {
    let flags = match place {
        Place::File => WRITES,
        Place::Folder(_) if has_names(place) => NAMES | REMOVAL | WatchFlags::ONLYDIR,
        Place::Folder(_) => REMOVAL | WatchFlags::ONLYDIR,
    };
    flags | WatchFlags::DONT_FOLLOW
}

fn node(path: &Path) -> Node {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Node::Missing;
    };
    if meta.is_dir() {
        Node::Folder
    } else if meta.is_symlink() {
        fs::read_link(path).map_or(Node::Missing, Node::Link)
    } else {
        Node::File
    }
}

/// Name of the file system at a path, if it is a silent one.
fn silent_file_system(path: &Path) -> Option<&'static str> {
    let found = rustix::fs::statfs(path).ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a magic has 32 bits"
    )]
    let magic = found.f_type as u32;
    let known = SILENT.iter().find(|(known, _)| *known == magic);
    known.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, create_dir_all, remove_dir_all, rename, write};
    use std::os::unix::fs::symlink;

    use futures_util::FutureExt;
    use tempfile::TempDir;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    struct Watched {
        folder: TempDir,
        file: PathBuf,
        events: FileEvents,
    }

    /// Watches a file of a folder, made by `make` or not there.
    fn watch(file: &str, make: impl FnOnce(&Path)) -> Watched {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path());
        let file = folder.path().join(file);
        let mut events = FileEvents::default();
        assert!(!matches!(
            events.watch(std::slice::from_ref(&file)),
            Coverage::Refused(_)
        ));
        Watched {
            folder,
            file,
            events,
        }
    }

    impl Watched {
        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// Waits for an event, and watches on as a look does.
        async fn told(&mut self) {
            let event = tokio::time::timeout(PATIENCE, self.events.event());
            event.await.expect("the change is told");
            self.events.watch(std::slice::from_ref(&self.file));
        }

        /// Empties the queue: nothing in it is ours.
        fn quiet(&self) {
            while match self.events.read() {
                Queue::Empty => false,
                Queue::Others => true,
                other => panic!("{other:?}"),
            } {}
        }
    }

    #[tokio::test]
    async fn writes_and_renames_of_the_file_are_told() {
        let mut watched = watch("a.toml", |folder| {
            write(folder.join("a.toml"), "1").unwrap()
        });
        for round in 0..3 {
            write(&watched.file, "2").unwrap();
            watched.told().await;
            let fresh = watched.path("fresh");
            write(&fresh, round.to_string()).unwrap();
            rename(&fresh, &watched.file).unwrap();
            watched.told().await;
            watched.quiet();
        }
    }

    #[tokio::test]
    async fn what_others_do_in_the_folder_is_not_ours() {
        let mut watched = watch("a.toml", |folder| {
            write(folder.join("a.toml"), "1").unwrap()
        });
        let other = watched.path("other.log");
        for _ in 0..100 {
            write(&other, "line").unwrap();
            rename(&other, watched.path("other.1")).unwrap();
        }
        std::fs::read(&watched.file).unwrap();
        watched.quiet();
        assert!(watched.events.event().now_or_never().is_none());
        // No event at all, so that nobody wakes for a line.
        let mut log = std::fs::File::create(&other).unwrap();
        watched.quiet();
        for _ in 0..100 {
            std::io::Write::write_all(&mut log, b"line\n").unwrap();
            write(&other, "opened and closed").unwrap();
        }
        assert_eq!(watched.events.read(), Queue::Empty);
    }

    #[tokio::test]
    async fn a_config_map_that_is_swapped_is_told_each_time() {
        let version = |folder: &Path, name: &str| {
            create_dir(folder.join(name)).unwrap();
            write(folder.join(name).join("a.toml"), name).unwrap();
            symlink(name, folder.join("..data_tmp")).unwrap();
            rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        };
        let mut watched = watch("a.toml", |folder| {
            version(folder, "..1");
            symlink("..data/a.toml", folder.join("a.toml")).unwrap();
        });
        for (before, next) in [("..1", "..2"), ("..2", "..3"), ("..3", "..4")] {
            version(watched.folder.path(), next);
            remove_dir_all(watched.path(before)).unwrap();
            watched.told().await;
            assert_eq!(std::fs::read_to_string(&watched.file).unwrap(), next);
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_removed_and_comes_back_is_told() {
        let make = |folder: &Path| {
            create_dir_all(folder.join("etc/lb")).unwrap();
            write(folder.join("etc/lb/a.toml"), "1").unwrap();
        };
        let mut watched = watch("etc/lb/a.toml", make);
        for _ in 0..3 {
            remove_dir_all(watched.path("etc")).unwrap();
            watched.told().await;
            make(watched.folder.path());
            watched.told().await;
            rename(watched.path("etc"), watched.path("old")).unwrap();
            watched.told().await;
            rename(watched.path("old"), watched.path("etc")).unwrap();
            watched.told().await;
            write(&watched.file, "2").unwrap();
            watched.told().await;
        }
    }

    #[tokio::test]
    async fn lost_events_are_taken_for_ours() {
        let watched = watch("a.toml", |folder| {
            write(folder.join("a.toml"), "1").unwrap()
        });
        let overflow = ReadFlags::QUEUE_OVERFLOW;
        assert!(watched.events.is_ours(-1, overflow, None));
        assert!(!watched.events.is_ours(-1, ReadFlags::IGNORED, None));
    }

    #[tokio::test]
    async fn files_that_are_not_watched_any_more_are_quiet() {
        let mut watched = watch("a.toml", |folder| {
            write(folder.join("a.toml"), "1").unwrap()
        });
        let other = watched.path("b.toml");
        watched.events.watch(std::slice::from_ref(&other));
        write(&watched.file, "2").unwrap();
        watched.quiet();
        write(&other, "1").unwrap();
        watched.file = other;
        watched.told().await;
    }

    /// The watches that were left to a process that polled everything were the last of its user.
    #[tokio::test]
    async fn a_kernel_without_room_gets_its_watches_back_and_is_asked_again() {
        let mut watched = watch("a.toml", |folder| {
            write(folder.join("a.toml"), "1").unwrap()
        });
        let files = [watched.file.clone()];
        let events = &mut watched.events;
        events.refuse(Errno::ACCESS);
        assert!(events.inotify.is_some());
        events.refuse(Errno::NOSPC);
        let coverage = events.watch(&files);
        assert!(matches!(coverage, Coverage::Refused(_)), "{coverage:?}");
        assert!(events.inotify.is_none() && events.watched.is_empty());
        events.refused = Instant::now()
            .checked_sub(RETRY)
            .map(|since| (since, Errno::NOSPC));
        let coverage = events.watch(&files);
        assert!(!matches!(coverage, Coverage::Refused(_)), "{coverage:?}");
        write(&watched.file, "2").unwrap();
        watched.told().await;
    }

    #[tokio::test]
    async fn a_file_that_is_made_readable_is_told() {
        let mut watched = watch("a/b.toml", |folder| {
            create_dir(folder.join("a")).unwrap();
            write(folder.join("a/b.toml"), "1").unwrap();
        });
        let set = |path: &Path, mode| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(path, mode).unwrap();
        };
        // As for a file that could not be watched itself.
        let of_file = |(_, place): &(&i32, &Place)| **place == Place::File;
        let watch = *watched.events.watched.iter().find(of_file).unwrap().0;
        inotify::remove_watch(watched.events.inotify.as_ref().unwrap(), watch).unwrap();
        watched.events.watched.remove(&watch);
        watched.quiet();
        set(&watched.file, 0o640);
        watched.told().await;
        // And a folder on the way.
        set(&watched.path("a"), 0o750);
        watched.told().await;
    }

    #[test]
    fn places_that_are_passed_through_do_not_make_files_silent() {
        let files = [PathBuf::from("/etc/lb/a.toml")];
        let plan = Plan::of(&files, |path| match path.to_str() {
            Some("/etc/lb/a.toml") => Node::File,
            _ => Node::Folder,
        });
        let decide = plan.0.iter().filter(|(_, place)| !is_passed_through(place));
        let decide: Vec<_> = decide.map(|(path, _)| path.display().to_string()).collect();
        assert_eq!(decide, ["/etc/lb", "/etc/lb/a.toml"]);
    }

    #[test]
    fn a_magic_stands_for_one_file_system() {
        let mut magics: Vec<u32> = SILENT.iter().map(|(magic, _)| *magic).collect();
        magics.sort_unstable();
        magics.dedup();
        assert_eq!(magics.len(), SILENT.len());
    }
}
