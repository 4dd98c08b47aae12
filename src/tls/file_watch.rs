//! Polls files and reports contents that have changed and settled: all polls of a while saw the
//! same. So no half of a write is loaded, whether files are written, renamed or swapped behind a
//! link.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::files::{FileContents, FileStamp, Fingerprint, stamp};
use crate::base::debounce::{Debounce, Verdict};

/// Time for which changed files must have stayed the same: far longer than a program takes between
/// two writes. Polls may come sooner, by events of other files.
pub(crate) const SETTLE_TIME: Duration = Duration::from_millis(500);

/// Polls that read the files although their stamps are the same: the kernel's clock has ticks of
/// some milliseconds, within which a second write leaves no mark.
const UNSURE_POLLS: u8 = 2;

/// State of some files at the latest poll.
pub(crate) struct FileWatch {
    stamps: Vec<Option<FileStamp>>,
    unsure: u8,
    debounce: Debounce<Fingerprint>,
    /// Fingerprint of the contents that were reported last, good or bad.
    reported: Option<Fingerprint>,
}

/// Result of a poll.
pub(crate) enum FileChange {
    /// Nothing new.
    Same,
    /// A file is being written: poll again after this time.
    Unsettled(Duration),
    /// New contents, good or bad.
    Changed(FileContents),
}

impl FileWatch {
    /// Starts without contents: the first polls report a change.
    pub(crate) fn new() -> FileWatch {
        FileWatch {
            stamps: Vec::new(),
            unsure: UNSURE_POLLS,
            debounce: Debounce::new(SETTLE_TIME),
            reported: None,
        }
    }

    /// Starts with the present contents.
    pub(crate) fn start<'a>(
        files: impl Iterator<Item = &'a PathBuf> + Clone,
    ) -> (FileWatch, FileContents) {
        // Before the files are read: the next poll sees a write in between.
        let stamps = files.clone().map(|file| stamp(file)).collect();
        let contents = FileContents::read(files);
        let watch = FileWatch {
            stamps,
            reported: Some(contents.fingerprint()),
            ..FileWatch::new()
        };
        (watch, contents)
    }

    /// Polls the files at `now`; `always` reads them even if their stamps are the same. Blocks on
    /// file I/O.
    pub(crate) fn poll<'a>(
        &mut self,
        files: impl Iterator<Item = &'a PathBuf> + Clone,
        always: bool,
        now: Instant,
    ) -> FileChange {
        let stamps: Vec<_> = files.clone().map(|file| stamp(file)).collect();
        if stamps != self.stamps {
            self.unsure = UNSURE_POLLS;
        } else if self.unsure > 0 {
            self.unsure -= 1;
        } else if !always && !self.debounce.is_waiting() {
            return FileChange::Same;
        }
        self.stamps = stamps;
        let contents = FileContents::read(files);
        let seen = contents.fingerprint();
        let is_known = self.reported == Some(seen);
        match self.debounce.look(now, seen, is_known) {
            Verdict::Same => FileChange::Same,
            Verdict::Wait(rest) => FileChange::Unsettled(rest),
            Verdict::Settled(seen) => {
                self.reported = Some(seen);
                FileChange::Changed(contents)
            }
        }
    }
}
